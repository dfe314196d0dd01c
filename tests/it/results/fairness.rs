//! One organisation's calls that don't end are at nobody else's cost: neither at other
//! organisations', nor at the service's own work.

use sluice_proto::results::v1::{
    AcknowledgeResultRequest, GetResultRequest, ListResultsRequest, NewResult, StorageConfig,
    record_results_response::Recording,
};
use sluice_tests::{Pair, Tenant, eventually};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{
    results::acknowledging::acknowledge,
    results::shelf::{ACME, Shelf, new, record},
    storage::files::discard,
    storage::support::{Storage, stored, upload},
    telemetry::exposition::scrape,
};

/// Keeps what acme inserts into a table waiting for lock 42, for as long as a statement may
/// take.
fn hang(table: &str) -> String {
    format!(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
         $$ BEGIN IF NEW.organisation = 'acme' THEN PERFORM pg_advisory_xact_lock_shared(42); END IF;
            RETURN NEW; END $$;
         CREATE TRIGGER hang BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION hang();
         SELECT pg_advisory_lock(42)"
    )
}

/// Twice as many as there are sessions for all.
const CALLS: usize = 12;

async fn pool(pair: &Pair, metric: &str) -> f64 {
    scrape(pair.results[0].admin()).await.sum(metric, &[("pool", "tenants")])
}

/// Sessions that are kept waiting.
async fn hanging(sql: &Client) -> i64 {
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sql.query_one(waits, &[]).await.unwrap().get(0)
}

/// Acme has far more calls that hang than there are sessions, and goes on with them for as
/// long as what is returned is there.
async fn acme_hangs(storage: &Storage) -> (Client, JoinSet<()>) {
    let polls = (0..CALLS).map(|poll| NewResult { poll: poll.to_string(), ..new("acme's") });
    let results: Vec<NewResult> = polls.collect();
    storage.shelf.record(&results).await;
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute(&hang("consumed")).await.unwrap();
    let mut calls = JoinSet::new();
    for result in results {
        let mut client = storage.shelf.results(Tenant::Acme);
        calls
            .spawn(async move { while client.acknowledge_result(acknowledge(&result.id)).await.is_err() {} });
    }
    eventually("calls that hang and others that wait", || async {
        let waiting = pool(&storage.shelf.0, "sluice_pool_waiting").await;
        let hanging = hanging(&sql).await;
        (hanging >= 3 && hanging + waiting as i64 == CALLS as i64).then_some(())
    })
    .await;
    (sql, calls)
}

async fn start() -> Storage {
    Storage::with(|builder| builder.admin()).await
}

#[tokio::test]
async fn others_are_answered_while_one_keeps_all_the_sessions_it_gets() {
    let storage = start().await;
    let given = new("globex's");
    record(&mut storage.shelf.intake(0), "globex", vec![given.clone()]).await.unwrap();
    let (sql, _calls) = acme_hangs(&storage).await;
    assert_eq!(hanging(&sql).await, 3, "half of the sessions");
    let mut globex = storage.shelf.results(Tenant::Globex);
    let get = GetResultRequest { organisation: String::new(), id: given.id.clone() };
    globex.get_result(get).await.unwrap();
    let listed = globex.list_results(ListResultsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.results.len(), 1);
    let acknowledge = AcknowledgeResultRequest { organisation: String::new(), id: given.id };
    assert!(globex.acknowledge_result(acknowledge).await.unwrap().into_inner().changed);
}

#[tokio::test]
async fn files_are_recorded_while_their_organisations_own_calls_hang() {
    let storage = start().await;
    storage.default_folder(StorageConfig::default()).await;
    let file = upload();
    storage.store(file.clone(), vec![vec![1; 1000]]).await.unwrap();
    let _hangs = acme_hangs(&storage).await;
    let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    assert_eq!(told, [Recording::Recorded]);
}

#[tokio::test]
async fn the_clean_up_goes_on_while_calls_hang() {
    let storage = start().await;
    storage.default_folder(StorageConfig { managed: true, ..StorageConfig::default() }).await;
    let file = upload();
    storage.store(file.clone(), vec![vec![1; 1000]]).await.unwrap();
    let _hangs = acme_hangs(&storage).await;
    let rounds = async |how| {
        let exposed = scrape(storage.shelf.0.results[0].admin()).await;
        exposed.sum("sluice_cleanup_rounds_total", &[("round", how)])
    };
    let (done, failed) = (rounds("done").await, rounds("failed").await);
    discard(&storage, &[&file.id]).await;
    storage.no_uploads().await;
    // It looks at acme's folder each time.
    eventually("two rounds more", || async { (rounds("done").await >= done + 2.0).then_some(()) }).await;
    assert_eq!(rounds("failed").await, failed);
}

#[tokio::test]
async fn a_lane_that_gets_no_session_leaves_what_waits_to_the_other() {
    let shelf = Shelf::start().await;
    let sql = shelf.0.results_database.sql().await;
    sql.batch_execute(&hang("result")).await.unwrap();
    let mut calls = JoinSet::new();
    for lanes in 1..=2 {
        let mut intake = shelf.intake(0);
        calls.spawn(async move { record(&mut intake, ACME, vec![new("hangs")]).await.unwrap() });
        eventually("a commit of each", || async { (hanging(&sql).await == lanes).then_some(()) }).await;
    }
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    calls.join_all().await;
    // Both have a session now. One loses it.
    let refusing = format!("ALTER DATABASE {} CONNECTION LIMIT 0", shelf.0.results_database.name());
    sql.batch_execute(&refusing).await.unwrap();
    let first = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'sluice-results-recorder' ORDER BY backend_start LIMIT 1";
    assert!(sql.query_one(first, &[]).await.unwrap().get::<_, bool>(0));
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(record(&mut shelf.intake(0), "globex", vec![new("x")]).await.is_ok());
    }
    // It may have found out only with a call in hand.
    assert!(told.iter().filter(|recorded| !**recorded).count() <= 1, "{told:?}");
}
