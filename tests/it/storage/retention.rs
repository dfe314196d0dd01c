//! Storage configs that are changed, or fail, while the clean-up is at work: nothing goes by
//! terms that no longer hold, and what is late is told.

use sluice_proto::results::v1::{
    AcknowledgeResultRequest, NewResult, StorageConfig, UpdateStorageConfigRequest, result::State,
};
use sluice_tests::{Database, Service, Tenant, eventually};

use crate::{
    results::shelf::new,
    storage::cleanup::{expired, looked_again, managed, state},
    storage::support::{Storage, seconds},
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

/// The owner makes this change as soon as the clean-up has made that step.
async fn changes(storage: &Storage, change: &str, step: &str) {
    let trigger = format!(
        "CREATE FUNCTION owner_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             UPDATE storage_config SET {change}, revision = revision + 1;
             RETURN NULL;
         END $$;
         CREATE TRIGGER owner_changes AFTER {step} EXECUTE FUNCTION owner_changes()"
    );
    storage.shelf.0.results_database.sql().await.batch_execute(&trigger).await.unwrap();
}

#[tokio::test]
async fn a_longer_retention_holds_from_the_next_step_of_a_walk() {
    let storage = Storage::start().await;
    let config = StorageConfig { url: "db://results".into(), ..managed(1) };
    let config = storage.create(config).await.unwrap();
    // As many batches as one step takes, and one more.
    let (first, later) = (apart(200, &config), apart(1, &config));
    storage.shelf.record(&first).await;
    storage.shelf.record(&later).await;
    changes(&storage, "retention_seconds = 864000", "INSERT ON expired FOR EACH ROW").await;
    storage.age(2).await;
    expired(&storage, &first.iter().map(|result| result.id.as_str()).collect::<Vec<_>>()).await;
    looked_again(&storage).await;
    assert_eq!(state(&storage, &later[0].id).await, State::Available);
    assert_eq!(storage.download(&later[0].id).await.unwrap(), b"data");
}

#[tokio::test]
async fn what_expired_is_counted_though_the_next_step_of_its_walk_fails() {
    let storage = Storage::with(|pair| pair.admin()).await;
    let config = StorageConfig { url: "db://results".into(), ..managed(1) };
    let config = storage.create(config).await.unwrap();
    let (first, later) = (apart(200, &config), apart(1, &config));
    storage.shelf.record(&first).await;
    storage.shelf.record(&later).await;
    let fails = format!(
        "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
         CREATE TRIGGER fails BEFORE INSERT ON expired FOR EACH ROW
         WHEN (NEW.first_id = '{}') EXECUTE FUNCTION fails()",
        later[0].id
    );
    storage.shelf.0.results_database.sql().await.batch_execute(&fails).await.unwrap();
    storage.age(2).await;
    eventually("the first step", || async {
        let told = scrape(storage.shelf.0.results[0].admin()).await;
        let unconsumed = told.sum("sluice_cleanup_expired_results_total", &[("consumed", "no")]);
        (unconsumed > 0.0).then(|| assert!((unconsumed - 200.0).abs() < 0.5, "{unconsumed}"))
    })
    .await;
    assert_eq!(state(&storage, &later[0].id).await, State::Available);
}

#[tokio::test]
async fn a_longer_retention_holds_for_what_is_there() {
    let storage = Storage::start().await;
    let config = storage.default_folder(managed(1)).await;
    let result = new("stays");
    storage.shelf.record(std::slice::from_ref(&result)).await;
    let storage_config = Some(StorageConfig { id: config.id.clone(), ..managed(10) });
    let request = UpdateStorageConfigRequest { storage_config, update_mask: None };
    storage.configs(Tenant::Acme).update_storage_config(request).await.unwrap();
    storage.age(5).await;
    looked_again(&storage).await;
    assert_eq!(storage.download(&result.id).await.unwrap(), b"stays");
}

#[tokio::test]
async fn objects_that_are_no_longer_managed_stay_from_the_next_step_on() {
    let storage = Storage::start().await;
    let config = storage.default_folder(managed(1)).await;
    // One step removes those of 100 batches.
    let results = apart(150, &config);
    storage.shelf.record(&results).await;
    let gone = "UPDATE ON expired FOR EACH ROW WHEN (OLD.date_deleted IS NULL)";
    changes(&storage, "managed = false", gone).await;
    storage.age(2).await;
    let stay = || {
        let files = storage.files();
        results.iter().filter(|result| files.iter().any(|file| file.ends_with(&result.id))).count()
    };
    eventually("some to go", || async { (stay() < 150).then_some(()) }).await;
    looked_again(&storage).await;
    assert_eq!(stay(), 50);
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
async fn a_storage_config_that_fails_keeps_nothing_from_being_forgotten() {
    let (ingest, results) =
        (Database::create(Service::Ingest).await, Database::create(Service::Results).await);
    let sql = results.sql().await;
    let left = "INSERT INTO storage_config (date_created, id, retention_seconds, signed_urls_seconds, state,
                    signed_urls_enabled, managed, organisation, url)
                VALUES (now(), gen_random_uuid(), 0, 0, 2, false, true, 'acme', 'nonsense');
                INSERT INTO expired (date_created, date_deleted, first_id, storage_config, organisation, poll, ids)
                VALUES ('2020-01-01Z', '2020-02-01Z', gen_random_uuid(), gen_random_uuid(), 'acme', 'poll', '{}')";
    sql.batch_execute(left).await.unwrap();
    let storage = Storage::with(|pair| pair.on(ingest, results).admin()).await;
    eventually("the end of what expired years ago", || async {
        sql.query_opt("SELECT FROM expired", &[]).await.unwrap().is_none().then_some(())
    })
    .await;
    let rounds = async |of, round| {
        let exposed = scrape(storage.shelf.0.results[0].admin()).await;
        exposed.sum("sluice_cleanup_rounds_total", &[("of", of), ("round", round)])
    };
    eventually("a round that is said to have failed", || async {
        (rounds("expiring", "failed").await > 0.0).then_some(())
    })
    .await;
    assert_eq!(rounds("expiring", "done").await, 0.0);
    eventually("one that forgot", || async { (rounds("forgetting", "done").await > 0.0).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_clean_up_that_can_look_at_nothing_is_late() {
    let storage = Storage::with(|pair| pair.admin()).await;
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("REVOKE INSERT ON cleanup_progress FROM sluice_results_service").await.unwrap();
    eventually("seconds", || async { (late_seconds(&storage).await >= 2.0).then_some(()) }).await;
}

#[tokio::test]
async fn what_expires_is_counted_by_whether_it_was_consumed() {
    let storage = Storage::with(|pair| pair.admin()).await;
    let results: Vec<NewResult> = (0..3).map(|_| new("expires")).collect();
    storage.shelf.record(&results).await;
    let consumed = AcknowledgeResultRequest { organisation: String::new(), id: results[0].id.clone() };
    storage.shelf.results(Tenant::Acme).acknowledge_result(consumed).await.unwrap();
    let counted = async || {
        let exposed = scrape(storage.shelf.0.results[0].admin()).await;
        ["yes", "no"].map(|value| {
            let name = "sluice_cleanup_expired_results_total";
            assert!(exposed.values(name, "consumed").contains(value), "not exposed");
            exposed.sum(name, &[("consumed", value)])
        })
    };
    assert_eq!(counted().await, [0.0, 0.0]);
    storage.age(31).await;
    expired(&storage, &results.iter().map(|result| result.id.as_str()).collect::<Vec<_>>()).await;
    looked_again(&storage).await;
    assert_eq!(counted().await, [1.0, 2.0]);
}

#[tokio::test]
async fn what_is_acknowledged_while_it_expires_stays_consumed() {
    let storage = Storage::start().await;
    let config = StorageConfig { url: "db://results".into(), ..managed(1) };
    let config = storage.create(config).await.unwrap();
    let result = |_| NewResult { storage_config: config.id.clone(), ..new("data") };
    let results: Vec<NewResult> = (0..3).map(result).collect();
    storage.shelf.record(&results).await;
    // Somebody acknowledges one of the batch, and has not committed it yet.
    let consumer = storage.shelf.0.results_database.sql().await;
    let acknowledges = format!(
        "BEGIN;
         INSERT INTO consumed (date_created, date_consumed, organisation, poll, ids)
         SELECT date_created, now(), organisation, poll, ARRAY['{id}'::uuid] FROM available;
         UPDATE available SET ids = array_remove(ids, '{id}')",
        id = results[0].id
    );
    consumer.batch_execute(&acknowledges).await.unwrap();
    let shorter = StorageConfig { id: config.id, retention: seconds(1), ..managed(1) };
    let request = UpdateStorageConfigRequest { storage_config: Some(shorter), update_mask: None };
    storage.configs(Tenant::Acme).update_storage_config(request).await.unwrap();
    let sql = storage.shelf.0.results_database.sql().await;
    let waits = "SELECT FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'sluice-results' AND wait_event_type = 'Lock'";
    eventually("a clean-up that waits", || async { sql.query_opt(waits, &[]).await.unwrap() }).await;
    consumer.batch_execute("COMMIT").await.unwrap();
    expired(&storage, &results.iter().map(|result| result.id.as_str()).collect::<Vec<_>>()).await;
    let mut consumed = Vec::new();
    for result in &results {
        consumed.push(storage.get(&result.id).await.unwrap().date_consumed.is_some());
    }
    let available: i64 = sql.query_one("SELECT count(*) FROM available", &[]).await.unwrap().get(0);
    assert_eq!((consumed, available), (vec![true, false, false], 0));
}
