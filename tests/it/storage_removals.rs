//! What uploads left behind is removed, and nothing else: however many replicas do it,
//! however late, and whatever tries there were before the one that was recorded.

use sluice_proto::results::v1::{
    NewResult, ReconcileStorageConfigRequest, StorageConfig, reconcile_storage_config_response::Finding,
    record_results_response::Recording,
};
use sluice_tests::{Answers, Service, Tenant, eventually};
use uuid::Uuid;

use crate::{
    results_shelf::{ACME, new, record},
    storage_cleanup::looked_again,
    storage_clouds::with_s3,
    storage_support::{Storage, upload},
};

/// Leaves what a try leaves that ended before the record: a row long without a sign of
/// life, in some state.
async fn tried(storage: &Storage, result: &NewResult, config: &StorageConfig, state: i16) {
    let sql = storage.shelf.0.results_database.sql().await;
    let row = "INSERT INTO upload (organisation, id, storage_config, state, date_touched)
               VALUES ('acme', $1, $2, $3, '-infinity')";
    sql.execute(row, &[&id(&result.id), &id(&config.id), &state]).await.unwrap();
}

fn id(text: &str) -> Uuid {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_removal_that_gets_there_late_meets_no_object_that_was_written_anew() {
    let (storage, server, config) = with_s3().await;
    let sql = storage.shelf.0.results_database.sql().await;
    let result = new("written anew");
    server.answer(Answers::HoldsRemovals);
    let before = server.requests().len();
    tried(&storage, &result, &config, 1).await;
    eventually("a removal on its way, or none", || async {
        let removes = server.requests()[before..].iter().any(|request| request.ends_with("?delete"));
        let waits = "SELECT FROM upload WHERE date_touched > '-infinity'";
        (removes || sql.query_opt(waits, &[]).await.unwrap().is_some()).then_some(())
    })
    .await;
    // Another replica does the same, and is faster.
    let gone = include_str!("../../crates/results/src/sql/uploads_gone.sql");
    sql.execute(gone, &[&[ACME].as_slice(), &[id(&result.id)].as_slice(), &[id(&config.id)].as_slice()])
        .await
        .unwrap();
    storage.shelf.record(std::slice::from_ref(&result)).await;
    server.answer(Answers::Well);
    looked_again(&storage).await;
    assert_eq!(storage.download(&result.id).await.unwrap(), b"written anew");
}

#[tokio::test]
async fn what_an_earlier_build_removed_is_written_anew_an_hour_later() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    let result = new("rests");
    tried(&storage, &result, &config, 3).await;
    storage.no_uploads().await;
    let tell = async || record(&mut storage.shelf.intake(0), ACME, vec![result.clone()]).await.unwrap();
    assert_eq!(tell().await, [Recording::Deferred]);
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE upload SET date_touched = date_touched - interval '1 hour'").await.unwrap();
    assert_eq!(tell().await, [Recording::Recorded]);
    assert_eq!(storage.download(&result.id).await.unwrap(), b"rests");
}

#[tokio::test]
async fn storage_configs_of_one_url_do_not_remove_each_others_objects() {
    let storage = Storage::with(|pair| pair.flag(Service::Results, "upload-idle-seconds", "1")).await;
    let terms = || StorageConfig { managed: true, ..StorageConfig::default() };
    let first = storage.default_folder(terms()).await;
    let (open, given_up) = (new("open"), new("given up"));
    // The same URL once more, and the default.
    let second = storage.default_folder(terms()).await;
    storage.shelf.record(&[open.clone(), given_up.clone()]).await;
    tried(&storage, &open, &first, 1).await;
    // An earlier build took this one for dead.
    tried(&storage, &given_up, &first, 3).await;
    storage.no_uploads().await;
    looked_again(&storage).await;
    for (result, data) in [(&open, "open"), (&given_up, "given up")] {
        assert_eq!(storage.get(&result.id).await.unwrap().storage_config, second.id);
        assert_eq!(storage.download(&result.id).await.unwrap(), data.as_bytes());
    }

    // An upload on its way is nobody's stray, either.
    let pending = upload();
    storage.store(pending, vec![b"on its way".to_vec()]).await.unwrap();
    for (config, records) in [(&first, 0), (&second, 2)] {
        let request = ReconcileStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
        let mut configs = storage.configs(Tenant::Acme);
        let mut reports = configs.reconcile_storage_config(request).await.unwrap().into_inner();
        let told = reports.message().await.unwrap().unwrap();
        assert_eq!((told.finding(), told.objects, told.records), (Finding::Unspecified, 3, records));
    }
}
