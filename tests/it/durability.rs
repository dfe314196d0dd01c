//! What durability stands on may be gone: a server that does not write to disk, that
//! is a standby, or that takes no writes. A service says so, promises nothing
//! meanwhile, and goes on by itself when it is over.

use sluice::connection::{Clients, is_serving};
use sluice_proto::{ingest::v1::Outcome, results::v1::AcknowledgeResultRequest};
use sluice_tests::{Pair, Replica, Tenant, eventually};
use tonic::Code;

use crate::{
    files_support::{file, outcome},
    support::*,
};

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
