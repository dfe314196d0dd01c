//! The bounds of a file's stream on both sides of each, its shape, and that no
//! more of it is taken than is needed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use futures_util::stream;
use sluice_proto::ingest::v1::{Outcome, PublishFileRequest};
use sluice_tests::Service;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{files::support::*, support::*, telemetry::exposition::scrape};

async fn refusal(clients: &sluice::connection::Clients, messages: Vec<PublishFileRequest>) -> Status {
    send(clients, stream::iter(messages)).await.expect_err("a refusal")
}

fn field(status: &Status) -> String {
    status.get_error_details().bad_request().expect("a field").field_violations[0].field.clone()
}

#[tokio::test]
async fn a_chunk_has_up_to_a_mebibyte() {
    let (intake, pair, acme) = start().await;
    let publish = |bytes: usize| {
        vec![metadata_message(marked_file("plain", "m")), chunk_message("x"), chunk_message(vec![1; bytes])]
    };
    let status = refusal(&acme, publish(MIB + 1)).await;
    assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, "chunk".into()));
    assert_eq!(uploads(&pair).await, 0, "given up at once");
    assert_eq!(gate_rows(&pair).await, 0);
    let said = send(&acme, stream::iter(publish(MIB))).await.unwrap();
    assert_eq!(said.size, MIB as u64 + 1);
    let bytes = [&b"x"[..], &[1; MIB]].concat();
    intake.adds_up(&pair, &[(said.outcome.unwrap().ingest_id, bytes.into())].into()).await;
    intake.told(|told| assert_eq!((told.sealed.len(), told.discarded.len()), (1, 1)));
}

#[tokio::test]
async fn a_stream_is_one_metadata_and_then_chunks() {
    let (intake, pair, acme) = start().await;
    let (metadata, chunk) = (|| metadata_message(file("plain")), || chunk_message("x"));
    let nothing = || PublishFileRequest { part: None };
    for (messages, wrong) in [
        (vec![], "metadata"),
        (vec![chunk()], "metadata"),
        (vec![nothing(), metadata()], "metadata"),
        (vec![metadata(), chunk(), metadata()], "chunk"),
        (vec![metadata(), chunk(), nothing(), chunk()], "chunk"),
    ] {
        let status = refusal(&acme, messages).await;
        assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, wrong.into()));
    }
    intake.adds_up(&pair, &Contents::new()).await;
    intake.told(|told| {
        assert!(told.sealed.is_empty(), "what was broken off is never sealed");
        assert_eq!(told.discarded.len(), 2);
    });
}

#[tokio::test]
async fn chunks_without_bytes_are_passed_over() {
    let (intake, pair, acme) = start().await;
    let chunks = ["", "a", "", "", "b", ""].map(chunk_message);
    let messages = [metadata_message(file("plain"))].into_iter().chain(chunks);
    let said = send(&acme, stream::iter(messages.collect::<Vec<_>>())).await.unwrap();
    intake.adds_up(&pair, &[(said.outcome.unwrap().ingest_id, "ab".into())].into()).await;
}

#[tokio::test]
async fn a_foreign_organisation_is_refused() {
    let (intake, pair, acme) = start().await;
    let mut foreign = file("plain");
    foreign.organisation = "globex".into();
    let status = refusal(&acme, vec![metadata_message(foreign)]).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    let status =
        refusal(&pair.clients(sluice_tests::Tenant::Admin), vec![metadata_message(file("plain"))]).await;
    assert_eq!((status.code(), field(&status)), (Code::InvalidArgument, "organisation".into()));
    intake.told(|told| assert!(told.begun.is_empty()));
}

/// A gibibyte in chunks of 1 MiB, and how many of them were taken.
fn endless(metadata: sluice_proto::ingest::v1::FileMetadata) -> (Vec<PublishFileRequest>, Arc<AtomicUsize>) {
    let chunk = bytes::Bytes::from(vec![0; MIB]);
    let messages = std::iter::repeat_n(chunk, 1024).map(chunk_message);
    (std::iter::once(metadata_message(metadata)).chain(messages).collect(), Arc::default())
}

fn counted(
    messages: Vec<PublishFileRequest>,
    taken: &Arc<AtomicUsize>,
) -> impl futures_util::Stream<Item = PublishFileRequest> + Send + 'static {
    let taken = taken.clone();
    stream::iter(messages.into_iter().inspect(move |_| {
        taken.fetch_add(1, Relaxed);
    }))
}

#[tokio::test]
async fn the_rest_of_a_stream_is_not_read_when_the_outcome_is_certain() {
    let (intake, _pair, acme) = start().await;
    outcome(&acme, marked_file("plain", "m"), b"x").await;
    let (messages, taken) = endless(marked_file("plain", "m"));
    let said = send(&acme, counted(messages, &taken)).await.unwrap();
    assert_eq!(said.outcome.unwrap().outcome(), Outcome::Duplicate);
    assert!(taken.load(Relaxed) < 32, "{taken:?} chunks were taken");
    intake.told(|told| assert_eq!(told.begun.len(), 1));
}

#[tokio::test]
async fn a_store_that_takes_nothing_holds_the_publisher_back_until_it_is_told_to_come_again() {
    let (intake, pair, acme) = start_with(builder().flag(Service::Ingest, "file-idle-seconds", "1")).await;
    intake.goes(Manner::Hang);
    let (messages, taken) = endless(marked_file("plain", "m"));
    let said = send(&acme, counted(messages, &taken)).await.unwrap();
    let said = said.outcome.unwrap();
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    assert!(taken.load(Relaxed) < 32, "{taken:?} chunks were taken");
    assert_eq!(gate_rows(&pair).await, 0);
    intake.goes(Manner::HangSealed);
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    intake.adds_up(&pair, &Contents::new()).await;
    intake.told(|told| assert_eq!((told.sealed.len(), told.discarded.len()), (1, 2)));
}

#[tokio::test]
async fn a_publisher_that_says_nothing_is_not_waited_for_for_ever() {
    let (intake, pair, acme) = start_with(builder().flag(Service::Ingest, "file-idle-seconds", "1")).await;
    let silent = Sending::begin(&acme, file("plain"));
    silent.chunk("x").await;
    let nothing = send(&acme, tokio_stream::pending()).await;
    for status in [silent.publishing.await.unwrap().unwrap_err(), nothing.unwrap_err()] {
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "FILE_IDLE");
    }
    intake.adds_up(&pair, &Contents::new()).await;
}

#[tokio::test]
async fn so_many_files_are_taken_at_a_time_and_no_more() {
    let builder = builder().admin().flag(Service::Ingest, "files-max", "3");
    let (intake, pair, acme) = start_with(builder).await;
    let told_for = async |cause: &str| {
        scrape(pair.ingest[0].admin()).await.sum("sluice_retries_total", &[("cause", cause)])
    };
    let globex = pair.clients(sluice_tests::Tenant::Globex);
    let plain = sluice_proto::ingest::v1::Definition { organisation: "globex".into(), ..definition("plain") };
    put(&globex, plain).await;
    let (first, second) = (Sending::begin(&acme, file("plain")), Sending::begin(&acme, file("plain")));
    intake.until("two files begun", |told| (told.begun.len() == 2).then_some(())).await;
    let said = outcome(&acme, file("plain"), b"third").await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    assert_eq!((told_for("organisation_queue").await, told_for("queue").await), (1.0, 0.0));
    // Another organisation has the third place, and then there is none.
    let other = Sending::begin(&globex, file("plain"));
    intake.until("three files begun", |told| (told.begun.len() == 3).then_some(())).await;
    let said = outcome(&globex, file("plain"), b"fourth").await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    assert_eq!((told_for("organisation_queue").await, told_for("queue").await), (1.0, 1.0));
    let other = other.end().await.unwrap().outcome.unwrap();
    let first = first.end().await.unwrap().outcome.unwrap();
    let third = outcome(&acme, file("plain"), b"third").await;
    assert_eq!([first.outcome(), third.outcome()], [Outcome::Success; 2]);
    let second = second.end().await.unwrap().outcome.unwrap();
    let accepted =
        [(other.ingest_id, ""), (first.ingest_id, ""), (second.ingest_id, ""), (third.ingest_id, "third")];
    intake.adds_up(&pair, &accepted.map(|(id, bytes)| (id, bytes.into())).into()).await;
}

#[tokio::test]
async fn an_organisation_with_a_full_backlog_publishes_no_files() {
    let builder = builder().flag(Service::Ingest, "outbox-organisation-bytes-max", "1");
    let (intake, pair, acme) = start_with(builder).await;
    let globex = pair.clients(sluice_tests::Tenant::Globex);
    let plain = sluice_proto::ingest::v1::Definition { organisation: "globex".into(), ..definition("plain") };
    put(&globex, plain).await;
    intake.answers(Some(sluice_proto::results::v1::record_results_response::Recording::Deferred));
    let first = outcome(&acme, file("plain"), b"first").await;
    let refused = outcome(&acme, file("plain"), b"refused").await;
    assert_eq!((refused.outcome(), refused.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    let other = outcome(&globex, file("plain"), b"other").await;
    assert_eq!([first.outcome(), other.outcome()], [Outcome::Success; 2]);
    intake.told(|told| assert_eq!(told.begun.len(), 2, "no byte of it was sent"));
    intake.answers(None);
    intake
        .adds_up(&pair, &[(first.ingest_id, "first".into()), (other.ingest_id, "other".into())].into())
        .await;
}

/// The most memory a process ever had, in bytes.
fn peak_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_large_file_takes_little_memory() {
    let (intake, pair, acme) = start_with(builder().processes()).await;
    outcome(&acme, file("plain"), b"warm").await;
    intake.goes(Manner::Swallow);
    let before = peak_bytes(pair.ingest[0].pid().unwrap());
    let chunk = bytes::Bytes::from(vec![7; MIB]);
    let chunks = std::iter::repeat_n(chunk, 256).map(chunk_message);
    let messages = std::iter::once(metadata_message(file("plain"))).chain(chunks);
    let said = send(&acme, stream::iter(messages)).await.unwrap();
    assert_eq!((said.outcome.unwrap().outcome(), said.size), (Outcome::Success, 256 * MIB as u64));
    let more = peak_bytes(pair.ingest[0].pid().unwrap()) - before;
    assert!(more < 64 * MIB, "{} MiB more", more / MIB);
}

#[tokio::test]
async fn stuck_files_of_one_organisation_hold_up_nobody_else() {
    let (intake, pair, acme) = start().await;
    let globex = pair.clients(sluice_tests::Tenant::Globex);
    let plain = sluice_proto::ingest::v1::Definition { organisation: "globex".into(), ..definition("plain") };
    put(&globex, plain).await;
    intake.goes(Manner::Hang);
    let mut stuck = Vec::new();
    for _ in 0..8 {
        // More than any window takes.
        let (messages, _) = endless(file("plain"));
        let acme = pair.clients(sluice_tests::Tenant::Acme);
        stuck.push(tokio::spawn(async move { send(&acme, stream::iter(messages)).await }));
    }
    intake.until("all stuck", |told| (told.begun.len() == 8).then_some(())).await;
    intake.goes(Manner::Store);
    let bytes = vec![3; 4 * MIB];
    let said = outcome(&globex, file("plain"), &bytes).await;
    assert_eq!(said.outcome(), Outcome::Success);
    let observation = publish_one(&acme, json("plain", "1")).await;
    for id in [said.ingest_id, observation.ingest_id] {
        intake.until("both results", |told| told.results.contains_key(&id).then_some(())).await;
    }
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}
