//! What durability stands on may be gone: a server that does not write to disk, that
//! is a standby, or that takes no writes. A service says so, promises nothing
//! meanwhile, and goes on by itself when it is over.

use sluice::connection::is_serving;
use sluice_proto::{ingest::v1::Outcome, results::v1::AcknowledgeResultRequest};
use sluice_tests::{Replica, Tenant, eventually};
use tonic::Code;

use crate::{own_server::OnOwnServer, support::*};

async fn is_not_serving_since(replica: &Replica, reason: &str) {
    eventually(reason, || async { replica.log().contains(reason).then_some(()) }).await;
    eventually("NOT_SERVING", || async { (!is_serving(&replica.url()).await).then_some(()) }).await;
}

#[tokio::test]
async fn a_server_that_is_not_durable_is_not_served_from() {
    let mut server = OnOwnServer::start().await;
    put(&server.clients, definition("plain")).await;
    server.stop_server().await;
    server.cluster.set_more(&["fsync=off"]);
    server.start_server().await;
    for replica in [&server.ingest, &server.results] {
        is_not_serving_since(replica, "fsync is off: nothing would be durable").await;
    }
    server.stop_server().await;
    server.cluster.set_more(&[]);
    server.start_server().await;
    server.ingest.serving().await;
    server.results.serving().await;
    let said = publish_one(&server.clients, json("plain", "1")).await;
    assert_eq!(said.outcome(), Outcome::Success);
}

#[tokio::test]
async fn a_standby_is_not_served_from_until_it_is_promoted() {
    let mut server = OnOwnServer::start().await;
    put(&server.clients, definition("plain")).await;
    let observation = || marked("plain", "m", "1");
    server.stop_server().await;
    std::fs::write(server.cluster.folder().join("data/standby.signal"), "").unwrap();
    server.start_server().await;
    for replica in [&server.ingest, &server.results] {
        is_not_serving_since(replica, "the server is in recovery").await;
    }
    // Whoever calls all the same is told to come again, and nothing is kept.
    let said = publish_one(&server.clients, observation()).await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    let promoted = server.sql("postgres").await.query_one("SELECT pg_promote()", &[]).await.unwrap();
    assert!(promoted.get::<_, bool>(0));
    // Sessions from before, in which nothing can be written, are not kept.
    server.ingest.serving().await;
    server.results.serving().await;
    let let_in = || async {
        let said = publish_one(&server.clients, observation()).await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    let id = eventually("success", let_in).await;
    let sql = server.sql("ingest").await;
    eventually("an empty outbox", || async { (backlog(&sql).await == 0).then_some(()) }).await;
    are_the_results(&server.clients, &[(id, "1".into())].into()).await;
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
    drained(&pair).await;
    assert_eq!(results(&acme).await.len(), 1);
}
