//! Storage configs that fail while the clean-up is at work: what is late is told.

use sluice_proto::results::v1::{NewResult, StorageConfig};
use sluice_tests::eventually;

use crate::{
    results_shelf::new,
    storage_cleanup::{expired, managed},
    storage_support::Storage,
    telemetry::exposition::scrape,
};

const DAY_SECONDS: f64 = 86_400.0;

/// Results each in a batch of its own, in order.
fn apart(count: usize, config: &StorageConfig) -> Vec<NewResult> {
    let one = |number| NewResult {
        poll: format!("poll {number}"),
        storage_config: config.id.clone(),
        ..new("data")
    };
    (0..count).map(one).collect()
}

async fn late_seconds(storage: &Storage) -> f64 {
    scrape(storage.shelf.0.results[0].admin()).await.sum("sluice_cleanup_lag_seconds", &[])
}

#[tokio::test]
async fn a_storage_config_that_fails_is_late_and_holds_up_no_other() {
    let storage = Storage::with(|pair| pair.admin()).await;
    let failing = storage.default_folder(managed(1)).await;
    let other = StorageConfig { url: "local://other".into(), ..managed(1) };
    let other = storage.create(other).await.unwrap();
    let (stuck, goes) = (apart(1, &failing), apart(1, &other));
    storage.shelf.record(&stuck).await;
    storage.shelf.record(&goes).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let url = |url: &str| format!("UPDATE storage_config SET url = '{url}' WHERE id = '{}'", failing.id);
    sql.batch_execute(&url("nonsense")).await.unwrap();
    storage.age(3).await;
    eventually("two days", || async { (late_seconds(&storage).await >= 2.0 * DAY_SECONDS).then_some(()) })
        .await;
    expired(&storage, &[&goes[0].id]).await;
    sql.batch_execute(&url(&failing.url)).await.unwrap();
    expired(&storage, &[&stuck[0].id]).await;
    eventually("nothing late", || async { (late_seconds(&storage).await < DAY_SECONDS).then_some(()) }).await;
}

#[tokio::test]
async fn a_clean_up_that_can_look_at_nothing_is_late() {
    let storage = Storage::with(|pair| pair.admin()).await;
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("REVOKE INSERT ON cleanup_progress FROM sluice_results_service").await.unwrap();
    eventually("seconds", || async { (late_seconds(&storage).await >= 2.0).then_some(()) }).await;
}
