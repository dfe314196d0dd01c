//! Whose token is revoked gets no more of what it has begun to read.

use sluice_proto::results::v1::{DownloadResultRequest, ReconcileStorageConfigRequest};
use sluice_tests::{Answers, DEADLINE, Tenant, eventually};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    results::shelf::{ACME, record},
    storage::clouds::with_s3,
    storage::support::{Storage, stored, upload},
};

const MEBIBYTE: usize = 1024 * 1024;

/// Takes everything out of the keys file, and waits until it has been read.
async fn revoke_all(storage: &Storage) {
    std::fs::write(&storage.shelf.0.keys_file, "").unwrap();
    eventually("the keys to be read", || async {
        let refused = storage.get("any").await.unwrap_err();
        (refused.code() == Code::Unauthenticated).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_download_ends_when_its_token_is_revoked() {
    // Far more than waits anywhere on its way.
    const CHUNKS: usize = 32;
    let storage = Storage::start().await;
    let file = upload();
    storage.store(file.clone(), vec![vec![7; MEBIBYTE]; CHUNKS]).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    let request = DownloadResultRequest { organisation: String::new(), id: file.id.clone() };
    let mut parts = storage.shelf.results(Tenant::Acme).download_result(request).await.unwrap().into_inner();
    let mut bytes = parts.message().await.unwrap().expect("a first part").data.len();
    revoke_all(&storage).await;
    let status = loop {
        match parts.message().await {
            Ok(Some(part)) => bytes += part.data.len(),
            Ok(None) => panic!("{bytes} bytes, the whole file"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn reconciling_ends_when_its_token_is_revoked() {
    let (storage, server, config) = with_s3().await;
    server.answer(Answers::Never);
    let request = ReconcileStorageConfigRequest { organisation: String::new(), id: config.id };
    let mut configs = storage.configs(Tenant::Acme);
    let mut reports = configs.reconcile_storage_config(request).await.unwrap().into_inner();
    revoke_all(&storage).await;
    let status = timeout(DEADLINE, reports.message()).await.expect("an end").unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}
