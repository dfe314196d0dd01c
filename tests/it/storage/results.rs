//! Where results go: into what the definition names, the organisation's default,
//! or the built-in `db`, by the contract's rules.

use sluice_proto::results::v1::{
    DeactivateStorageConfigRequest, GetStorageConfigRequest, NewResult, StorageConfig,
    record_results_response::Recording, result::State, storage_config::State as ConfigState,
};
use sluice_tests::{Tenant, eventually};
use tonic::Code;

use crate::{
    results::shelf::{ACME, new, record},
    storage::support::{Storage, upload},
};

fn naming(config: &str, data: &str) -> NewResult {
    NewResult { storage_config: config.into(), ..new(data) }
}

async fn deactivate(storage: &Storage, id: &str) {
    let request = DeactivateStorageConfigRequest { organisation: String::new(), id: id.into() };
    storage.configs(Tenant::Acme).deactivate_storage_config(request).await.unwrap();
}

#[tokio::test]
async fn data_of_a_bucket_lies_where_the_url_says() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    let result = new("the data");
    storage.shelf.record(std::slice::from_ref(&result)).await;
    let told = storage.get(&result.id).await.unwrap();
    assert_eq!(told.storage_config, config.id);
    assert_eq!(told.checksum, "3d5f3303ed6ce28c2d5ac1192118f0e2");
    assert_eq!((told.size, told.state()), (8, State::Available));
    let file = told.url.strip_prefix("local://").unwrap();
    assert_eq!(std::fs::read(storage.root.join(file)).unwrap(), b"the data");
    assert_eq!(storage.download(&result.id).await.unwrap(), b"the data");
    assert_eq!(storage.uploads().await, 0, "the row of the object goes with the record's commit");
}

#[tokio::test]
async fn what_is_named_goes_before_the_default_and_the_default_before_db() {
    let storage = Storage::start().await;
    let named =
        storage.create(StorageConfig { url: "local://named".into(), ..Default::default() }).await.unwrap();
    let default = storage.default_folder(StorageConfig::default()).await;
    let kept_by = async |result: NewResult| {
        storage.shelf.record(std::slice::from_ref(&result)).await;
        storage.get(&result.id).await.unwrap().storage_config
    };
    assert_eq!(kept_by(naming(&named.id, "a")).await, named.id);
    assert_eq!(kept_by(naming(&uuid::Uuid::now_v7().to_string(), "a")).await, default.id, "unknown");
    assert_eq!(kept_by(naming("nonsense", "a")).await, default.id, "malformed");
    assert_eq!(kept_by(new("a")).await, default.id);
    deactivate(&storage, &named.id).await;
    assert_eq!(kept_by(naming(&named.id, "a")).await, default.id, "deactivated");
    deactivate(&storage, &default.id).await;
    assert_eq!(kept_by(naming(&named.id, "a")).await, "", "the built-in db");
}

#[tokio::test]
async fn nobody_uses_another_organisations_storage() {
    let storage = Storage::start().await;
    let config =
        storage.create(StorageConfig { url: "local://bucket".into(), ..Default::default() }).await.unwrap();
    let result = naming(&config.id, "a");
    let told = record(&mut storage.shelf.intake(0), "globex", vec![result]).await.unwrap();
    assert_eq!(told, [Recording::Recorded]);
    assert!(storage.files().is_empty(), "{:?}", storage.files());
}

#[tokio::test]
async fn results_wait_for_an_invalid_storage_and_others_do_not() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    let db =
        storage.create(StorageConfig { url: "db://results".into(), ..Default::default() }).await.unwrap();
    storage.forbid(true);
    let (waits, goes) = (new("waits"), naming(&db.id, "goes"));
    let mut intake = storage.shelf.intake(0);
    let batch = vec![waits.clone(), goes.clone()];
    let told = record(&mut intake, ACME, batch.clone()).await.unwrap();
    assert_eq!(told, [Recording::Deferred, Recording::Recorded]);
    assert_eq!(storage.get(&waits.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(storage.get(&goes.id).await.unwrap().storage_config, db.id);
    storage.forbid(false);
    let test =
        sluice_proto::results::v1::TestStorageConfigRequest { organisation: String::new(), id: config.id };
    storage.configs(Tenant::Acme).test_storage_config(test).await.unwrap();
    let told = record(&mut intake, ACME, batch).await.unwrap();
    assert_eq!(told, [Recording::Recorded, Recording::Recorded]);
    assert_eq!(storage.download(&waits.id).await.unwrap(), b"waits");
}

#[tokio::test]
async fn the_same_for_several_storages_is_recorded_once() {
    let storage = Storage::start().await;
    let [one, other] =
        ["local://one", "local://other"].map(|url| StorageConfig { url: url.into(), ..Default::default() });
    let (one, other) = (storage.create(one).await.unwrap(), storage.create(other).await.unwrap());
    let first = naming(&one.id, "once");
    let second = NewResult { storage_config: other.id, ..first.clone() };
    storage.shelf.record(&[first.clone(), second, first.clone()]).await;
    assert_eq!(storage.download(&first.id).await.unwrap(), b"once");
}

/// The key that a storage config's credentials were encrypted with is lost.
async fn lose_key(storage: &Storage, config: &StorageConfig) {
    let sql = storage.shelf.0.results_database.sql().await;
    let lost = "UPDATE storage_config SET revision = revision + 1, credentials_key = 'lost', credentials = ''
                WHERE id = $1";
    let id: uuid::Uuid = config.id.parse().unwrap();
    assert_eq!(sql.execute(lost, &[&id]).await.unwrap(), 1);
}

/// A storage config is found out to be of no use.
async fn found_invalid(storage: &Storage, config: &StorageConfig) {
    let get = || GetStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    eventually("INVALID", || async {
        let told = storage.configs(Tenant::Acme).get_storage_config(get()).await.unwrap().into_inner();
        (told.storage_config.unwrap().state() == ConfigState::Invalid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_storage_that_can_not_be_opened_is_found_out() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    lose_key(&storage, &config).await;
    let told = record(&mut storage.shelf.intake(0), ACME, vec![new("waits")]).await.unwrap();
    assert_eq!(told, [Recording::Deferred]);
    found_invalid(&storage, &config).await;
}

#[tokio::test]
async fn a_storage_that_can_not_be_opened_for_a_file_is_found_out() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    lose_key(&storage, &config).await;
    let refused = storage.store(upload(), vec![b"file".to_vec()]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    found_invalid(&storage, &config).await;
}

#[tokio::test]
async fn recording_again_elsewhere_leaves_one_object() {
    let storage =
        Storage::with(|pair| pair.flag(sluice_tests::Service::Results, "upload-idle-seconds", "1")).await;
    let first = storage.default_folder(StorageConfig::default()).await;
    let result = new("once");
    // As if a first try had written its object and died before the record.
    let sql = storage.shelf.0.results_database.sql().await;
    let (id, config): (uuid::Uuid, uuid::Uuid) = (result.id.parse().unwrap(), first.id.parse().unwrap());
    storage.shelf.record(std::slice::from_ref(&result)).await;
    sql.batch_execute("DELETE FROM result; DELETE FROM batch; DELETE FROM available").await.unwrap();
    let begun = "INSERT INTO upload (organisation, id, storage_config, state, date_touched)
                 VALUES ('acme', $1, $2, 1, now())";
    sql.execute(begun, &[&id, &config]).await.unwrap();

    let second =
        storage.create(StorageConfig { url: "local://second".into(), ..Default::default() }).await.unwrap();
    storage.set_default(&second.id).await.unwrap();
    storage.shelf.record(std::slice::from_ref(&result)).await;
    storage.no_uploads().await;
    let files = storage.files();
    assert!(files.len() == 1 && files[0].starts_with(storage.root.join("second")), "{files:?}");
    assert_eq!(storage.download(&result.id).await.unwrap(), b"once");
}

#[tokio::test]
async fn lost_objects_are_said_to_be_lost_and_damaged_ones_found() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let (damaged, lost) = (new("damaged"), new("lost"));
    storage.shelf.record(&[damaged.clone(), lost.clone()]).await;
    for file in storage.files() {
        match file.ends_with(&damaged.id) {
            true => std::fs::write(file, "dAmaged").unwrap(),
            false => std::fs::remove_file(file).unwrap(),
        }
    }
    for id in [&damaged.id, &lost.id] {
        assert_eq!(storage.download(id).await.unwrap_err().code(), Code::DataLoss);
    }
}

#[tokio::test]
async fn a_link_does_not_lead_out_of_the_storage() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let outside = sluice_tests::scratch("outside");
    std::fs::remove_dir_all(storage.root.join("bucket/a/acme")).unwrap();
    std::os::unix::fs::symlink(&outside, storage.root.join("bucket/a/acme")).unwrap();
    let told = record(&mut storage.shelf.intake(0), ACME, vec![new("x")]).await.unwrap();
    assert_eq!(told, [Recording::Deferred]);
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);

    std::os::unix::fs::symlink("/tmp", storage.root.join("elsewhere")).unwrap();
    let config = storage
        .create(StorageConfig { url: "local://elsewhere".into(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(config.state(), ConfigState::Invalid);
}
