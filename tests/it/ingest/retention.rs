//! The gate's state over slots: markers and windows outlive a roll-over, and die
//! when they are older than the retention; nothing is let in twice while it
//! happens.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_service::postgres::state;
use sluice_tests::{Database, Pair, Service, Tenant, eventually};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::{support::*, telemetry::exposition};

/// The advisory lock of gates and roll-overs.
const GATE_LOCK: i64 = i64::from_be_bytes(*b"\0\0\0\0gate");
const DAY: f64 = 86_400.0;

/// Makes the current slot look as old as that, and rolls over with a retention
/// of a day if it is time. Whether it was.
async fn roll_over(sql: &Client, slot_age_seconds: f64) -> bool {
    let age = "UPDATE gate_slot SET since = clock_timestamp() - make_interval(secs => $1)";
    sql.execute(age, &[&slot_age_seconds]).await.unwrap();
    let roll_over = "SELECT gate_roll_over($1, make_interval(secs => $2))";
    sql.query_one(roll_over, &[&GATE_LOCK, &DAY]).await.unwrap().get(0)
}

async fn start() -> (Pair, Clients, Client) {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, unique("once")).await;
    put(&acme, definition("plain")).await;
    let sql = pair.ingest_database.sql().await;
    (pair, acme, sql)
}

#[tokio::test]
async fn a_slot_is_filled_for_half_the_retention() {
    let (_pair, _acme, sql) = start().await;
    assert!(!roll_over(&sql, DAY / 2.0 - 60.0).await, "not yet");
    assert!(roll_over(&sql, DAY / 2.0).await);
    let since: f64 = sql
        .query_one("SELECT extract(epoch FROM clock_timestamp() - since)::float8 FROM gate_slot", &[])
        .await
        .unwrap()
        .get(0);
    assert!(since < DAY / 4.0, "the new slot begins now");
    let again = "SELECT gate_roll_over($1, make_interval(secs => $2))";
    assert!(!sql.query_one(again, &[&GATE_LOCK, &DAY]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn a_roll_over_that_is_not_due_waits_for_no_gate_and_none_for_it() {
    let (pair, _acme, sql) = start().await;
    let gate = pair.ingest_database.sql().await;
    gate.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock_shared({GATE_LOCK})")).await.unwrap();
    sql.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    let statement = include_str!("../../../crates/ingest/src/sql/roll_over.sql");
    let roll_over =
        async || sql.query_one(statement, &[&GATE_LOCK, &DAY]).await.map(|row| row.get::<_, bool>(0));
    assert!(!roll_over().await.unwrap());
    sql.execute("UPDATE gate_slot SET since = since - interval '1 day'", &[]).await.unwrap();
    assert_eq!(state(&roll_over().await.unwrap_err()), "55P03");
    gate.batch_execute("COMMIT").await.unwrap();
    assert!(roll_over().await.unwrap());
}

/// While it waits for them, all gates wait for it.
#[tokio::test]
async fn a_roll_over_waits_for_readers_for_a_moment_only() {
    let (pair, _acme, sql) = start().await;
    let reader = pair.ingest_database.sql().await;
    reader.batch_execute("BEGIN; SELECT FROM marker").await.unwrap();
    sql.execute("UPDATE gate_slot SET since = since - interval '1 day'", &[]).await.unwrap();
    sql.batch_execute("SET statement_timeout = '10s'").await.unwrap();
    let statement = include_str!("../../../crates/ingest/src/sql/roll_over.sql");
    let refused = sql.query_one(statement, &[&GATE_LOCK, &DAY]).await.unwrap_err();
    assert_eq!(state(&refused), "55P03", "it waited no more: {refused}");
    reader.batch_execute("COMMIT").await.unwrap();
    assert!(sql.query_one(statement, &[&GATE_LOCK, &DAY]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn old_state_that_somebody_holds_is_told_as_late() {
    let ingest = Database::create(Service::Ingest).await;
    let results = Database::create(Service::Results).await;
    let sql = ingest.sql().await;
    sql.execute("UPDATE gate_slot SET since = clock_timestamp() - interval '9 days'", &[]).await.unwrap();
    let reader = ingest.sql().await;
    reader.batch_execute("BEGIN; SELECT FROM marker").await.unwrap();
    // Looks for the first time when it starts. Of 7 days half is 3.5, and of 9 more 5.5.
    let mut pair = Pair::builder().admin().on(ingest, results).start().await;
    let late = async |pair: &Pair| {
        let seen = exposition::scrape(pair.ingest[0].admin()).await;
        seen.sum("sluice_gate_cleanup_lag_seconds", &[])
    };
    eventually("so late", || async { (late(&pair).await > 5.0 * DAY).then_some(()) }).await;
    reader.batch_execute("COMMIT").await.unwrap();
    pair.ingest[0].stop().await;
    pair.ingest[0].restart(false).await;
    let since = "SELECT since > clock_timestamp() - interval '1 day' FROM gate_slot";
    eventually("a roll-over", || async {
        sql.query_one(since, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
    eventually("in time", || async { (late(&pair).await == 0.0).then_some(()) }).await;
}

/// The retention that a replica is started with matters less than the longest window that a
/// definition was promised.
#[tokio::test]
async fn a_retention_that_is_lowered_shortens_no_window() {
    let ingest = Database::create(Service::Ingest).await;
    let results = Database::create(Service::Results).await;
    let sql = ingest.sql().await;
    let builder = || Pair::builder().on(ingest.clone(), results.clone());
    let mut pair = builder().start().await;
    let six_days = Definition { unique: seconds(6 * 86_400), ..definition("once") };
    put(&pair.clients(Tenant::Acme), six_days).await;
    pair.ingest[0].stop().await;
    drop(pair);
    let current =
        async || sql.query_one("SELECT current FROM gate_slot", &[]).await.unwrap().get::<_, i16>(0);
    let filled_since = "UPDATE gate_slot SET since = clock_timestamp() - make_interval(secs => $1)";
    let before = current().await;

    // Of one day half is over; of six days it is not. A look ends with the counters.
    sql.execute(filled_since, &[&(2.0 * DAY)]).await.unwrap();
    counters(&sql, 1, 13.0 * DAY).await;
    let lowered = builder().flag(Service::Ingest, "gate-retention-seconds", "86400");
    let mut pair = lowered.start().await;
    eventually("a look", || async { (counters_left(&sql).await == 0).then_some(()) }).await;
    assert_eq!(current().await, before);

    pair.ingest[0].stop().await;
    sql.execute(filled_since, &[&(3.0 * DAY + 60.0)]).await.unwrap();
    pair.ingest[0].restart(false).await;
    eventually("a roll-over", || async { (current().await != before).then_some(()) }).await;
}

/// Counters whose window began so long ago, in seconds.
async fn counters(sql: &Client, count: i64, age_seconds: f64) {
    let insert = "INSERT INTO throttle_counter SELECT gen_random_uuid(),
                  clock_timestamp() - make_interval(secs => $2), 1 FROM generate_series(1, $1::bigint)";
    sql.execute(insert, &[&count, &age_seconds]).await.unwrap();
}

async fn counters_left(sql: &Client) -> i64 {
    sql.query_one("SELECT count(*) FROM throttle_counter", &[]).await.unwrap().get(0)
}

async fn forget_counters(sql: &Client, at_most: i64) -> Result<i64, tokio_postgres::Error> {
    let statement = include_str!("../../../crates/ingest/src/sql/forget_counters.sql");
    sql.query_one(statement, &[&GATE_LOCK, &DAY, &at_most]).await.map(|row| row.get(0))
}

#[tokio::test]
async fn old_counters_hold_up_no_roll_over() {
    let (pair, _acme, sql) = start().await;
    counters(&sql, 1, 9.0 * DAY).await;
    let holder = pair.ingest_database.sql().await;
    holder.batch_execute("BEGIN; SELECT FROM throttle_counter FOR UPDATE").await.unwrap();
    sql.batch_execute("SET lock_timeout = '5s'").await.unwrap();
    assert!(roll_over(&sql, DAY).await);
}

#[tokio::test]
async fn counters_go_when_their_window_began_twice_the_retention_ago_and_so_many_at_once() {
    let sql = Database::create(Service::Ingest).await.sql().await;
    counters(&sql, 3, 2.0 * DAY + 1.0).await;
    counters(&sql, 2, 2.0 * DAY - 600.0).await;
    assert_eq!(forget_counters(&sql, 2).await.unwrap(), 2);
    assert_eq!(forget_counters(&sql, 2).await.unwrap(), 1);
    assert_eq!(forget_counters(&sql, 2).await.unwrap(), 0);
    assert_eq!(counters_left(&sql).await, 2);
}

#[tokio::test]
async fn counters_go_while_no_gate_is_under_way_and_none_is_waited_for_if_none_is_old() {
    let database = Database::create(Service::Ingest).await;
    let (sql, gate) = (database.sql().await, database.sql().await);
    gate.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock_shared({GATE_LOCK})")).await.unwrap();
    sql.batch_execute("SET lock_timeout = '1ms'").await.unwrap();
    counters(&sql, 1, DAY).await;
    assert_eq!(forget_counters(&sql, 1).await.unwrap(), 0);
    counters(&sql, 1, 3.0 * DAY).await;
    let refused = forget_counters(&sql, 1).await.unwrap_err();
    assert_eq!(state(&refused), "55P03");
    gate.batch_execute("COMMIT").await.unwrap();
    assert_eq!(forget_counters(&sql, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn a_look_forgets_up_to_30_000_counters() {
    // Of 7 days twice is 14.
    for (old, left) in [(30_000, 0), (30_001, 1)] {
        let ingest = Database::create(Service::Ingest).await;
        let results = Database::create(Service::Results).await;
        let sql = ingest.sql().await;
        counters(&sql, old, 15.0 * DAY).await;
        counters(&sql, 5, 13.0 * DAY).await;
        let mut pair = Pair::builder().on(ingest, results).start().await;
        let least = || async { (counters_left(&sql).await <= left + 5).then_some(()) };
        eventually("a look", least).await;
        // The look that is under way ends before that.
        pair.ingest[0].stop().await;
        assert_eq!(counters_left(&sql).await, left + 5);
    }
}

#[tokio::test]
async fn markers_and_windows_outlive_two_roll_overs_and_die_with_the_third() {
    let (pair, acme, sql) = start().await;
    let (mark, key) = (marked("plain", "m", "1"), json("once", r#"{"keys":1}"#));
    let first = publish(&acme, vec![mark.clone(), key.clone()]).await;
    assert_eq!(kinds(&first), [Outcome::Success; 2]);
    let mut all = accepted(&[mark.clone(), key.clone()], &first);
    for slot in 1..=2 {
        assert!(roll_over(&sql, DAY).await);
        // Other contents and keys move through the new slots meanwhile.
        let others =
            vec![marked("plain", &slot.to_string(), "2"), json("once", &format!("{{\"keys\":[{slot}]}}"))];
        all.extend(accepted(&others, &publish(&acme, others.clone()).await));
        let held = "SELECT (SELECT count(*) FROM marker) + (SELECT count(*) FROM unique_window)";
        assert_eq!(sql.query_one(held, &[]).await.unwrap().get::<_, i64>(0), 2 + 2 * slot);
    }
    // Untouched until now, they go with the slot they were put in.
    assert!(roll_over(&sql, DAY).await);
    let again = publish(&acme, vec![mark.clone(), key.clone()]).await;
    assert_eq!(kinds(&again), [Outcome::Success; 2], "forgotten after the retention");
    all.extend(accepted(&[mark, key], &again));
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn what_is_found_in_an_older_slot_still_counts_and_is_told_as_it_was() {
    let (_pair, acme, sql) = start().await;
    let observations = vec![
        marked("plain", "a", "1"),
        marked("once", "b", r#"{"keys":1}"#),
        marked("once", "c", r#"{"keys":1}"#),
    ];
    let first = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&first), [Outcome::Success, Outcome::Success, Outcome::Suppressed]);
    for _ in 0..2 {
        assert!(roll_over(&sql, DAY).await);
        let again = publish(&acme, observations.clone()).await;
        assert_eq!(kinds(&again), [Outcome::Duplicate; 3]);
        assert_eq!(ids(&again), ids(&first));
        assert_eq!(again[2].original_outcome(), Outcome::Suppressed);
        let other = publish(&acme, vec![json("once", r#"{"keys":1}"#), marked("plain", "a", "2")]).await;
        assert_eq!(told(&other), [(Outcome::Suppressed, "UNIQUE"), (Outcome::Duplicate, "CONTENT_DIFFERS")]);
        assert_eq!(ids(&other), [ids(&first)[1], ids(&first)[0]]);
    }
}

#[tokio::test]
async fn a_window_or_a_mark_alone_in_an_older_slot_counts() {
    let (_pair, acme, sql) = start().await;
    // With each slot as the current one, in each of the others.
    for rolls in [1, 1, 1, 2, 2, 2] {
        let name = uuid::Uuid::now_v7();
        let window = json("once", &format!(r#"{{"keys":"{name}"}}"#));
        let mark = marked("plain", &name.to_string(), "1");
        for (observation, outcome) in [(window, Outcome::Suppressed), (mark, Outcome::Duplicate)] {
            let first = publish(&acme, vec![observation.clone()]).await;
            assert_eq!(kinds(&first), [Outcome::Success]);
            for _ in 0..rolls {
                assert!(roll_over(&sql, DAY).await);
            }
            let again = publish(&acme, vec![observation]).await;
            assert_eq!((kinds(&again), ids(&again)), (vec![outcome], ids(&first)), "after {rolls}");
        }
    }
}

#[tokio::test]
async fn nothing_is_let_in_twice_while_slots_roll_over_under_publishers() {
    let pair = builder().ingest_replicas(2).start().await;
    let clients: Vec<_> = (0..4).map(|n| pair.clients_of(Tenant::Acme, n % 2, 0)).collect();
    put(&clients[0], unique("once")).await;
    let sql = pair.ingest_database.sql().await;
    let ending = Arc::new(AtomicBool::new(false));
    let mut publishers = JoinSet::new();
    for (publisher, clients) in clients.iter().cloned().enumerate() {
        let ending = ending.clone();
        publishers.spawn(async move {
            let mut said = Vec::new();
            let mut round = 0;
            while !ending.load(Relaxed) {
                let observation = |n: u32| {
                    // Marks and keys of 30 each, met over and over by everybody.
                    let n = (n * 7 + round) % 30;
                    marked("once", &format!("{n}"), &format!(r#"{{"keys":{n},"from":{publisher}}}"#))
                };
                let observations: Vec<_> = (0..10).map(observation).collect();
                let outcomes = publish(&clients, observations.clone()).await;
                said.extend(observations.into_iter().zip(outcomes));
                round += 1;
            }
            said
        });
    }
    // All is met again before two roll-overs have passed, so all is carried over.
    for _ in 0..8 {
        let carried = async {
            let (current, seen) =
                ("SELECT current FROM gate_slot", "SELECT count(*) FROM marker WHERE slot = $1");
            let current: i16 = sql.query_one(current, &[]).await.unwrap().get(0);
            sluice_tests::eventually("every mark met in this slot", || async {
                let seen: i64 = sql.query_one(seen, &[&current]).await.unwrap().get(0);
                (seen == 30).then_some(())
            })
            .await;
        };
        carried.await;
        assert!(roll_over(&sql, DAY).await);
    }
    ending.store(true, Relaxed);
    let said: Vec<_> = publishers.join_all().await.into_iter().flatten().collect();
    let (sent, outcomes): (Vec<_>, Vec<_>) = said.into_iter().unzip();
    let allowed = [Outcome::Success, Outcome::Duplicate, Outcome::Retry];
    assert!(kinds(&outcomes).iter().all(|kind| allowed.contains(kind)), "a mark stands for its key");
    let accepted = accepted(&sent, &outcomes);
    assert_eq!(accepted.len(), 30, "each once");
    adds_up(&pair, &clients[0], &accepted).await;
}
