//! Files whose way breaks off: publishers and replicas that go away, commits in
//! doubt, uploads that are given up by others. Whatever never became a result is
//! discarded, and took nothing in the gate.

use std::time::Duration;

use sluice_proto::{
    ingest::v1::{Outcome, PublicationOutcome},
    results::v1::record_results_response::Recording,
};
use sluice_tests::{Cut, Link, Tenant, eventually};
use tonic::{Code, Request};

use crate::{files::support::*, support::*};

fn told(outcome: &PublicationOutcome) -> (Outcome, &str) {
    (outcome.outcome(), outcome.reason.as_str())
}

/// One more file with the same mark is let in: nothing of it was kept.
async fn lets_in(
    intake: &Intake,
    pair: &sluice_tests::Pair,
    clients: &sluice::connection::Clients,
    chkpt: &str,
) {
    intake.goes(Manner::Store);
    let said = outcome(clients, marked_file("plain", chkpt), b"again").await;
    assert_eq!(told(&said), (Outcome::Success, ""));
    intake.adds_up(pair, &[(said.ingest_id, "again".into())].into()).await;
}

#[tokio::test]
async fn a_publisher_that_breaks_off_leaves_no_trace() {
    let (intake, pair, acme) = start().await;
    let broken = Sending::begin(&acme, marked_file("plain", "m"));
    broken.chunk(vec![1; MIB]).await;
    intake.until("bytes", |told| (told.bytes > 0).then_some(())).await;
    assert_eq!(uploads(&pair).await, 1);
    broken.break_off().await;
    intake.until("its discard", |told| (told.discarded.len() == 1).then_some(())).await;
    assert_eq!(gate_rows(&pair).await, 0);
    intake.told(|told| {
        assert!(told.sealed.is_empty() && told.broken == 1, "what is cut short is never sealed")
    });
    lets_in(&intake, &pair, &acme, "m").await;
}

#[tokio::test]
async fn a_caller_whose_deadline_passes_after_sealing_leaves_no_trace() {
    let (intake, pair, acme) = start().await;
    intake.goes(Manner::HangSealed);
    // On a busy machine a short one passes before anything is sealed.
    for deadline in [1, 2, 4, 8, 16, 32].map(Duration::from_secs) {
        let messages = [metadata_message(marked_file("plain", "m")), chunk_message("x")];
        let mut request = Request::new(futures_util::stream::iter(messages));
        request.set_timeout(deadline);
        let status = acme.ingest.clone().publish_file(request).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
        intake.at_rest(&pair).await;
        if intake.told(|told| !told.sealed.is_empty()) {
            break;
        }
    }
    intake.told(|told| assert!(!told.sealed.is_empty(), "sealed at last"));
    intake.told(|told| assert!(told.sealed.keys().all(|id| told.discarded.contains(id))));
    assert_eq!(gate_rows(&pair).await, 0);
    lets_in(&intake, &pair, &acme, "m").await;
}

#[tokio::test]
async fn a_revoked_token_breaks_a_file_off() {
    let (intake, pair, acme) = start().await;
    let sending = Sending::begin(&acme, file("plain"));
    sending.chunk("x").await;
    intake.until("bytes", |told| (told.bytes > 0).then_some(())).await;
    std::fs::write(&pair.keys_file, "").unwrap();
    let status = sending.publishing.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    intake.adds_up(&pair, &Contents::new()).await;
    intake.told(|told| assert!(told.sealed.is_empty()));
}

#[tokio::test]
async fn files_of_a_killed_replica_are_discarded_by_another() {
    let intake = Intake::start().await;
    let mut pair = intake.pair(builder().processes().ingest_replicas(2)).start().await;
    let (first, second) = (pair.clients(Tenant::Acme), pair.clients_of(Tenant::Acme, 1, 0));
    put(&second, definition("plain")).await;
    // One while its bytes flow, one that is sealed already.
    let flowing = Sending::begin(&first, marked_file("plain", "flowing"));
    flowing.chunk("x").await;
    intake.until("bytes", |told| (told.bytes > 0).then_some(())).await;
    intake.goes(Manner::HangSealed);
    let sealed = Sending::begin(&first, marked_file("plain", "sealed"));
    let sealed = tokio::spawn(sealed.end());
    intake.until("a sealed file", |told| (told.sealed.len() == 1).then_some(())).await;
    pair.ingest[0].kill();
    assert!(flowing.publishing.await.unwrap().is_err());
    assert!(sealed.await.unwrap().is_err());
    intake.until("both discarded", |told| (told.discarded.len() == 2).then_some(())).await;
    assert_eq!(gate_rows(&pair).await, 0);
    intake.goes(Manner::Store);
    let mut accepted = Contents::new();
    for chkpt in ["flowing", "sealed"] {
        let said = outcome(&second, marked_file("plain", chkpt), b"again").await;
        assert_eq!(told(&said), (Outcome::Success, ""));
        accepted.insert(said.ingest_id, "again".into());
    }
    intake.adds_up(&pair, &accepted).await;
}

#[tokio::test]
async fn a_lone_replica_that_was_killed_discards_after_its_restart() {
    let intake = Intake::start().await;
    let mut pair = intake.pair(builder().processes()).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    intake.goes(Manner::HangSealed);
    let sealed = tokio::spawn(Sending::begin(&acme, marked_file("plain", "m")).end());
    intake.until("a sealed file", |told| (told.sealed.len() == 1).then_some(())).await;
    pair.ingest[0].kill();
    assert!(sealed.await.unwrap().is_err());
    pair.ingest[0].restart(true).await;
    lets_in(&intake, &pair, &acme, "m").await;
}

#[tokio::test]
async fn a_stopping_replica_does_not_wait_for_files_that_hang() {
    let intake = Intake::start().await;
    let mut pair = intake.pair(builder().ingest_replicas(2)).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    intake.goes(Manner::HangSealed);
    let hanging = tokio::spawn(Sending::begin(&acme, marked_file("plain", "m")).end());
    intake.until("a sealed file", |told| (told.sealed.len() == 1).then_some(())).await;
    let stopped = tokio::time::timeout(Duration::from_secs(20), pair.ingest[0].stop()).await;
    assert!(stopped.is_ok(), "it has to end");
    assert!(hanging.await.unwrap().is_err());
    lets_in(&intake, &pair, &pair.clients_of(Tenant::Acme, 1, 0), "m").await;
}

#[tokio::test]
async fn an_upload_that_others_gave_up_is_told_as_retry_and_its_neighbours_are_unharmed() {
    let (intake, pair, acme) = start().await;
    let sql = pair.ingest_database.sql().await;
    let late = Sending::begin(&acme, marked_file("plain", "m"));
    late.chunk("x").await;
    intake.until("bytes", |told| (told.bytes > 0).then_some(())).await;
    // Its owner seems dead.
    sql.batch_execute(
        "INSERT INTO instance VALUES (gen_random_uuid(), clock_timestamp() - interval '6 seconds');
         UPDATE file_upload SET owner = (SELECT id FROM instance ORDER BY date_seen LIMIT 1)",
    )
    .await
    .unwrap();
    intake.until("its discard", |told| (told.discarded.len() == 1).then_some(())).await;
    // All at once, so that they may meet in one transaction.
    let neighbours: Vec<_> = (0..20)
        .map(|n| {
            let acme = acme.clone();
            tokio::spawn(async move { publish_one(&acme, json("plain", &n.to_string())).await })
        })
        .collect();
    let said = late.end().await.unwrap().outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    assert!(said.ingest_id.is_empty());
    let mut accepted = Contents::new();
    for (n, neighbour) in neighbours.into_iter().enumerate() {
        let said = neighbour.await.unwrap();
        assert_eq!(told(&said), (Outcome::Success, ""));
        accepted.insert(said.ingest_id, n.to_string().into());
    }
    assert_eq!(gate_rows(&pair).await, 0);
    let said = outcome(&acme, marked_file("plain", "m"), b"again").await;
    accepted.insert(said.ingest_id, "again".into());
    intake.adds_up(&pair, &accepted).await;
}

/// A stand-in and a pair whose ingest reaches its database by a proxy, warm.
async fn behind_a_proxy() -> (Intake, sluice_tests::Pair, sluice::connection::Clients, Contents) {
    let (intake, pair, acme) = start_with(builder().proxied(Link::IngestDatabase)).await;
    let warm = outcome(&acme, file("plain"), b"warm").await;
    (intake, pair, acme, [(warm.ingest_id, "warm".into())].into())
}

#[tokio::test]
async fn a_file_whose_commit_was_not_answered_is_told_as_success() {
    let (intake, pair, acme, mut accepted) = behind_a_proxy().await;
    pair.proxy(Link::IngestDatabase).arm(Cut::AFTER_COMMIT);
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    pair.proxy(Link::IngestDatabase).was_cut().await;
    assert_eq!(told(&said), (Outcome::Success, ""));
    accepted.insert(said.ingest_id, "x".into());
    intake.adds_up(&pair, &accepted).await;
}

#[tokio::test]
async fn a_file_that_was_never_committed_is_told_as_retry_and_discarded() {
    let (intake, pair, acme, mut accepted) = behind_a_proxy().await;
    pair.proxy(Link::IngestDatabase).arm(Cut::BEFORE_COMMIT);
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    pair.proxy(Link::IngestDatabase).was_cut().await;
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    intake.adds_up(&pair, &accepted).await;
    intake.told(|told| assert_eq!(told.discarded.len(), 1));
    let said = outcome(&acme, marked_file("plain", "m"), b"again").await;
    accepted.insert(said.ingest_id, "again".into());
    intake.adds_up(&pair, &accepted).await;
}

/// The outcome is unknown for as long as the database can't be asked. What a
/// resend with the same mark is told then.
async fn told_after_not_knowing(cut: Cut) -> Outcome {
    let (intake, pair, acme, mut accepted) = behind_a_proxy().await;
    let proxy = pair.proxy(Link::IngestDatabase);
    // The next file finds warm sessions, and then there are no new ones.
    proxy.refuse_new();
    proxy.arm(cut);
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    proxy.was_cut().await;
    assert_eq!(told(&said), (Outcome::Retry, "OUTCOME_UNKNOWN"));
    proxy.pass();
    // Whichever it was, the row knows.
    let sql = pair.ingest_database.sql().await;
    eventually("an end of the upload", || async {
        let open = sql.query_one("SELECT count(*) FROM file_upload", &[]).await.unwrap();
        (open.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let again = outcome(&acme, marked_file("plain", "m"), b"x").await;
    accepted.insert(again.ingest_id.clone(), "x".into());
    intake.adds_up(&pair, &accepted).await;
    again.outcome()
}

#[tokio::test]
async fn an_unknown_outcome_that_was_a_commit_is_a_result_and_never_discarded() {
    assert_eq!(told_after_not_knowing(Cut::AFTER_COMMIT).await, Outcome::Duplicate);
}

#[tokio::test]
async fn an_unknown_outcome_that_was_no_commit_is_discarded() {
    assert_eq!(told_after_not_knowing(Cut::BEFORE_COMMIT).await, Outcome::Success);
}

#[tokio::test]
async fn a_database_that_is_away_makes_files_come_again() {
    let (intake, pair, acme, mut accepted) = behind_a_proxy().await;
    let proxy = pair.proxy(Link::IngestDatabase);
    let flowing = Sending::begin(&acme, marked_file("plain", "m"));
    flowing.chunk("x").await;
    intake.until("bytes", |told| (told.bytes == 5).then_some(())).await;
    proxy.refuse();
    let said = flowing.end().await.unwrap().outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    proxy.pass();
    let again = || async {
        let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    accepted.insert(eventually("success again", again).await, "x".into());
    intake.adds_up(&pair, &accepted).await;
}

#[tokio::test]
async fn discards_without_results_are_handed_over_until_they_are_taken() {
    let (intake, pair, acme) = start().await;
    let sql = pair.ingest_database.sql().await;
    let rows = "SELECT count(*) FROM outbox WHERE results = 0 AND set_aside IS NULL";
    intake.answers(Some(Recording::Deferred));
    intake.goes(Manner::RefuseSealing(sluice_service::Kind::Unavailable, "UNAVAILABLE"));
    let said = outcome(&acme, file("plain"), b"x").await;
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    assert_eq!(sql.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 1);
    intake.answers(None);
    intake.adds_up(&pair, &Contents::new()).await;
    // One that is refused is for an operator.
    intake.answers(Some(Recording::Refused));
    outcome(&acme, file("plain"), b"x").await;
    let aside = "SELECT 1 FROM outbox WHERE set_aside <> ''";
    eventually("a row set aside", || async { sql.query_opt(aside, &[]).await.unwrap() }).await;
}

#[tokio::test]
async fn a_results_service_that_is_away_makes_files_come_again() {
    let (intake, pair, acme) = start().await;
    let flowing = Sending::begin(&acme, marked_file("plain", "m"));
    flowing.chunk("x").await;
    intake.until("bytes", |told| (told.bytes > 0).then_some(())).await;
    intake.goes_away();
    let said = flowing.end().await.unwrap().outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    assert_eq!(told(&said), (Outcome::Retry, "NOT_KEPT"));
    assert_eq!((gate_rows(&pair).await, uploads(&pair).await), (0, 0));
}
