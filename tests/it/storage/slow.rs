//! Buckets that hang, that are slow, and that refuse one object: each is at nobody else's
//! cost, and every try gets on from where the one before ended.

use std::time::Duration;

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, GetResultRequest, GetStorageConfigRequest, NewResult,
    ReconcileStorageConfigRequest, RecordResultsRequest, ResultBatch, SetDefaultStorageConfigRequest,
    StorageConfig, record_results_response::Recording, storage_config::State,
};
use sluice_tests::{Answers, Tenant, eventually};

use crate::{
    results::shelf::{ACME, new, record},
    storage::clouds::with_s3,
    storage::support::Storage,
};

/// How long the ingest service waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// A folder that is the default of `globex`.
async fn folder_of_globex(storage: &Storage) {
    let config = StorageConfig { url: "local://globex".into(), ..StorageConfig::default() };
    let mut configs = storage.configs(Tenant::Globex);
    let created = configs
        .create_storage_config(CreateStorageConfigRequest { storage_config: Some(config) })
        .await
        .unwrap()
        .into_inner();
    let id = created.storage_config.unwrap().id;
    let request = SetDefaultStorageConfigRequest { organisation: String::new(), id };
    configs.set_default_storage_config(request).await.unwrap();
}

fn batch(organisation: &str, results: Vec<NewResult>) -> ResultBatch {
    ResultBatch { organisation: organisation.into(), results, ..ResultBatch::default() }
}

#[tokio::test]
async fn a_bucket_that_hangs_becomes_invalid_and_holds_nobody_else_up() {
    let (storage, server, config) = with_s3().await;
    folder_of_globex(&storage).await;
    server.answer(Answers::Never);
    let (hanging, other) = ((0..100).map(|_| new("hangs")).collect(), new("other"));
    let batches = vec![batch(ACME, hanging), batch("globex", vec![other.clone()])];
    let mut request = tonic::Request::new(RecordResultsRequest { batches });
    request.set_timeout(CALL_TIMEOUT);
    let mut intake = storage.shelf.intake(0);
    let call = tokio::spawn(async move { intake.record_results(request).await });
    // There long before the call has its answer.
    let get = || GetResultRequest { organisation: String::new(), id: other.id.clone() };
    eventually("the other one's record", || async {
        storage.shelf.results(Tenant::Globex).get_result(get()).await.ok()
    })
    .await;
    assert!(!call.is_finished());
    let told: Vec<Recording> = call.await.unwrap().unwrap().into_inner().recordings().collect();
    assert_eq!(told[..100], [Recording::Deferred; 100]);
    assert_eq!(told[100..], [Recording::Recorded]);
    // The call is over, and it is found out all the same.
    let get = || GetStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    eventually("its state", || async {
        let told = storage.configs(Tenant::Acme).get_storage_config(get()).await.unwrap().into_inner();
        (told.storage_config.unwrap().state() == State::Invalid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slow_bucket_gets_on_with_each_try() {
    let (storage, server, _) = with_s3().await;
    server.answer(Answers::Slowly(Duration::from_millis(1500)));
    let results: Vec<NewResult> = (0..100).map(|_| new("slow")).collect();
    let mut recorded = 0;
    while recorded < results.len() {
        let mut batch =
            tonic::Request::new(RecordResultsRequest { batches: vec![batch(ACME, results.clone())] });
        batch.set_timeout(CALL_TIMEOUT);
        let answer = storage.shelf.intake(0).record_results(batch).await.unwrap().into_inner();
        let now = answer.recordings().filter(|told| *told == Recording::Recorded).count();
        assert!(now > recorded, "{now} of them after {recorded}");
        recorded = now;
    }
    server.answer(Answers::Well);
    // A try that was cut off may have begun some that were just being recorded.
    storage.no_uploads().await;
    for result in &results {
        assert_eq!(storage.download(&result.id).await.unwrap(), result.data);
    }
}

#[tokio::test]
async fn an_object_that_can_not_be_written_is_at_nobody_elses_cost() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let results: Vec<NewResult> = (0..60).map(|_| new("beside")).collect();
    // Where its object would be is something else.
    let place = |result: &NewResult| {
        let folder = storage.root.join("bucket/a/acme");
        let id: uuid::Uuid = result.id.parse().unwrap();
        let seconds = i64::try_from(id.get_timestamp().unwrap().to_unix().0).unwrap();
        let date = prost_types::Timestamp { seconds, nanos: 0 }.to_string();
        folder.join(date.split('T').next().unwrap()).join(&result.id)
    };
    std::fs::create_dir_all(place(&results[0]).join("in the way")).unwrap();
    let told = eventually("all others", || async {
        let told = record(&mut storage.shelf.intake(0), ACME, results.clone()).await.unwrap();
        (told[1..] == [Recording::Recorded; 59]).then_some(told)
    })
    .await;
    assert_eq!(told[0], Recording::Deferred);
}

#[tokio::test]
async fn reconciling_ends_when_its_caller_leaves() {
    const RESULTS: usize = 100;
    let (storage, server, config) = with_s3().await;
    storage.shelf.record(&(0..RESULTS).map(|_| new("measured")).collect::<Vec<_>>()).await;
    let before = server.requests().len();
    let measured = || server.requests()[before..].iter().filter(|line| line.starts_with("HEAD ")).count();
    server.answer(Answers::Slowly(Duration::from_millis(500)));
    let reconcile = async || {
        let request = ReconcileStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
        storage.configs(Tenant::Acme).reconcile_storage_config(request).await.unwrap().into_inner()
    };
    let leaves = reconcile().await;
    eventually("a first look", || async { (measured() > 0).then_some(()) }).await;
    drop(leaves);
    // Takes as long as the other would.
    let told = reconcile().await.message().await.unwrap().unwrap();
    assert_eq!((told.objects, told.records), (RESULTS as u64, RESULTS as u64));
    assert!(measured() < 2 * RESULTS, "both were measured to the end");
}
