//! The runbook's commands and the databases' script do what is said of them.

use sluice_tests::{Link, Tenant};

use crate::support::*;

const SET_ASIDE: &str = include_str!("../../../deploy/runbook/set_aside.sql");
const HAND_OVER_AGAIN: &str = include_str!("../../../deploy/runbook/hand_over_again.sql");

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
