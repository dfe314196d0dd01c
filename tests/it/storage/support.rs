//! What the tests of storage share: a results service alone that may use a folder
//! as `local` storage, with keys, and a clean-up that hardly waits.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use sluice::connection::Authorised;
use sluice_proto::results::v1::{
    CreateStorageConfigRequest, DownloadResultRequest, FileUpload, GetResultRequest, NewResult,
    Result as Record, SetDefaultStorageConfigRequest, StorageConfig, StoreFileRequest, StoreFileResponse,
    storage_config_service_client::StorageConfigServiceClient, store_file_request::Part,
};
use sluice_tests::{Pair, PairBuilder, Service, Tenant, eventually, scratch};
use tonic::Status;

use crate::results::shelf::{ACME, Shelf};

pub type Configs = StorageConfigServiceClient<Authorised>;

/// A key of the tests.
pub const KEY: &str = "k1=0101010101010101010101010101010101010101010101010101010101010101";

/// A shelf with storage.
pub struct Storage {
    pub shelf: Shelf,
    /// The root of `local` storage.
    pub root: PathBuf,
}

/// Flags of a results service with storage below `root`.
pub fn builder(root: &std::path::Path) -> PairBuilder {
    let flags = [
        ("storage-local-root", root.to_str().unwrap()),
        ("storage-keys", KEY),
        ("signing-keys", KEY),
        ("cleanup-interval-seconds", "1"),
    ];
    flags.into_iter().fold(Pair::builder(), |pair, (name, value)| pair.flag(Service::Results, name, value))
}

impl Storage {
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub async fn with(more: impl FnOnce(PairBuilder) -> PairBuilder) -> Self {
        let root = scratch("storage");
        let pair = more(builder(&root).ingest_replicas(0)).start().await;
        Self { shelf: Shelf(pair), root }
    }

    pub fn configs(&self, tenant: Tenant) -> Configs {
        self.configs_of(tenant, 0)
    }

    pub fn configs_of(&self, tenant: Tenant, replica: usize) -> Configs {
        StorageConfigServiceClient::new(self.shelf.0.authorised(tenant, &self.shelf.0.results[replica]))
    }

    /// Creates a storage config of `acme`.
    pub async fn create(&self, config: StorageConfig) -> Result<StorageConfig, Status> {
        let request = CreateStorageConfigRequest { storage_config: Some(config) };
        let answer = self.configs(Tenant::Acme).create_storage_config(request).await?;
        Ok(answer.into_inner().storage_config.unwrap())
    }

    /// Creates one in a folder, and makes it the default.
    pub async fn default_folder(&self, terms: StorageConfig) -> StorageConfig {
        let config = StorageConfig { url: "local://bucket/a".into(), ..terms };
        let created = self.create(config).await.unwrap();
        self.set_default(&created.id).await.unwrap();
        created
    }

    pub async fn set_default(&self, id: &str) -> Result<(), Status> {
        let request = SetDefaultStorageConfigRequest { organisation: String::new(), id: id.into() };
        self.configs(Tenant::Acme).set_default_storage_config(request).await.map(drop)
    }

    pub async fn get(&self, id: &str) -> Result<Record, Status> {
        let request = GetResultRequest { organisation: String::new(), id: id.into() };
        let answer = self.shelf.results(Tenant::Acme).get_result(request).await?;
        Ok(answer.into_inner().result.unwrap())
    }

    pub async fn download(&self, id: &str) -> Result<Vec<u8>, Status> {
        let request = DownloadResultRequest { organisation: String::new(), id: id.into() };
        let mut stream = self.shelf.results(Tenant::Acme).download_result(request).await?.into_inner();
        let mut data = vec![];
        while let Some(chunk) = stream.message().await? {
            data.extend_from_slice(&chunk.data);
        }
        Ok(data)
    }

    /// Streams a file of `acme` as ingest does.
    pub async fn store(&self, upload: FileUpload, chunks: Vec<Vec<u8>>) -> Result<StoreFileResponse, Status> {
        let first = StoreFileRequest { part: Some(Part::Upload(upload)) };
        let parts =
            chunks.into_iter().map(|chunk| StoreFileRequest { part: Some(Part::Chunk(chunk.into())) });
        let stream = tokio_stream::iter(std::iter::once(first).chain(parts).collect::<Vec<_>>());
        Ok(self.shelf.intake(0).store_file(stream).await?.into_inner())
    }

    /// The files below the root of `local` storage, probes included.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }

    /// How many uploads are open, sealed or to be removed.
    pub async fn uploads(&self) -> i64 {
        let sql = self.shelf.0.results_database.sql().await;
        sql.query_one("SELECT count(*) FROM upload WHERE state < 4", &[]).await.unwrap().get(0)
    }

    /// Waits until the clean-up has removed what uploads left.
    pub async fn no_uploads(&self) {
        eventually("no upload left", || async { (self.uploads().await == 0).then_some(()) }).await;
    }

    /// Makes everything older, as if so much of the retention had passed.
    pub async fn age(&self, days: i32) {
        let sql = self.shelf.0.results_database.sql().await;
        let statement = format!(
            "UPDATE result SET date_created = date_created - interval '{days} days';
             UPDATE batch SET date_created = date_created - interval '{days} days';
             UPDATE available SET date_created = date_created - interval '{days} days';
             UPDATE consumed SET date_created = date_created - interval '{days} days';
             UPDATE expired SET date_created = date_created - interval '{days} days';
             UPDATE storage_config SET date_created = date_created - interval '{days} days';
             UPDATE cleanup_progress SET date = date - interval '{days} days'"
        );
        sql.batch_execute(&statement).await.unwrap();
    }

    /// Makes the folder unusable, or usable again.
    pub fn forbid(&self, forbidden: bool) {
        // Permissions mean nothing to root: a file in the folder's place does.
        let (bucket, aside) = (self.root.join("bucket"), self.root.join("aside"));
        if forbidden {
            std::fs::rename(&bucket, &aside).unwrap();
            std::fs::write(&bucket, "in the way").unwrap();
            std::fs::set_permissions(&bucket, std::fs::Permissions::from_mode(0o000)).unwrap();
        } else {
            std::fs::remove_file(&bucket).unwrap();
            std::fs::rename(&aside, &bucket).unwrap();
        }
    }
}

/// A file of `acme` about to be stored.
pub fn upload() -> FileUpload {
    FileUpload { organisation: ACME.into(), id: uuid::Uuid::now_v7().to_string(), ..FileUpload::default() }
}

/// The result that a stored file becomes.
pub fn stored(id: &str) -> NewResult {
    let labels = crate::results::shelf::new("");
    NewResult { id: id.into(), stored_file: true, ..labels }
}

/// A duration of whole seconds.
pub fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}
