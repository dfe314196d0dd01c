//! `sluice file publish`: streams, early answers, tries again, against a service
//! that answers by a script.

use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex},
};

use hex::encode;
use md5::{Digest as _, Md5};
use prost_types::Duration;
use sluice_proto::ingest::v1::{
    FileMetadata, Outcome, PublicationOutcome, PublishFileRequest, PublishFileResponse,
    PublishObservationsRequest, PublishObservationsResponse, ingest_service_server::IngestService,
    publish_file_request::Part,
};
use sluice_tests::scratch;
use tokio::{io::AsyncWriteExt as _, process::Command};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{json_lines, run, serve_ingest, sluice, text};

/// What the service does with one call.
#[derive(Clone)]
enum Act {
    /// Reads so many chunks, then answers with the rest unread.
    Early(usize, PublicationOutcome),
    /// Reads so many chunks, then fails with the rest unread.
    Break(usize, Code),
    /// Reads all, then answers.
    Answer(PublicationOutcome),
    /// Reads all, then fails.
    Fail(Code),
    /// Reads all, then says that it was something else.
    Lie,
}

/// A call as the service saw it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    metadata: FileMetadata,
    size: u64,
    checksum: String,
    /// Whether the stream came to its own end.
    whole: bool,
}

#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[tonic::async_trait]
impl IngestService for Script {
    type StreamObservationsStream = ReceiverStream<Result<PublishObservationsResponse, Status>>;

    async fn publish_observations(
        &self,
        _: Request<PublishObservationsRequest>,
    ) -> Result<Response<PublishObservationsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn stream_observations(
        &self,
        _: Request<Streaming<PublishObservationsRequest>>,
    ) -> Result<Response<Self::StreamObservationsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn publish_file(
        &self,
        request: Request<Streaming<PublishFileRequest>>,
    ) -> Result<Response<PublishFileResponse>, Status> {
        let act = self.acts.lock().unwrap().pop_front().expect("no more calls than acts");
        let mut stream = request.into_inner();
        let Some(Part::Metadata(metadata)) = stream.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("the metadata comes first"));
        };
        let chunks_max = match act {
            Act::Early(chunks, _) | Act::Break(chunks, _) => chunks,
            _ => usize::MAX,
        };
        let (mut md5, mut size, mut chunks, mut whole) = (Md5::new(), 0, 0, false);
        while chunks < chunks_max {
            let Ok(message) = stream.message().await else { break };
            let Some(Part::Chunk(chunk)) = message.and_then(|message| message.part) else {
                whole = true;
                break;
            };
            assert!(!chunk.is_empty() && chunk.len() <= 1024 * 1024);
            md5.update(&chunk);
            size += chunk.len() as u64;
            chunks += 1;
        }
        let checksum = encode(md5.finalize());
        self.seen.lock().unwrap().push(Seen { metadata, size, checksum: checksum.clone(), whole });
        let answer = |outcome| PublishFileResponse { outcome: Some(outcome), checksum, size };
        match act {
            Act::Early(_, outcome) | Act::Answer(outcome) => Ok(Response::new(answer(outcome))),
            Act::Break(_, code) | Act::Fail(code) => Err(Status::new(code, "as scripted")),
            Act::Lie => Ok(Response::new(PublishFileResponse { size: size + 1, ..answer(success()) })),
        }
    }
}

fn outcome(outcome: Outcome, reason: &str) -> PublicationOutcome {
    let delay = (outcome == Outcome::Retry).then_some(Duration { seconds: 1, nanos: 0 });
    let id = if outcome == Outcome::Retry { "" } else { "01900000-0000-7000-8000-000000000001" };
    PublicationOutcome {
        outcome: outcome.into(),
        reason: reason.into(),
        ingest_id: id.into(),
        delay,
        ..PublicationOutcome::default()
    }
}

fn success() -> PublicationOutcome {
    outcome(Outcome::Success, "")
}

/// A service that does these things, call by call, and its address.
async fn serve(acts: impl IntoIterator<Item = Act>) -> (Script, String) {
    let script = Script { acts: Arc::new(Mutex::new(acts.into_iter().collect())), ..Script::default() };
    let address = serve_ingest(script.clone()).await;
    (script, address)
}

impl Script {
    fn seen(&self) -> Vec<Seen> {
        assert!(self.acts.lock().unwrap().is_empty(), "a call that was expected did not come");
        self.seen.lock().unwrap().clone()
    }
}

/// A file that no window holds, and its MD5.
fn large() -> (String, u64, String) {
    let bytes: Vec<u8> = (0..10_000_003_u32).map(|at| (at % 251) as u8).collect();
    let path = scratch("file").join("large.bin");
    std::fs::write(&path, &bytes).unwrap();
    (path.to_str().unwrap().into(), bytes.len() as u64, encode(Md5::digest(&bytes)))
}

fn publish(address: &str, path: &str, more: &[&str]) -> Command {
    let mut command = sluice(&["file", "publish", path, "--definition", "files/any", "--json"]);
    command.args(["--ingest", address, "--token", "sluice_a_b"]).args(more);
    command
}

/// The one JSON line of a run that ended so.
async fn told(command: Command, exit: i32) -> (serde_json::Value, String) {
    let output = run(command).await;
    let (shown, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{shown}{said}");
    (json_lines(&shown).remove(0), said)
}

#[tokio::test]
async fn every_byte_and_field_arrives_and_the_checksum_is_declared() {
    let (path, size, checksum) = large();
    let (service, address) = serve([Act::Answer(success())]).await;
    let fields = ["--chkpt", "c", "--identifier", "i", "--poll", "p", "--task", "t", "--type", "text/x"];
    let mut command = publish(&address, &path, &fields);
    command.args(["--organisation", "acme"]);
    let (line, said) = told(command, 0).await;
    let metadata = FileMetadata {
        organisation: "acme".into(),
        definition: "files/any".into(),
        chkpt: "c".into(),
        identifier: "i".into(),
        poll: "p".into(),
        task: "t".into(),
        r#type: "text/x".into(),
        checksum: checksum.clone(),
    };
    assert_eq!(service.seen(), [Seen { metadata, size, checksum: checksum.clone(), whole: true }]);
    assert_eq!((&line["outcome"], &line["size"]), (&"success".into(), &size.into()), "{line}");
    assert_eq!(line["checksum"], checksum.as_str());
    assert!(said.contains("10000003 bytes") && said.contains(&checksum), "{said}");
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let path = scratch("file").join("empty");
    std::fs::write(&path, "").unwrap();
    let (service, address) = serve([Act::Answer(success())]).await;
    told(publish(&address, path.to_str().unwrap(), &[]), 0).await;
    assert_eq!((service.seen()[0].size, service.seen()[0].whole), (0, true));
}

#[tokio::test]
async fn a_pipe_declares_nothing_and_is_compared_all_the_same() {
    for (act, exit) in [(Act::Answer(success()), 0), (Act::Lie, 1)] {
        let (service, address) = serve([act]).await;
        let mut child = publish(&address, "-", &[]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"from a pipe").await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", text(&output.stderr));
        assert_eq!(service.seen()[0].metadata.checksum, "");
        assert_eq!(service.seen()[0].size, 11);
    }
}

#[tokio::test]
async fn an_answer_that_comes_early_is_shown_with_the_rest_unsent() {
    let (path, ..) = large();
    for chunks in [0, 1] {
        let duplicate = PublicationOutcome {
            original_outcome: Outcome::Success.into(),
            ..outcome(Outcome::Duplicate, "CHKPT")
        };
        let (service, address) = serve([Act::Early(chunks, duplicate)]).await;
        let (line, said) = told(publish(&address, &path, &["--chkpt", "c"]), 0).await;
        assert_eq!((&line["outcome"], &line["original_outcome"]), (&"duplicate".into(), &"success".into()));
        assert!(line["size"].is_null() && said.contains("before all was sent"), "{line} {said}");
        assert!(!service.seen()[0].whole);
    }
    let (_service, address) = serve([Act::Early(0, outcome(Outcome::Error, "UNKNOWN_DEFINITION"))]).await;
    let (line, _) = told(publish(&address, &path, &[]), 1).await;
    assert_eq!(line["reason"], "UNKNOWN_DEFINITION");
}

#[tokio::test]
async fn an_early_answer_is_shown_while_the_source_still_waits() {
    let (_service, address) = serve([Act::Early(0, outcome(Outcome::Throttled, "THROTTLE"))]).await;
    let mut child = publish(&address, "-", &[]).stdin(Stdio::piped()).spawn().unwrap();
    // Never closed, never written to.
    let _stdin = child.stdin.take().unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(json_lines(&text(&output.stdout))[0]["outcome"], "throttled");
}

#[tokio::test]
async fn what_was_certainly_not_kept_is_sent_again_without_a_marker() {
    let (path, size, _) = large();
    let not_kept = Act::Answer(outcome(Outcome::Retry, "NOT_KEPT"));
    // A stream that broke before its end was not decided either.
    let broke = Act::Break(2, Code::Unavailable);
    let (service, address) = serve([not_kept, broke, Act::Answer(success())]).await;
    let (line, said) = told(publish(&address, &path, &[]), 0).await;
    assert_eq!((&line["outcome"], service.seen().len()), (&"success".into(), 3));
    assert!(said.contains("NOT_KEPT") && said.contains("again in"), "{said}");
    assert_eq!((service.seen()[2].size, service.seen()[2].whole), (size, true));
}

#[tokio::test]
async fn what_may_have_been_kept_is_sent_again_only_under_a_marker() {
    let (path, ..) = large();
    let unknown = || Act::Answer(outcome(Outcome::Retry, "OUTCOME_UNKNOWN"));
    for act in [unknown(), Act::Fail(Code::Unavailable)] {
        let (service, address) = serve([act.clone()]).await;
        let (line, _) = told(publish(&address, &path, &[]), 1).await;
        assert_eq!((&line["outcome"], &line["reason"]), (&"retry".into(), &"OUTCOME_UNKNOWN".into()));
        assert_eq!(service.seen().len(), 1);

        let (service, address) = serve([act, Act::Answer(success())]).await;
        let (line, _) = told(publish(&address, &path, &["--chkpt", "c"]), 0).await;
        assert_eq!((&line["outcome"], service.seen().len()), (&"success".into(), 2));
    }
}

#[tokio::test]
async fn a_lost_answer_stays_unknown_when_nothing_is_kept_later() {
    let (path, ..) = large();
    let later = PublicationOutcome {
        delay: Some(Duration { seconds: 3600, nanos: 0 }),
        ..outcome(Outcome::Retry, "NOT_KEPT")
    };
    let (service, address) = serve([Act::Fail(Code::Unavailable), Act::Answer(later)]).await;
    let (line, _) = told(publish(&address, &path, &["--chkpt", "c"]), 1).await;
    assert_eq!((&line["reason"], service.seen().len()), (&"OUTCOME_UNKNOWN".into(), 2));
}

#[tokio::test]
async fn a_lost_answer_stays_unknown_when_the_next_call_is_refused() {
    let (path, ..) = large();
    let acts = [Act::Fail(Code::Unavailable), Act::Break(0, Code::PermissionDenied)];
    let (_service, address) = serve(acts).await;
    let (line, _) = told(publish(&address, &path, &["--chkpt", "c"]), 1).await;
    assert_eq!((&line["outcome"], &line["reason"]), (&"retry".into(), &"OUTCOME_UNKNOWN".into()));
    assert_eq!(line["details"], "PermissionDenied: as scripted");
}

#[tokio::test]
async fn a_fault_of_the_service_after_all_was_sent_leaves_it_unknown() {
    let (path, ..) = large();
    let (service, address) = serve([Act::Fail(Code::Internal)]).await;
    let (line, _) = told(publish(&address, &path, &["--chkpt", "c"]), 1).await;
    assert_eq!((&line["outcome"], &line["reason"]), (&"retry".into(), &"OUTCOME_UNKNOWN".into()));
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn it_gives_up_when_its_time_is_over() {
    let (path, ..) = large();
    let (service, address) = serve([Act::Answer(outcome(Outcome::Retry, "NOT_KEPT"))]).await;
    let (line, _) = told(publish(&address, &path, &["--retry-for", "0"]), 1).await;
    assert_eq!((&line["outcome"], service.seen().len()), (&"retry".into(), 1));
}

#[tokio::test]
async fn faults_of_the_caller_are_told_apart_by_the_exit_code() {
    let (path, ..) = large();
    let (_service, address) = serve([Act::Break(0, Code::PermissionDenied)]).await;
    let refused = run(publish(&address, &path, &[])).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("PermissionDenied: as scripted"), "{}", text(&refused.stderr));
    let missing = run(publish(&address, "/nonexistent", &[])).await;
    assert_eq!(missing.status.code(), Some(2));
    let port = sluice::port::free().unwrap().to_string();
    let nobody = run(publish(&format!("127.0.0.1:{port}"), &path, &[])).await;
    assert!(nobody.status.code() == Some(2) && text(&nobody.stderr).contains("nobody answers"));
}
