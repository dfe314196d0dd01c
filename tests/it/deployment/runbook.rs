//! The runbook's commands and the databases' script do what is said of them.

use sluice_tests::{Database, Link, Service, Tenant, eventually};

use crate::support::*;

const SET_ASIDE: &str = include_str!("../../../deploy/runbook/set_aside.sql");
const HAND_OVER_AGAIN: &str = include_str!("../../../deploy/runbook/hand_over_again.sql");
const HOLDS_VACUUM_BACK: &str = include_str!("../../../deploy/runbook/holds_vacuum_back.sql");

#[tokio::test]
async fn what_is_set_aside_is_shown_and_handed_over_again() {
    let pair = builder().proxied(Link::Intake).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    pair.proxy(Link::Intake).refuse();
    let observation = json("plain", "1");
    let said = publish(&acme, vec![observation.clone()]).await;
    let all = accepted(&[observation], &said);
    let sql = pair.ingest_database.sql().await;
    assert_eq!(sql.query(SET_ASIDE, &[]).await.unwrap().len(), 0);
    sql.batch_execute("UPDATE outbox SET set_aside = 'a test'").await.unwrap();
    let shown = sql.query(SET_ASIDE, &[]).await.unwrap();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].get("organisation"), shown[0].get("reason")), ("acme", "a test"));

    pair.proxy(Link::Intake).pass();
    assert_eq!(sql.execute(HAND_OVER_AGAIN, &[]).await.unwrap(), 1);
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn who_holds_vacuum_back_is_shown_with_what_ends_it() {
    let (database, another) =
        (Database::create(Service::Results).await, Database::create(Service::Results).await);
    let sql = database.sql().await;
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM available";
    let (reads, reads_elsewhere) = (database.sql().await, another.sql().await);
    for session in [&reads, &reads_elsewhere] {
        session.batch_execute(snapshot).await.unwrap();
    }
    let pid: i32 = reads.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    // Vacuum itself may be at work.
    let shown = async || {
        let rows = sql.query(HOLDS_VACUUM_BACK, &[]).await.unwrap();
        rows.into_iter().find(|row| row.get::<_, &str>("name") == pid.to_string())
    };
    let row = shown().await.expect("who reads");
    assert_eq!((row.get("kind"), row.get("state")), ("session", Some("idle in transaction")));
    let elsewhere = reads_elsewhere.query_one("SELECT pg_backend_pid()::text", &[]).await.unwrap();
    let rows = sql.query(HOLDS_VACUUM_BACK, &[]).await.unwrap();
    assert!(rows.iter().all(|row| row.get::<_, &str>("name") != elsewhere.get::<_, &str>(0)));
    sql.batch_execute(row.get("ends_it")).await.unwrap();
    eventually("its end", || async { shown().await.is_none().then_some(()) }).await;
}
