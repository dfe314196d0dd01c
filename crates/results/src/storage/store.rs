//! A store: one place with its client. Objects are written whole or in parts,
//! read in ranges, measured, removed and signed for. What goes wrong is told in
//! few words of our own: providers' answers may quote credentials.

use std::{
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload,
    local::LocalFileSystem,
    multipart::MultipartStore,
    path::Path,
    signer::{Method, Signer},
};
use sluice_service::OrganisationId;

use super::{
    place::{Place, Provider},
    probe_names::FreeNames,
    upload::Upload,
};

/// What went wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object, or no such bucket.
    #[error("the bucket or the object was not found")]
    NotFound,
    /// The credentials don't do.
    #[error("the credentials were refused")]
    Refused,
    /// A part of the way is a link that leads elsewhere.
    #[error("the path leads outside of the storage")]
    Escapes,
    /// More than can be stored there.
    #[error("the file is larger than this storage takes")]
    TooLarge,
    /// Anything else; may be better later.
    #[error("the storage did not do what was asked")]
    Failed,
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
        match error {
            NotFound { .. } => Self::NotFound,
            PermissionDenied { .. } | Unauthenticated { .. } => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// How long a signature may last.
#[derive(Clone, Copy, Debug)]
pub struct SigningLimit {
    /// What the provider, or the life of the credentials, allows from now on.
    pub longest: Duration,
    /// When the credentials end, if that is known.
    pub credentials_end: Option<SystemTime>,
}

/// What every cloud's client can do.
pub trait Cloud: ObjectStore + MultipartStore + Signer {}
impl<T: ObjectStore + MultipartStore + Signer> Cloud for T {}

#[derive(Clone, Debug)]
enum Client {
    Cloud(Arc<dyn Cloud>, SigningLimit),
    Local(LocalFileSystem, PathBuf),
}

/// A place with its client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    place: Place,
    client: Client,
    probes: FreeNames,
}

/// An object as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Path,
    /// Its size in bytes.
    pub size: u64,
}

impl Store {
    /// Of a cloud.
    pub(super) fn cloud(place: Place, client: Arc<dyn Cloud>, limit: SigningLimit) -> Self {
        Self { place, client: Client::Cloud(client, limit), probes: FreeNames::default() }
    }

    /// Of a directory, whose path is given without links.
    pub(super) fn local(place: Place, files: LocalFileSystem, base: PathBuf) -> Self {
        Self { place, client: Client::Local(files, base), probes: FreeNames::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn objects(&self) -> &dyn ObjectStore {
        match &self.client {
            Client::Cloud(client, _) => client,
            Client::Local(files, _) => files,
        }
    }

    /// Writes an object whole. Again with the same key replaces it.
    ///
    /// # Errors
    /// See [`StoreError`]: it may have been written all the same.
    pub async fn put(
        &self,
        key: &Path,
        bytes: impl Into<PutPayload>,
        media_type: &str,
    ) -> Result<(), StoreError> {
        self.contain(key).await?;
        let options = PutOptions { attributes: self.attributes(media_type), ..PutOptions::default() };
        self.objects().put_opts(key, bytes.into(), options).await?;
        Ok(())
    }

    /// Begins an object that is written in parts.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin(&self, key: &Path, media_type: &str) -> Result<Upload, StoreError> {
        self.contain(key).await?;
        let options =
            PutMultipartOptions { attributes: self.attributes(media_type), ..PutMultipartOptions::default() };
        match (&self.client, self.place.provider()) {
            // Their parts stay until they are completed or aborted by name.
            (Client::Cloud(client, _), Provider::S3 | Provider::Gs) => {
                let id = client.create_multipart_opts(key, options).await?;
                Ok(Upload::named(client.clone(), key.clone(), id))
            }
            _ => Ok(Upload::unnamed(self.objects().put_multipart_opts(key, options).await?)),
        }
    }

    /// Gives up what an upload that was begun may have left behind.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn abort(&self, key: &Path, multipart: Option<&str>) -> Result<(), StoreError> {
        self.contain(key).await?;
        match (&self.client, multipart) {
            (Client::Cloud(client, _), Some(id)) => match client.abort_multipart(key, &id.to_owned()).await {
                Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
                Err(error) => Err(error.into()),
            },
            // Nothing was begun; or it is Azure's, where blocks that were never
            // committed go by themselves after a week.
            (Client::Cloud(..), None) => Ok(()),
            (Client::Local(files, _), _) => {
                let file = files.path_to_filesystem(key)?;
                let removing = tokio::task::spawn_blocking(move || remove_staged(&file));
                removing.await.map_err(|_| StoreError::Failed)?.map_err(|_| StoreError::Failed)
            }
        }
    }

    /// Reads an object, or a range of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn read(
        &self,
        key: &Path,
        range: Option<Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.contain(key).await?;
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.objects().get_opts(key, options).await?;
        Ok(found.into_stream().map_err(StoreError::from).boxed())
    }

    /// The size of an object; `None` if there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn size(&self, key: &Path) -> Result<Option<u64>, StoreError> {
        self.contain(key).await?;
        match self.objects().head(key).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an object and makes sure that it is gone. One that is gone already
    /// is as good.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn remove(&self, key: &Path) -> Result<(), StoreError> {
        self.contain(key).await?;
        match self.objects().delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match self.size(key).await? {
            None => Ok(()),
            Some(_) => Err(StoreError::Failed),
        }
    }

    /// The objects below a folder, however deep, in no order.
    pub fn list(&self, folder: &Path) -> BoxStream<'static, Result<Listed, StoreError>> {
        self.objects()
            .list(Some(folder))
            .map_ok(|found| Listed { key: found.location, size: found.size })
            .map_err(StoreError::from)
            .boxed()
    }

    /// Removes an organisation's directories that are empty. A cloud has none. What can't be
    /// removed stays, as does what the storage config's URL names.
    pub async fn remove_empty_folders(&self, organisation: &OrganisationId) {
        let Client::Local(files, base) = &self.client else { return };
        let Ok(folder) = files.path_to_filesystem(&self.place.folder(organisation)) else { return };
        let base = base.clone();
        let _done = tokio::task::spawn_blocking(move || remove_empty(&folder, &base)).await;
    }

    /// URLs that read these objects until a moment, or until an earlier one that the
    /// provider or the credentials set; and that moment. `None`: no time is left, or
    /// this provider signs nothing. The provider may have to be asked, with Azure once for
    /// all of them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sign(
        &self,
        keys: &[Path],
        until: SystemTime,
    ) -> Result<Option<(Vec<String>, SystemTime)>, StoreError> {
        let Client::Cloud(client, limit) = &self.client else { return Ok(None) };
        let now = SystemTime::now();
        let end = [Some(until), limit.credentials_end].into_iter().flatten().min().unwrap_or(until);
        let left = end.duration_since(now).unwrap_or_default().min(limit.longest);
        // Providers count in seconds.
        let left = Duration::from_secs(left.as_secs());
        if left.is_zero() {
            return Ok(None);
        }
        let urls = client.signed_urls(Method::GET, keys, left).await?;
        Ok(Some((urls.into_iter().map(String::from).collect(), now + left)))
    }

    /// Writes an object, reads it back and removes it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn probe(&self, organisation: &OrganisationId) -> Result<(), StoreError> {
        let mut taken = self.probes.take();
        let key = &self.place.probe(organisation, taken.name);
        let written = Bytes::from_static(b"Written to see whether this storage can be used.\n");
        self.put(key, written.clone(), "text/plain").await?;
        let read = async {
            let mut parts = self.read(key, None).await?;
            let mut bytes = Vec::new();
            while let Some(part) = parts.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            if bytes == written { Ok(()) } else { Err(StoreError::Failed) }
        };
        let read = read.await;
        taken.is_removing = true;
        let removed = self.remove(key).await;
        taken.is_removing = false;
        removed.and(read)
    }

    /// What is told to browsers that follow a signed URL.
    fn attributes(&self, media_type: &str) -> Attributes {
        if self.place.provider() == Provider::Local {
            return Attributes::default();
        }
        Attributes::from_iter([
            (Attribute::ContentType, media_type.to_owned()),
            (Attribute::ContentDisposition, "attachment".to_owned()),
        ])
    }

    /// Refuses a key of a directory that a link leads out of.
    async fn contain(&self, key: &Path) -> Result<(), StoreError> {
        let Client::Local(files, base) = &self.client else { return Ok(()) };
        let (file, base) = (files.path_to_filesystem(key)?, base.clone());
        let looking = tokio::task::spawn_blocking(move || stays_within(&file, &base));
        if looking.await.unwrap_or(false) { Ok(()) } else { Err(StoreError::Escapes) }
    }
}

/// Whether the nearest part of a file's way that exists is where it seems to be.
fn stays_within(file: &std::path::Path, base: &std::path::Path) -> bool {
    let real = file.ancestors().find_map(|part| match part.symlink_metadata() {
        // A link itself is followed, also one that leads nowhere.
        Ok(_) => Some(part.canonicalize().is_ok_and(|real| real == part)),
        Err(_) => None,
    });
    real.unwrap_or(false) && file.starts_with(base)
}

/// Removes the directories right within a folder, and it, as far as nothing is in them.
fn remove_empty(folder: &std::path::Path, base: &std::path::Path) {
    if !stays_within(folder, base) {
        return;
    }
    // Neither a link nor what has something in it is removed in this way.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _not_empty = std::fs::remove_dir(entry.path());
    }
    let _not_empty = std::fs::remove_dir(folder);
}

/// Files in which the client of directories gathers what is not complete: the
/// object's name, `#` and a number.
fn remove_staged(file: &std::path::Path) -> std::io::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let entries = match std::fs::read_dir(folder) {
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .and_then(|found| found.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('#'))
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
