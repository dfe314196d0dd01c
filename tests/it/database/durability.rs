//! What durability stands on may be gone: a server that does not write to disk, that
//! is a standby, or that takes no writes. A service says so, promises nothing
//! meanwhile, and goes on by itself when it is over.

use std::collections::BTreeSet;

use sluice::connection::{Clients, is_serving};
use sluice_proto::{
    ingest::v1::Outcome,
    results::v1::{AcknowledgeResultRequest, BatchAcknowledgeResultsRequest},
};
use sluice_tests::{Database, Pair, Replica, Service, Tenant, eventually};
use tonic::Code;

use crate::{
    files::support::{file, outcome},
    storage::cleanup::{expired, managed},
    storage::support::Storage,
    support::*,
};

/// What must be durable, and by which statements. What is lost of other rows in a crash is
/// repeated: deletions from the outbox, heartbeats.
const INGEST_WRITES: [(&str, &str); 6] = [
    ("definition", ANY),
    ("marker", ANY),
    ("unique_window", ANY),
    ("throttle_counter", ANY),
    ("outbox", "INSERT"),
    ("file_upload", ANY),
];
const RESULTS_WRITES: [(&str, &str); 7] = [
    ("result", ANY),
    ("batch", ANY),
    ("available", ANY),
    ("consumed", ANY),
    ("upload", ANY),
    ("storage_config", ANY),
    ("expired", ANY),
];
const ANY: &str = "INSERT OR UPDATE OR DELETE";

async fn is_not_serving_since(replica: &Replica, reason: &str) {
    eventually(reason, || async { replica.log().contains(reason).then_some(()) }).await;
    eventually("NOT_SERVING", || async { (!is_serving(&replica.url()).await).then_some(()) }).await;
}

/// A pair of processes on a server of its own.
async fn start() -> (Pair, Clients) {
    let pair = builder().processes().own_server().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (pair, acme)
}

#[tokio::test]
async fn a_server_that_is_not_durable_is_not_served_from() {
    let (mut pair, acme) = start().await;
    pair.server().stop().await;
    pair.server().set_more(&["fsync=off"]);
    pair.server().restart().await;
    for replica in [&pair.ingest[0], &pair.results[0]] {
        is_not_serving_since(replica, "fsync is off: nothing would be durable").await;
    }
    pair.server().stop().await;
    pair.server().set_more(&[]);
    pair.server().restart().await;
    pair.ingest[0].serving().await;
    pair.results[0].serving().await;
    let said = publish_one(&acme, json("plain", "1")).await;
    assert_eq!(said.outcome(), Outcome::Success);
}

#[tokio::test]
async fn a_standby_is_not_served_from_until_it_is_promoted() {
    let (mut pair, acme) = start().await;
    let observation = || marked("plain", "m", "1");
    pair.server().stop().await;
    std::fs::write(pair.server().data().join("standby.signal"), "").unwrap();
    pair.server().restart().await;
    for replica in [&pair.ingest[0], &pair.results[0]] {
        is_not_serving_since(replica, "the server is in recovery").await;
    }
    // Whoever calls all the same is told to come again, and nothing is kept.
    let said = publish_one(&acme, observation()).await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    let promoted = pair.ingest_database.sql().await.query_one("SELECT pg_promote()", &[]).await.unwrap();
    assert!(promoted.get::<_, bool>(0));
    // Sessions from before, in which nothing can be written, are not kept.
    pair.ingest[0].serving().await;
    pair.results[0].serving().await;
    let let_in = || async {
        let said = publish_one(&acme, observation()).await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    let id = eventually("success", let_in).await;
    adds_up(&pair, &acme, &[(id, "1".into())].into()).await;
}

/// After a failover, sessions may be on a server that takes no writes any more
/// (SQLSTATE 25006), and would stay there.
#[tokio::test]
async fn sessions_that_can_not_write_are_given_up() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let first = publish_one(&acme, json("plain", "1")).await;
    drained(&pair).await;
    let databases = [&pair.ingest_database, &pair.results_database];
    let read_only = async |on: &str| {
        for database in databases {
            let sql = database.sql().await;
            let set = format!(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {on}',
                                            current_database()); END $$"
            );
            sql.batch_execute("SET default_transaction_read_only = off").await.unwrap();
            sql.batch_execute(&set).await.unwrap();
            if on == "on" {
                let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                              WHERE datname = current_database() AND pid <> pg_backend_pid()";
                sql.batch_execute(others).await.unwrap();
            }
        }
    };
    read_only("on").await;
    // Twice: the first finds its session gone, the second one that can't write.
    let acknowledge = async || {
        let request = AcknowledgeResultRequest { id: first.ingest_id.clone(), ..Default::default() };
        acme.results.clone().acknowledge_result(request).await.map(drop).map_err(|status| status.code())
    };
    for _ in 0..3 {
        let said = publish_one(&acme, marked("plain", "m", "2")).await;
        assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
        assert_eq!(acknowledge().await, Err(Code::Unavailable));
        assert_eq!(outcome(&acme, file("plain"), b"3").await.outcome(), Outcome::Retry);
    }
    read_only("off").await;
    // No session of before is in use any more: all works at once, or after one that
    // found its session of no use.
    let let_in = || async {
        let said = publish_one(&acme, marked("plain", "m", "2")).await;
        (said.outcome() == Outcome::Success).then_some(())
    };
    eventually("success", let_in).await;
    eventually("an acknowledgement", || async { acknowledge().await.ok() }).await;
    let file_let_in =
        || async { (outcome(&acme, file("plain"), b"3").await.outcome() == Outcome::Success).then_some(()) };
    eventually("a file", file_let_in).await;
    drained(&pair).await;
    assert_eq!(results(&acme).await.len(), 2);
}

/// A new database whose default is that nothing waits for the disk. In it is written down
/// by which sessions, and with what setting, rows are written.
async fn lax(service: Service, writes: &[(&str, &str)]) -> Database {
    let database = Database::create(service).await;
    let sql = database.sql().await;
    let mut setup = format!(
        "ALTER DATABASE {} SET synchronous_commit = off;
         CREATE TABLE written (session text, what text, durable text);
         CREATE FUNCTION written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN
             INSERT INTO written VALUES (
                 current_setting('application_name'), TG_ARGV[0], current_setting('synchronous_commit'));
             RETURN NULL;
         END $$;",
        database.name()
    );
    for (table, statements) in writes {
        setup += &format!(
            "CREATE TRIGGER written AFTER {statements} ON {table}
             FOR EACH ROW EXECUTE FUNCTION written('{table}');"
        );
    }
    sql.batch_execute(&setup).await.unwrap();
    database
}

/// Each of the tables was written, and never by a commit that does not wait for the disk.
async fn were_durable(database: &Database, writes: &[(&str, &str)]) {
    let sql = database.sql().await;
    let default: String = sql.query_one("SHOW synchronous_commit", &[]).await.unwrap().get(0);
    assert_eq!(default, "off");
    let seen = "SELECT DISTINCT what, session, durable FROM written WHERE session LIKE 'sluice-%'";
    let seen: Vec<[String; 3]> = sql
        .query(seen, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| [row.get("what"), row.get("session"), row.get("durable")])
        .collect();
    let lax: Vec<_> = seen.iter().filter(|[_, _, durable]| durable != "on").collect();
    assert!(lax.is_empty(), "{lax:?}");
    let written: BTreeSet<_> = seen.iter().map(|[what, ..]| what.as_str()).collect();
    assert_eq!(written, writes.iter().map(|(table, _)| *table).collect());
}

#[tokio::test]
async fn commits_are_durable_whatever_the_databases_defaults_are() {
    let ingest = lax(Service::Ingest, &INGEST_WRITES).await;
    let results = lax(Service::Results, &RESULTS_WRITES).await;
    let storage = Box::pin(Storage::with(|pair| {
        let pair = pair.flag(Service::Ingest, "gate-retention-seconds", &LONG.to_string());
        pair.ingest_replicas(1).on(ingest.clone(), results.clone())
    }))
    .await;
    storage.default_folder(managed(1)).await;
    let acme = storage.shelf.0.clients(Tenant::Acme);
    put(&acme, unique("once")).await;
    put(&acme, throttled("few", 100)).await;
    put(&acme, definition("plain")).await;
    // In one trip, in two, and as a file.
    let said = publish(&acme, vec![marked("once", "m", r#"{"keys":1}"#), json("plain", "1")]).await;
    let counted = publish(&acme, vec![marked("few", "m", "1"), marked("few", "n", "2")]).await;
    let stored = outcome(&acme, file("plain"), b"3").await;
    assert_eq!(kinds(&[said.clone(), counted.clone(), vec![stored]].concat()), [Outcome::Success; 5]);
    drained(&storage.shelf.0).await;

    let alone = AcknowledgeResultRequest { id: said[0].ingest_id.clone(), ..Default::default() };
    acme.results.clone().acknowledge_result(alone).await.unwrap();
    let ids: Vec<_> = counted.iter().map(|said| said.ingest_id.clone()).collect();
    let together = BatchAcknowledgeResultsRequest { ids: ids.clone(), ..Default::default() };
    acme.results.clone().batch_acknowledge_results(together).await.unwrap();
    storage.age(2).await;
    expired(&storage, &[&ids[0], &said[1].ingest_id]).await;

    were_durable(&ingest, &INGEST_WRITES).await;
    were_durable(&results, &RESULTS_WRITES).await;
}
