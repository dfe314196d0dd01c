//! The data of results, wherever it is kept: read whole or in part, and signed
//! URLs to it.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream, stream::BoxStream};
use md5::{Digest, Md5};
use prost_types::Timestamp;
use sluice_proto::results::v1::SignedUrl;
use sluice_service::{Error, Kind, OrganisationId};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::{
    chunks,
    configs::{Configs, stores::Stores},
    result::{Checksum, Record, State},
    sessions::Tenants,
    shelf::{Shelf, data_expired, lost},
    signing::Signing,
    storage::{
        place::{Place, Provider},
        store::StoreError,
    },
    storage_config::StorageConfig,
};

/// So much is signed by buckets at the same time for one answer,
const SIGNING_AT_ONCE: usize = 16;
/// and no longer than this: some ask their provider first.
const SIGNING_MAX: Duration = Duration::from_secs(2);

/// The data. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Data {
    /// Records and inline data.
    pub shelf: Shelf,
    /// Sessions for files in the results database.
    pub tenants: Tenants,
    /// Where organisations keep theirs.
    pub configs: Configs,
    /// What that opens.
    pub stores: Stores,
    /// Signs URLs of what this service itself gives out.
    pub signing: Arc<Signing>,
}

/// The bytes of some data.
pub type Parts = BoxStream<'static, Result<Bytes, Error>>;

impl Data {
    /// The storage config of a record; `None`: the built-in `db`.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn config(
        &self,
        organisation: &OrganisationId,
        record: &Record,
    ) -> Result<Option<Arc<StorageConfig>>, Error> {
        match record.storage_config {
            None => Ok(None),
            Some(id) => match self.configs.recent(organisation, id).await {
                Ok(config) => Ok(Some(config)),
                Err(error) if error.kind() == Kind::NotFound => {
                    Err(Error::internal("a record names a storage config that is not there"))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// The whole data of a record, its checksum verified on the way: what ends
    /// without an error is what was published.
    ///
    /// # Errors
    /// FAILED_PRECONDITION (`EXPIRED`); DATA_LOSS, also at the end; UNAVAILABLE.
    pub async fn download(&self, organisation: &OrganisationId, record: &Record) -> Result<Parts, Error> {
        if record.placement.is_some() {
            // Verified as it is read.
            return self.read(organisation, record, 0..record.size).await;
        }
        let parts = self.read(organisation, record, 0..record.size).await?;
        let (expected, organisation, id) = (record.checksum, organisation.clone(), record.id);
        let parts = verified(parts, expected, move || lost(&organisation, id));
        Ok(parts.boxed())
    }

    /// A part of the data of a record.
    ///
    /// # Errors
    /// As [`Self::download`]; a part's checksum is not known.
    pub async fn read(
        &self,
        organisation: &OrganisationId,
        record: &Record,
        range: Range<u64>,
    ) -> Result<Parts, Error> {
        if record.state() == State::Expired {
            return Err(data_expired());
        }
        if record.placement.is_some() {
            let data = self.shelf.inline_data(organisation, record.id).await?;
            // Within the data, whose size fits into memory.
            let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(data.len());
            return Ok(pieces(data.slice(at(range.start)..at(range.end))).boxed());
        }
        let config = self.config(organisation, record).await?;
        match config.filter(|config| !config.is_in_database()) {
            None => {
                let (data, whose, id) = (self.clone(), organisation.clone(), record.id);
                let missing = move || {
                    let (data, whose) = (data.clone(), whose.clone());
                    async move { data.why_missing(&whose, id).await }
                };
                let tenants = self.tenants.clone();
                Ok(chunks::read(tenants, organisation.clone(), id, range, missing).boxed())
            }
            Some(config) => self.read_object(&config, record, range).await,
        }
    }

    async fn read_object(
        &self,
        config: &StorageConfig,
        record: &Record,
        range: Range<u64>,
    ) -> Result<Parts, Error> {
        let away = || Error::unavailable("the storage can't be read now");
        let store = self.stores.open(config).map_err(|why| away().because(why))?;
        // Providers know no range without bytes.
        let part = (range != (0..record.size)).then_some(range).filter(|range| !range.is_empty());
        if record.size == 0 {
            return Ok(stream::empty().boxed());
        }
        match store.read(&config.object(record.id), part).await {
            Ok(parts) => Ok(parts.map_err(move |error| away().because(error)).boxed()),
            Err(StoreError::NotFound) => Err(self.why_missing(&config.organisation, record.id).await),
            Err(error) => Err(away().because(error)),
        }
    }

    /// Why data is not there: the clean-up may have come since the record was read.
    async fn why_missing(&self, organisation: &OrganisationId, id: Uuid) -> Error {
        match self.shelf.get(organisation, id).await {
            Ok(now) if now.state() == State::Expired => data_expired(),
            Ok(_) => lost(organisation, id),
            Err(error) => error,
        }
    }

    /// Where a record's data is, which a config keeps, or the built-in `db`; and a URL
    /// that reads it without a token, if this service makes one.
    #[must_use]
    pub fn urls(
        &self,
        organisation: &OrganisationId,
        config: Option<&StorageConfig>,
        record: &Record,
    ) -> (String, Option<SignedUrl>) {
        let Some(config) = config else { return (Place::built_in().url_of(organisation, record.id), None) };
        let until = self.valid_until(config, record).filter(|_| is_own(config));
        let sign = |until| {
            let url = self.signing.url(&config.organisation, record.id, until)?;
            Some(signed_url(url, until))
        };
        (config.place.url_of(organisation, record.id), until.and_then(sign))
    }

    /// Until when a bucket is to sign a URL of a record, if it is.
    #[must_use]
    pub fn bucket_signs<'a>(
        &self,
        config: Option<&'a StorageConfig>,
        record: &Record,
    ) -> Option<(&'a StorageConfig, SystemTime)> {
        let config = config.filter(|config| !is_own(config))?;
        Some((config, self.valid_until(config, record)?))
    }

    /// When a record's signed URLs end, as it was fixed with the record; `None` if
    /// it has none, or no more.
    #[must_use]
    pub fn valid_until(&self, config: &StorageConfig, record: &Record) -> Option<SystemTime> {
        let seconds = record.signed_urls_seconds.filter(|_| config.terms.signed_urls_enabled)?;
        let created = SystemTime::try_from(Timestamp::from(record.date_created)).ok()?;
        let until = created.checked_add(Duration::from_secs(seconds.unsigned_abs().into()))?;
        (record.state() != State::Expired && until > SystemTime::now()).then_some(until)
    }

    /// The URLs that buckets sign for results until some moments, by id; those that are to
    /// be had soon. A storage config that fails is left alone.
    pub async fn sign<'a>(
        &self,
        asked: impl Iterator<Item = (&'a StorageConfig, Uuid, SystemTime)>,
    ) -> HashMap<Uuid, SignedUrl> {
        let mut groups: HashMap<_, (&StorageConfig, Vec<Uuid>)> = HashMap::new();
        for (config, id, until) in asked {
            // What is asked of Azure for one does for all.
            let alone = (config.place.provider() != Provider::Az).then_some(id);
            groups.entry((config.id, until, alone)).or_insert((config, Vec::new())).1.push(id);
        }
        let failed = Mutex::default();
        let sign = |((_, until, _), (config, ids))| self.sign_together(config, ids, until, &failed);
        let signing: Vec<_> = groups.into_iter().map(sign).collect();
        let mut signing = stream::iter(signing).buffer_unordered(SIGNING_AT_ONCE);
        let (mut signed, end) = (HashMap::new(), Instant::now() + SIGNING_MAX);
        while let Ok(Some(some)) = timeout_at(end, signing.next()).await {
            signed.extend(some);
        }
        signed
    }

    async fn sign_together(
        &self,
        config: &StorageConfig,
        ids: Vec<Uuid>,
        until: SystemTime,
        failed: &Mutex<HashSet<Uuid>>,
    ) -> Vec<(Uuid, SignedUrl)> {
        // Nothing that holds the lock can panic half-way.
        let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().contains(&config.id) {
            return Vec::new();
        }
        let signing = async {
            let store = self.stores.open(config)?;
            let keys: Vec<_> = ids.iter().map(|id| config.object(*id)).collect();
            store.sign(&keys, until).await.map_err(|error| error.to_string())
        };
        match signing.await {
            Ok(Some((urls, until))) => {
                ids.into_iter().zip(urls.into_iter().map(|url| signed_url(url, until))).collect()
            }
            Ok(None) => Vec::new(),
            Err(why) => {
                tracing::debug!(organisation = %config.organisation, storage_config = %config.id, why, "no signed URL");
                failed().insert(config.id);
                Vec::new()
            }
        }
    }
}

/// Whether it is this service that gives out what it keeps.
fn is_own(config: &StorageConfig) -> bool {
    matches!(config.place.provider(), Provider::Db | Provider::Local)
}

fn signed_url(url: String, until: SystemTime) -> SignedUrl {
    SignedUrl { url, date_expires: Some(Timestamp::from(until)) }
}

/// Largest part that is handed on, in bytes.
const PART_BYTES_MAX: usize = 256 * 1024;

/// Cuts bytes that are in memory into parts, without copying. No bytes are no part.
fn pieces(mut bytes: Bytes) -> impl Stream<Item = Result<Bytes, Error>> {
    stream::iter(std::iter::from_fn(move || {
        let size = bytes.len().min(PART_BYTES_MAX);
        (size > 0).then(|| Ok(bytes.split_to(size)))
    }))
}

/// Hands parts on, no larger than a message may be, and ends with an error if all
/// of them together have another MD5.
fn verified(
    parts: Parts,
    expected: Checksum,
    lost: impl FnOnce() -> Error + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let state = Some((parts, Md5::new(), lost));
    let checked = stream::try_unfold(state, move |state| async move {
        let Some((mut parts, mut hash, lost)) = state else { return Ok(None) };
        match parts.try_next().await? {
            Some(part) => {
                hash.update(&part);
                Ok(Some((part, Some((parts, hash, lost)))))
            }
            None if Checksum::from(hash) == expected => Ok(None),
            None => Err(lost()),
        }
    });
    checked.map_ok(pieces).try_flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(given: &[&'static [u8]]) -> Parts {
        stream::iter(given.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>()).boxed()
    }

    async fn check(given: &[&'static [u8]]) -> Result<Vec<u8>, Error> {
        let expected = Checksum::of(b"abc");
        let whole: Vec<Bytes> =
            verified(parts(given), expected, || Error::internal("lost")).try_collect().await?;
        Ok(whole.concat())
    }

    #[tokio::test]
    async fn only_the_published_bytes_end_well() {
        assert_eq!(check(&[b"a", b"bc"]).await.unwrap(), b"abc");
        let wrongs: [&[&'static [u8]]; 3] = [&[], &[b"ab"], &[b"abc", b"d"]];
        for wrong in wrongs {
            assert!(check(wrong).await.is_err());
        }
    }

    #[tokio::test]
    async fn pieces_are_the_bytes_and_none_is_empty() {
        for size in [0, 1, PART_BYTES_MAX, PART_BYTES_MAX + 1] {
            let bytes = Bytes::from(vec![7; size]);
            let cut: Vec<Bytes> = pieces(bytes.clone()).try_collect().await.unwrap();
            assert!(cut.iter().all(|part| (1..=PART_BYTES_MAX).contains(&part.len())));
            assert_eq!(cut.concat(), bytes);
        }
    }
}
