//! The connection to the database breaks around COMMIT: callers are told the
//! truth, or that it is not known, and a resend makes it right.

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Cut, Link, Pair, Tenant, eventually};
use tokio_postgres::Client;

use crate::{support::*, telemetry::exposition::scrape};

/// How many round trips the gate takes for "plain".
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trips {
    One,
    /// A counter has to be seen before anything is decided.
    Two,
}

fn of(trips: Trips, path: &str) -> Definition {
    if trips == Trips::One { definition(path) } else { throttled(path, u32::MAX >> 1) }
}

/// A pair whose ingest reaches its database by a proxy, with a definition and a
/// warm session in the lane that takes what comes alone.
async fn behind_a_proxy(trips: Trips) -> (Pair, Clients, Contents) {
    let pair = builder().admin().proxied(Link::IngestDatabase).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, of(trips, "plain")).await;
    let warm = vec![json("plain", r#"{"warm":true}"#)];
    let said = publish(&acme, warm.clone()).await;
    (pair, acme, accepted(&warm, &said))
}

/// How many commits in doubt ended so, as far as ingest found out.
async fn ended(pair: &Pair, how: &str) -> f64 {
    scrape(pair.ingest[0].admin()).await.sum("sluice_commit_doubts_total", &[("ended", how)])
}

async fn is_told_as_success(trips: Trips) {
    let (pair, acme, mut all) = behind_a_proxy(trips).await;
    let observations = vec![marked("plain", "a", "1"), marked("plain", "b", "2")];
    pair.proxy(Link::IngestDatabase).arm(Cut::AFTER_GATE);
    let said = publish(&acme, observations.clone()).await;
    pair.proxy(Link::IngestDatabase).was_cut().await;
    assert_eq!(kinds(&said), [Outcome::Success; 2]);
    assert!(ended(&pair, "committed").await > 0.0);
    let again = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&again), [Outcome::Duplicate; 2]);
    assert_eq!(ids(&again), ids(&said));
    all.extend(accepted(&observations, &said));
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_told_as_success() {
    is_told_as_success(Trips::Two).await;
}

#[tokio::test]
async fn one_trip_whose_answer_was_lost_is_told_as_success() {
    is_told_as_success(Trips::One).await;
}

#[tokio::test]
async fn what_was_never_committed_is_told_as_retry_and_leaves_nothing() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::Two).await;
    let observations = vec![marked("plain", "a", "1")];
    pair.proxy(Link::IngestDatabase).arm(Cut::BEFORE_COMMIT);
    let said = publish(&acme, observations.clone()).await;
    pair.proxy(Link::IngestDatabase).was_cut().await;
    assert_eq!(told(&said), [(Outcome::Retry, "NOT_KEPT")]);
    assert!(said[0].delay.unwrap().seconds >= 1 && said[0].ingest_id.is_empty(), "{said:?}");
    adds_up(&pair, &acme, &all).await;
    let again = publish(&acme, observations.clone()).await;
    assert_eq!(told(&again), [(Outcome::Success, "")], "no marker was left behind");
    all.extend(accepted(&observations, &again));
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn one_trip_that_never_arrived_is_made_once_more() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::One).await;
    let observations = vec![json("plain", "1"), marked("plain", "a", "2")];
    pair.proxy(Link::IngestDatabase).arm(Cut::BEFORE_GATE);
    let said = publish(&acme, observations.clone()).await;
    pair.proxy(Link::IngestDatabase).was_cut().await;
    assert_eq!(kinds(&said), [Outcome::Success; 2]);
    assert!(ended(&pair, "rolled_back").await > 0.0);
    all.extend(accepted(&observations, &said));
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_session_of_the_gate_that_was_ended_makes_room_for_another() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::One).await;
    let sql = pair.ingest_database.sql().await;
    assert!(sql.execute("DELETE FROM gate_session", &[]).await.unwrap() > 0);
    let observations = vec![json("plain", "1")];
    let said = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&said), [Outcome::Success]);
    let sessions = "SELECT count(*) FROM gate_session";
    assert_eq!(
        sql.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0),
        1,
        "what ended passes nothing more"
    );
    all.extend(accepted(&observations, &said));
    adds_up(&pair, &acme, &all).await;
}

/// Without a marker only the outbox tells of a commit, and others may have emptied it.
#[tokio::test]
async fn one_trip_whose_rows_were_taken_over_and_handed_on_is_told_as_unknown() {
    let (pair, acme, _) = behind_a_proxy(Trips::One).await;
    let proxy = pair.proxy(Link::IngestDatabase);
    drained(&pair).await;
    proxy.refuse_new();
    proxy.arm(Cut::AFTER_GATE);
    let publishing = tokio::spawn({
        let acme = acme.clone();
        async move { publish_one(&acme, json("plain", "1")).await }
    });
    proxy.was_cut().await;
    let sql = pair.ingest_database.sql().await;
    let taken = sql.execute("UPDATE outbox SET owner = gen_random_uuid()", &[]).await.unwrap();
    assert_eq!(taken, 1);
    sql.execute("DELETE FROM outbox", &[]).await.unwrap();
    assert!(!publishing.is_finished(), "it still asks");
    proxy.pass();
    let said = publishing.await.unwrap();
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "OUTCOME_UNKNOWN"));
    assert!(ended(&pair, "unknown").await > 0.0);
}

/// A row that was found, emitted and deleted before its commit's end is known would be
/// taken for one that was never committed.
#[tokio::test]
async fn what_passes_the_gate_is_not_handed_on_before_its_end_is_known() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::One).await;
    drained(&pair).await;
    let sql = pair.ingest_database.sql().await;
    // Upkeep looks for rows that have waited for a while; these have from the start.
    sql.batch_execute(
        "CREATE FUNCTION age() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN NEW.date_created := NEW.date_created - interval ''1 hour''; RETURN NEW; END';
         CREATE TRIGGER age BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION age();",
    )
    .await
    .unwrap();
    pair.proxy(Link::IngestDatabase).arm(Cut::SILENT_GATE);
    let observations = vec![json("plain", "1")];
    let said = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&said), [Outcome::Success]);
    assert_eq!((ended(&pair, "committed").await, ended(&pair, "rolled_back").await), (1.0, 0.0));
    all.extend(accepted(&observations, &said));
    adds_up(&pair, &acme, &all).await;
}

/// The outcome is unknown for as long as the database can't be asked. Answers
/// what a resend with the same mark is told then.
async fn told_after_not_knowing(trips: Trips, cut: Cut) -> (Outcome, usize) {
    let (pair, acme, mut all) = behind_a_proxy(trips).await;
    let proxy = pair.proxy(Link::IngestDatabase);
    let observations = vec![marked("plain", "a", "1")];
    proxy.refuse_new();
    proxy.arm(cut);
    let said = publish(&acme, observations.clone()).await;
    proxy.was_cut().await;
    assert_eq!(told(&said), [(Outcome::Retry, "OUTCOME_UNKNOWN")]);
    proxy.pass();
    drained(&pair).await;
    let kept_before = results(&acme).await.len() - all.len();
    let again = publish_one(&acme, observations[0].clone()).await;
    all.insert(again.ingest_id.clone(), "1".into());
    adds_up(&pair, &acme, &all).await;
    (again.outcome(), kept_before)
}

#[tokio::test]
async fn an_unknown_outcome_that_was_a_commit_reaches_the_results_once() {
    assert_eq!(told_after_not_knowing(Trips::Two, Cut::AFTER_COMMIT).await, (Outcome::Duplicate, 1));
}

#[tokio::test]
async fn an_unknown_outcome_that_was_no_commit_succeeds_when_sent_again() {
    assert_eq!(told_after_not_knowing(Trips::Two, Cut::BEFORE_COMMIT).await, (Outcome::Success, 0));
}

#[tokio::test]
async fn an_unknown_outcome_of_one_trip_reaches_the_results_once() {
    assert_eq!(told_after_not_knowing(Trips::One, Cut::AFTER_GATE).await, (Outcome::Duplicate, 1));
}

#[tokio::test]
async fn an_unknown_outcome_of_one_trip_that_never_arrived_succeeds_when_sent_again() {
    assert_eq!(told_after_not_knowing(Trips::One, Cut::BEFORE_GATE).await, (Outcome::Success, 0));
}

#[tokio::test]
async fn a_request_is_kept_whole_or_not_and_any_part_may_be_sent_again_under_its_id() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::Two).await;
    let paths: Vec<_> = (0..8).map(|n| format!("kind/{n}")).collect();
    for path in &paths {
        put(&acme, of(Trips::Two, path)).await;
    }
    let observations: Vec<_> =
        paths.iter().flat_map(|path| [json(path, "1"), json(path, "1"), json(path, "2")]).collect();
    pair.proxy(Link::IngestDatabase).arm(Cut::BEFORE_COMMIT);
    let said = publish_as(&acme, "r", observations.clone()).await.observations;
    assert_eq!(told(&said), [(Outcome::Retry, "NOT_KEPT"); 24]);
    adds_up(&pair, &acme, &all).await;
    let part = observations[..12].to_vec();
    let again = publish_as(&acme, "r", part.clone()).await.observations;
    assert_eq!(kinds(&again), [Outcome::Success; 12]);
    let whole = publish_as(&acme, "r", observations.clone()).await.observations;
    assert_eq!(kinds(&whole), [[Outcome::Duplicate; 12], [Outcome::Success; 12]].concat());
    all.extend(accepted(&part, &again));
    all.extend(accepted(&observations, &whole));
    adds_up(&pair, &acme, &all).await;
}

const HANGS: &str = "SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'sluice-ingest-gate'
      AND wait_event = 'advisory'";
/// Who asks for a session's end waits for what passes the gate by it.
const ASKS: &str = "SELECT 1 FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'sluice-ingest-gate'
      AND wait_event_type = 'Lock' AND query LIKE '%DELETE FROM gate_session%'";

/// A session that keeps commits from ending until it unlocks 42.
async fn commits_hang(pair: &Pair) -> Client {
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    sql.batch_execute(&hanging_commit("PERFORM pg_advisory_xact_lock_shared(42)")).await.unwrap();
    sql
}

/// Who waits for a commit in doubt sees what it left, whatever the server's defaults say
/// of what a transaction sees.
#[tokio::test]
async fn one_trip_that_commits_while_it_is_asked_for_is_told_as_success() {
    let (pair, acme, mut all) = behind_a_proxy(Trips::One).await;
    let sql = commits_hang(&pair).await;
    let defaults = format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
        pair.ingest_database.name()
    );
    sql.batch_execute(&defaults).await.unwrap();
    let publishing = tokio::spawn({
        let acme = acme.clone();
        async move { publish(&acme, vec![json("plain", "1")]).await }
    });
    eventually("a commit that hangs", || async { sql.query_opt(HANGS, &[]).await.unwrap() }).await;
    pair.proxy(Link::IngestDatabase).cut_all();
    eventually("somebody who asks", || async { sql.query_opt(ASKS, &[]).await.unwrap() }).await;
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    let said = publishing.await.unwrap();
    assert_eq!(kinds(&said), [Outcome::Success]);
    assert_eq!((ended(&pair, "committed").await, ended(&pair, "rolled_back").await), (1.0, 0.0));
    all.extend(accepted(&[json("plain", "1")], &said));
    adds_up(&pair, &acme, &all).await;
}

async fn hangs_and_still_reaches_the_results(trips: Trips) {
    let (pair, acme, mut all) = behind_a_proxy(trips).await;
    let sql = commits_hang(&pair).await;
    let publishing = tokio::spawn({
        let acme = acme.clone();
        async move { publish_one(&acme, marked("plain", "a", "1")).await }
    });
    eventually("a commit that hangs", || async { sql.query_opt(HANGS, &[]).await.unwrap() }).await;
    pair.proxy(Link::IngestDatabase).cut_all();
    let said = publishing.await.unwrap();
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "OUTCOME_UNKNOWN"));
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    eventually("the end of its commit", || async {
        sql.query_opt(HANGS, &[]).await.unwrap().is_none().then_some(())
    })
    .await;
    let again = publish_one(&acme, marked("plain", "a", "1")).await;
    assert_eq!(again.outcome(), Outcome::Duplicate, "it was committed");
    all.insert(again.ingest_id, "1".into());
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_commit_that_hangs_longer_than_anybody_waits_still_reaches_the_results() {
    hangs_and_still_reaches_the_results(Trips::Two).await;
}

#[tokio::test]
async fn one_trip_that_hangs_longer_than_anybody_waits_still_reaches_the_results() {
    hangs_and_still_reaches_the_results(Trips::One).await;
}
