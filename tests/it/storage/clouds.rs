//! The same over real protocols: S3 with verified signatures, Azurite, and the
//! stand-in for Google. Signed URLs are fetched by a client that knows of none of them.

use std::collections::HashMap;

use sluice_proto::results::v1::{
    NewResult, ReconcileStorageConfigRequest, StorageConfig, StoreFileRequest, TestStorageConfigRequest,
    record_results_response::Recording, result::State, storage_config::State as ConfigState,
    store_file_request::Part,
};
use sluice_tests::{Answers, Azurite, GsServer, PairBuilder, S3Server, Service, Tenant, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    http::support::get_url,
    results::shelf::{ACME, new, record},
    storage::support::{Storage, seconds, stored, upload},
};

const MEBIBYTE: usize = 1024 * 1024;

fn config(url: &str, credentials: &[(&str, &str)]) -> StorageConfig {
    let credentials: HashMap<String, String> =
        credentials.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    StorageConfig {
        url: url.into(),
        credentials,
        signed_urls_enabled: true,
        signed_urls_expiry: seconds(600),
        managed: true,
        retention: seconds(86_400),
        ..StorageConfig::default()
    }
}

pub fn s3(server: &S3Server, secret: &str) -> StorageConfig {
    let endpoint = server.endpoint();
    let credentials =
        [("access_key_id", S3Server::ACCESS_KEY_ID), ("secret_access_key", secret), ("endpoint", &endpoint)];
    config("s3://bucket/some/path", &credentials)
}

/// A results service that may use one endpoint.
async fn storage(endpoint: &str) -> Storage {
    Storage::with(|pair| allowing(endpoint, pair)).await
}

/// Its flag for that.
pub fn allowing(endpoint: &str, pair: PairBuilder) -> PairBuilder {
    let origin = endpoint.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    pair.flag(Service::Results, "storage-endpoints", &origin)
}

/// A results service with an S3 bucket as the default of `acme`, that soon takes an upload
/// for dead.
pub async fn with_s3() -> (Storage, S3Server, StorageConfig) {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let impatient =
        |pair| allowing(&server.endpoint(), pair).flag(Service::Results, "upload-idle-seconds", "1");
    let storage = Storage::with(impatient).await;
    let config = storage.create(s3(&server, S3Server::SECRET_ACCESS_KEY)).await.unwrap();
    assert_eq!(config.state(), ConfigState::Valid, "{}", config.state_details);
    storage.set_default(&config.id).await.unwrap();
    (storage, server, config)
}

/// Everything a storage does, over one provider: results, files of one part and of
/// several, signed URLs, reconciling, clean-up.
async fn does_all(storage: &Storage, config: StorageConfig) {
    let url = config.url.clone();
    let config = storage.create(config).await.unwrap();
    assert_eq!(config.state(), ConfigState::Valid, "{}", config.state_details);
    storage.set_default(&config.id).await.unwrap();
    let (small, empty, file, large) = (new("small"), new(""), upload(), upload());
    storage.shelf.record(&[small.clone(), empty.clone()]).await;
    let content: Vec<u8> = (0..17 * MEBIBYTE + 3).map(|place| (place / 7) as u8).collect();
    storage.store(file.clone(), vec![b"file".to_vec()]).await.unwrap();
    storage.store(large.clone(), content.chunks(MEBIBYTE).map(<[u8]>::to_vec).collect()).await.unwrap();
    let told =
        record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id), stored(&large.id)]).await.unwrap();
    assert_eq!(told, [Recording::Recorded; 2]);

    let ids = [&small.id, &empty.id, &file.id, &large.id];
    for (id, data) in ids.into_iter().zip([&b"small"[..], b"", b"file", &content]) {
        assert!(storage.download(id).await.unwrap() == data, "{id}: {} bytes", data.len());
        let told = storage.get(id).await.unwrap();
        assert!(told.url.starts_with(&format!("{url}/acme/")), "{}", told.url);
        let signed = told.signed_url.unwrap();
        let answer = get_url(&signed.url, &[]).await;
        assert!(answer.status == 200 && answer.body == data, "{}: {:?}", signed.url, answer.status);
        assert_eq!(answer.headers["content-type"], told.r#type.as_str());
    }
    let signed = storage.get(&file.id).await.unwrap().signed_url.unwrap().url;
    assert_eq!(get_url(&signed, &[("range", "bytes=1-2")]).await.text(), "il");
    assert_eq!(get_url(&signed.replace(&file.id, &small.id), &[]).await.status, 403, "another object");

    let request = ReconcileStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    let mut reports =
        storage.configs(Tenant::Acme).reconcile_storage_config(request).await.unwrap().into_inner();
    let counts = reports.message().await.unwrap().unwrap();
    assert_eq!((counts.objects, counts.records, counts.id.as_str()), (4, 4, ""));

    storage.age(2).await;
    eventually("the end of the retention", || async {
        for id in ids {
            storage.get(id).await.unwrap().date_deleted?;
        }
        Some(())
    })
    .await;
    assert_eq!(storage.get(&file.id).await.unwrap().signed_url, None);
    assert_eq!(storage.download(&file.id).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn s3_does_all() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    does_all(&storage(&server.endpoint()).await, s3(&server, S3Server::SECRET_ACCESS_KEY)).await;
    assert_eq!((server.keys("bucket"), server.open_uploads()), (Vec::<String>::new(), 0));
}

#[tokio::test]
async fn azure_does_all() {
    let server = Azurite::start().await;
    server.create_container("bucket").await;
    let endpoint = server.endpoint();
    let credentials =
        [("account", Azurite::ACCOUNT), ("access_key", Azurite::ACCESS_KEY), ("endpoint", &endpoint)];
    let storage = storage(&endpoint).await;
    let nowhere = storage.create(config("az://nowhere/path", &credentials)).await.unwrap();
    assert_eq!(nowhere.state_details, "the bucket or the object was not found");
    does_all(&storage, config("az://bucket/path", &credentials)).await;
}

#[tokio::test]
async fn google_does_all_as_far_as_its_stand_in_goes() {
    let server = GsServer::start().await;
    server.create_bucket("bucket");
    let endpoint = server.endpoint();
    let credentials = [("service_account_key", server.service_account_key()), ("endpoint", &endpoint)];
    does_all(&storage(&endpoint).await, config("gs://bucket/path", &credentials)).await;
}

#[tokio::test]
async fn wrong_credentials_are_invalid_and_not_told() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let storage = storage(&server.endpoint()).await;
    let wrong = storage.create(s3(&server, "a-wrong-secret")).await.unwrap();
    assert_eq!(wrong.state(), ConfigState::Invalid);
    let details = wrong.state_details;
    assert_eq!(details, "the credentials were refused");
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn a_bucket_that_is_away_keeps_results_waiting_and_none_is_lost() {
    let (storage, server, config) = with_s3().await;
    server.answer(Answers::Unavailable);
    let (waits, other) = (new("waits"), new("other"));
    let told = record(&mut storage.shelf.intake(0), ACME, vec![waits.clone()]).await.unwrap();
    assert_eq!(told, [Recording::Deferred]);
    let told = record(&mut storage.shelf.intake(0), "globex", vec![other]).await.unwrap();
    assert_eq!(told, [Recording::Recorded], "another organisation's");
    server.answer(Answers::Well);
    let test = TestStorageConfigRequest { organisation: String::new(), id: config.id };
    let told = storage.configs(Tenant::Acme).test_storage_config(test).await.unwrap().into_inner();
    assert_eq!(told.storage_config.unwrap().state(), ConfigState::Valid);
    // Nobody took the first try for dead, however long it was ago.
    let told = record(&mut storage.shelf.intake(0), ACME, vec![waits.clone()]).await.unwrap();
    assert_eq!(told, [Recording::Recorded]);
    assert_eq!(storage.download(&waits.id).await.unwrap(), b"waits");
    storage.no_uploads().await;
    assert_eq!(server.keys("bucket").len(), 1);
}

#[tokio::test]
async fn a_multipart_upload_that_breaks_off_is_aborted() {
    let (storage, server, _) = with_s3().await;
    let (sender, receiver) = mpsc::channel(1);
    let mut intake = storage.shelf.intake(0);
    let call = tokio::spawn(async move { intake.store_file(ReceiverStream::new(receiver)).await });
    sender.send(StoreFileRequest { part: Some(Part::Upload(upload())) }).await.unwrap();
    for _ in 0..20 {
        sender.send(StoreFileRequest { part: Some(Part::Chunk(vec![7; MEBIBYTE].into())) }).await.unwrap();
    }
    eventually("a multipart upload", || async { (server.open_uploads() == 1).then_some(()) }).await;
    call.abort();
    storage.no_uploads().await;
    assert_eq!((server.keys("bucket"), server.open_uploads()), (Vec::<String>::new(), 0));
}

#[tokio::test]
async fn a_signed_url_does_not_outlive_the_credentials() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let storage = storage(&server.endpoint()).await;
    let ends =
        prost_types::Timestamp::from(std::time::SystemTime::now() + std::time::Duration::from_secs(120));
    let mut ending = s3(&server, S3Server::SECRET_ACCESS_KEY);
    ending.credentials.insert("date_expires".into(), ends.to_string());
    let config = storage.create(ending).await.unwrap();
    let result = NewResult { storage_config: config.id, ..new("x") };
    storage.shelf.record(std::slice::from_ref(&result)).await;
    let told = storage.get(&result.id).await.unwrap();
    assert_eq!(told.state(), State::Available);
    let expires = told.signed_url.unwrap().date_expires.unwrap();
    assert!(expires.seconds <= ends.seconds && expires.seconds > ends.seconds - 60, "{expires} {ends}");
}

#[tokio::test]
async fn keys_rotate_and_without_theirs_credentials_are_of_no_use() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let file = sluice_tests::scratch("keys").join("keys.toml");
    let key = |id: &str, byte: &str| format!("[[key]]\nid = \"{id}\"\nsecret = \"{}\"\n", byte.repeat(32));
    let (old, new) = (key("old", "01"), key("new", "02"));
    std::fs::write(&file, &old).unwrap();
    let mut storage = Storage::with(|pair| {
        pair.flag(Service::Results, "storage-endpoints", &server.endpoint())
            .flag(Service::Results, "storage-keys", "")
            .flag(Service::Results, "storage-keys-file", file.to_str().unwrap())
    })
    .await;
    let config = storage.create(s3(&server, S3Server::SECRET_ACCESS_KEY)).await.unwrap();
    let sql = storage.shelf.0.results_database.sql().await;
    let key_in_use = async || -> String {
        sql.query_one("SELECT credentials_key FROM storage_config", &[]).await.unwrap().get(0)
    };
    assert_eq!(key_in_use().await, "old");
    let mut restart_with = async |keys: &str| {
        std::fs::write(&file, keys).unwrap();
        storage.shelf.0.results[0].stop().await;
        storage.shelf.0.results[0].restart(false).await;
        let test = TestStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
        let told = storage.configs(Tenant::Acme).test_storage_config(test).await.unwrap().into_inner();
        (told.storage_config.unwrap().state(), told.details)
    };
    assert_eq!(restart_with(&format!("{new}{old}")).await.0, ConfigState::Valid);
    eventually("the credentials under the new key", || async { (key_in_use().await == "new").then_some(()) })
        .await;
    assert_eq!(restart_with(&new).await.0, ConfigState::Valid);
    let (state, details) = restart_with(&old).await;
    assert_eq!(
        (state, details.as_str()),
        (ConfigState::Invalid, "the key new that encrypted the credentials is not there")
    );
}

#[tokio::test]
async fn the_services_own_identity_opens_only_what_the_operator_lists() {
    let server = S3Server::start().await;
    server.create_bucket("ours");
    let storage = Storage::with(|pair| {
        pair.variable("AWS_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID)
            .variable("AWS_SECRET_ACCESS_KEY", S3Server::SECRET_ACCESS_KEY)
            .variable("AWS_ENDPOINT", &server.endpoint())
            .variable("AWS_ALLOW_HTTP", "true")
            .flag(Service::Results, "storage-identity-buckets", "s3://ours/tenants")
    })
    .await;
    for refused in ["s3://ours", "s3://ours/other", "s3://theirs/tenants"] {
        let told = storage.create(config(refused, &[])).await.unwrap_err();
        assert_eq!(told.code(), Code::InvalidArgument, "{refused}");
    }
    let created = storage.create(config("s3://ours/tenants/acme", &[])).await.unwrap();
    assert_eq!(created.state(), ConfigState::Valid, "{}", created.state_details);
    let result = NewResult { storage_config: created.id, ..new("ours") };
    storage.shelf.record(std::slice::from_ref(&result)).await;
    let told = storage.get(&result.id).await.unwrap();
    let signed = told.signed_url.unwrap();
    assert_eq!(get_url(&signed.url, &[]).await.text(), "ours");
    // How long such credentials live is not known here: no longer than that is promised.
    let left = signed.date_expires.unwrap().seconds - told.date_created.unwrap().seconds;
    assert!(left <= 301, "{left} seconds");
}
