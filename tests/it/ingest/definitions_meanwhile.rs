//! Definitions that change while others publish: only what they rule is checked again.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome, PublicationOutcome};
use sluice_tests::{Pair, Service, Tenant, eventually};
use uuid::Uuid;

use crate::{support::*, telemetry::exposition::scrape};

fn globexs(definition: Definition) -> Definition {
    Definition { organisation: "globex".into(), ..definition }
}

/// Rules by which the gate takes one round trip, and two.
fn rules() -> [Definition; 2] {
    [definition("plain"), throttled("counted", u32::MAX >> 1)]
}

/// One lane, with a session.
async fn start() -> (Pair, Clients, Clients) {
    let pair = builder().admin().flag(Service::Ingest, "lanes", "1").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    for rules in rules() {
        put(&globex, globexs(rules)).await;
    }
    let warm = publish(&globex, vec![json("plain", "0"), json("counted", "0")]).await;
    assert_eq!(kinds(&warm), [Outcome::Success; 2]);
    (pair, acme, globex)
}

fn milliseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// When the check gave this id, in milliseconds since 1970.
fn checked_at(said: &PublicationOutcome) -> u128 {
    said.ingest_id.parse::<Uuid>().unwrap().as_u128() >> 80
}

/// What `globex`, ruled by a definition, is told of an observation that was at the gate when
/// another definition was put; and when that was, as [`milliseconds`].
async fn put_at_the_gate(
    pair: &Pair,
    globex: &Clients,
    rules: &Definition,
    (by, changed): (&Clients, &Definition),
) -> (PublicationOutcome, u128) {
    // A gate waits for a second, and on a busy machine that may not do.
    for _ in 0..20 {
        put(globex, globexs(rules.clone())).await;
        // From then on ingest goes by it.
        publish_one(globex, json(&rules.path, "0")).await;
        let shut = gate_shut(pair).await;
        let publishing = {
            let (globex, observation) = (globex.clone(), json(&rules.path, "1"));
            tokio::spawn(async move { publish_one(&globex, observation).await })
        };
        gate_waits(pair).await;
        let before = milliseconds();
        put(by, changed.clone()).await;
        shut.batch_execute("COMMIT").await.unwrap();
        let said = publishing.await.unwrap();
        if said.outcome() != Outcome::Retry {
            return (said, before);
        }
    }
    panic!("never within a second");
}

#[tokio::test]
async fn what_others_change_has_nothing_checked_again() {
    let (pair, acme, globex) = start().await;
    for rules in rules() {
        let others = definition(&rules.path);
        let (said, before) = put_at_the_gate(&pair, &globex, &rules, (&acme, &others)).await;
        assert_eq!(said.outcome(), Outcome::Success);
        assert!(checked_at(&said) <= before, "{} was checked again", rules.path);
    }
    let stale = scrape(pair.ingest[0].admin()).await.sum("sluice_commits_total", &[("result", "stale")]);
    assert!(stale >= 2.0, "the gate saw the changes: {stale}");
}

#[tokio::test]
async fn what_is_changed_at_the_gate_is_checked_again() {
    let (pair, _acme, globex) = start().await;
    for rules in rules() {
        let anew = globexs(rules.clone());
        let (said, before) = put_at_the_gate(&pair, &globex, &rules, (&globex, &anew)).await;
        assert_eq!(said.outcome(), Outcome::Success);
        assert!(checked_at(&said) > before, "{} was not checked again", rules.path);
        let disabled = Definition { disabled: true, ..anew };
        let (said, _) = put_at_the_gate(&pair, &globex, &rules, (&globex, &disabled)).await;
        assert_eq!(told(&[said]), [(Outcome::Error, "DISABLED_DEFINITION")]);
    }
}

/// More often than a batch is checked.
const CHANGES: usize = 12;

/// What `globex` is told of an observation when `acme` puts a definition each time that the
/// gate is about to be passed, so many times.
async fn put_again_and_again(pair: &Pair, acme: &Clients, globex: &Clients) -> PublicationOutcome {
    let mut shut = gate_shut(pair).await;
    let mut publishing = {
        let globex = globex.clone();
        tokio::spawn(async move { publish_one(&globex, json("counted", "1")).await })
    };
    for _ in 0..CHANGES {
        tokio::select! {
            () = gate_waits(pair) => {}
            said = &mut publishing => return said.unwrap(),
        }
        // The gate is let through, and shut behind it.
        let changed = async {
            waits_to_shut(pair).await;
            put(acme, definition("other")).await;
            shut.batch_execute("COMMIT").await.unwrap();
        };
        (shut, ()) = tokio::join!(gate_shut(pair), changed);
    }
    shut.batch_execute("COMMIT").await.unwrap();
    publishing.await.unwrap()
}

/// Waits until somebody waits to shut the gate.
async fn waits_to_shut(pair: &Pair) {
    let shutting = "SELECT count(*) FROM pg_locks
                    WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let sql = pair.ingest_database.sql().await;
    eventually("one who shuts the gate", || async {
        (sql.query_one(shutting, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_changes_definitions_all_the_time_has_nobody_told_to_come_again() {
    let (pair, acme, globex) = start().await;
    // A gate waits for a second, and on a busy machine that may not do.
    for _ in 0..20 {
        let said = put_again_and_again(&pair, &acme, &globex).await;
        if said.details != "the database is busy" {
            assert_eq!(said.outcome(), Outcome::Success, "{said:?}");
            return;
        }
    }
    panic!("never within a second");
}
