//! `sluice publish` and what the service answers: lost answers, refusals, outputs
//! that fail, against a service that answers by a script.

use std::{
    collections::{HashMap, VecDeque},
    process::Stdio,
    sync::{Arc, Mutex},
};

use prost_types::Duration;
use serde_json::Value;
use sluice_proto::ingest::v1::{
    Outcome, PublicationOutcome, PublishFileRequest, PublishFileResponse, PublishObservationsRequest,
    PublishObservationsResponse, ingest_service_server::IngestService,
};
use sluice_tests::{eventually, scratch};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    sync::Notify,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{dev::signal, json_lines, run, serve_ingest, sluice, text};

/// Longer than any of it takes.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// What the service does with one call.
#[derive(Clone, Debug)]
enum Act {
    /// Answers all observations so. A retry is advised for later than any test waits.
    Answer(Outcome, &'static str),
    Fail(Code),
    /// Says that the request is too large, as the service does.
    TooLarge,
    /// Answers `success` when the test says so, or is refused when it says that.
    Wait,
}

/// A service whose calls are told apart by the marker of their first observation.
#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<HashMap<&'static str, VecDeque<Act>>>>,
    seen: Arc<Mutex<Vec<String>>>,
    go_on: Arc<Notify>,
    refuse: Arc<Notify>,
}

impl Script {
    fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort();
        seen
    }
}

fn answer(outcome: Outcome, reason: &str, of: usize) -> Response<PublishObservationsResponse> {
    let delay = (outcome == Outcome::Retry).then_some(Duration { seconds: 3600, nanos: 0 });
    let outcome = PublicationOutcome {
        outcome: outcome.into(),
        reason: reason.into(),
        delay,
        ..PublicationOutcome::default()
    };
    Response::new(PublishObservationsResponse {
        observations: vec![outcome; of],
        ..PublishObservationsResponse::default()
    })
}

#[tonic::async_trait]
impl IngestService for Script {
    type StreamObservationsStream = ReceiverStream<Result<PublishObservationsResponse, Status>>;

    async fn publish_observations(
        &self,
        request: Request<PublishObservationsRequest>,
    ) -> Result<Response<PublishObservationsResponse>, Status> {
        let observations = request.into_inner().observations;
        let marker = observations[0].chkpt.clone();
        self.seen.lock().unwrap().push(marker.clone());
        let act = self.acts.lock().unwrap().get_mut(marker.as_str()).and_then(VecDeque::pop_front);
        match act.expect("no more calls than acts") {
            Act::Answer(outcome, reason) => Ok(answer(outcome, reason, observations.len())),
            Act::Wait => {
                tokio::select! {
                    () = self.go_on.notified() => Ok(answer(Outcome::Success, "", observations.len())),
                    () = self.refuse.notified() => Err(Status::permission_denied("as scripted")),
                }
            }
            Act::Fail(code) => Err(Status::new(code, "as scripted")),
            Act::TooLarge => {
                let why = ErrorDetails::with_error_info("REQUEST_TOO_LARGE", "sluice", HashMap::new());
                Err(Status::with_error_details(Code::ResourceExhausted, "as scripted", why))
            }
        }
    }

    async fn stream_observations(
        &self,
        _: Request<Streaming<PublishObservationsRequest>>,
    ) -> Result<Response<Self::StreamObservationsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn publish_file(
        &self,
        _: Request<Streaming<PublishFileRequest>>,
    ) -> Result<Response<PublishFileResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A service that does these things, by marker and call by call, and its address.
async fn serve(acts: &[(&'static str, &[Act])]) -> (Script, String) {
    let acts = acts.iter().map(|(marker, acts)| (*marker, acts.iter().cloned().collect())).collect();
    let script = Script { acts: Arc::new(Mutex::new(acts)), ..Script::default() };
    let address = serve_ingest(script.clone()).await;
    (script, address)
}

fn line(marker: &str) -> String {
    format!("{{\"path\":\"any\",\"chkpt\":\"{marker}\"}}\n")
}

/// Publishes a line for each marker.
fn publish(address: &str, markers: &[&str], more: &[&str]) -> Command {
    let file = scratch("answers").join("lines.jsonl");
    std::fs::write(&file, markers.iter().map(|marker| line(marker)).collect::<String>()).unwrap();
    publish_file(address, file.to_str().unwrap(), more)
}

/// Publishes a file, each line in a request of its own.
fn publish_file(address: &str, file: &str, more: &[&str]) -> Command {
    let mut command = sluice(&["publish", file, "--batch", "1"]);
    command.args(["--ingest", address, "--token", "sluice_a_b"]).args(more);
    command
}

/// What was told of each marker: outcome and reason, in the order of the lines.
fn told(stdout: &str) -> Vec<(u64, String, String)> {
    let of = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (line["line"].as_u64().unwrap(), text("outcome"), text("reason"))
    };
    let mut told: Vec<_> = json_lines(stdout).iter().map(of).collect();
    told.sort();
    told
}

fn ended(line: u64, outcome: &str, reason: &str) -> (u64, String, String) {
    (line, outcome.into(), reason.into())
}

const NOT_KEPT: Act = Act::Answer(Outcome::Retry, "NOT_KEPT");
const SUCCESS: Act = Act::Answer(Outcome::Success, "");
const AWAY: Act = Act::Fail(Code::Unavailable);
const REFUSED: Act = Act::Fail(Code::PermissionDenied);

#[tokio::test]
async fn a_lost_answer_stays_unknown_when_nothing_is_kept_later() {
    let (service, address) = serve(&[("a", &[AWAY, NOT_KEPT])]).await;
    let output = run(publish(&address, &["a"], &["--json", "--retry-for", "60"])).await;
    assert_eq!(service.seen(), ["a", "a"]);
    assert_eq!(told(&text(&output.stdout)), [ended(1, "retry", "OUTCOME_UNKNOWN")]);
}

#[tokio::test]
async fn what_runs_when_a_call_is_refused_ends_and_nothing_more_is_sent() {
    let acts: [(&str, &[Act]); 3] = [("a", &[SUCCESS]), ("b", &[Act::Wait]), ("c", &[REFUSED])];
    let (service, address) = serve(&acts).await;
    let markers = ["a", "b", "c", "d", "e"];
    let mut child = publish(&address, &markers, &["--json", "--concurrency", "2"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("NOT_KEPT") && stdout.read_line(&mut shown).await.unwrap() > 0 {}
    service.go_on.notify_one();
    stdout.read_to_string(&mut shown).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let expected = [ended(1, "success", ""), ended(2, "success", ""), ended(3, "retry", "NOT_KEPT")];
    assert_eq!(told(&shown), expected);
    assert_eq!(service.seen(), ["a", "b", "c"]);
    let said = text(&output.stderr);
    assert!(said.contains("3 observations"), "the report: {said}");
    assert!(said.contains("PermissionDenied: as scripted; what follows line 3 was not sent"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_lost_answer_stays_unknown_when_the_next_call_is_refused() {
    let (_service, address) = serve(&[("a", &[AWAY, REFUSED])]).await;
    let output = run(publish(&address, &["a"], &["--json"])).await;
    assert_eq!(told(&text(&output.stdout)), [ended(1, "retry", "OUTCOME_UNKNOWN")]);
    assert_eq!(output.status.code(), Some(1), "it may have been kept");
}

#[tokio::test]
async fn who_waits_to_send_again_does_not_when_another_call_is_refused() {
    let acts: [(&str, &[Act]); 2] = [("a", &[NOT_KEPT]), ("b", &[Act::Wait])];
    let (service, address) = serve(&acts).await;
    let more = ["--json", "--concurrency", "2", "--retry-for", "7200"];
    let child = publish(&address, &["a", "b"], &more).spawn().unwrap();
    eventually("both calls", || async { (service.seen().len() == 2).then_some(()) }).await;
    service.refuse.notify_one();
    let output = timeout(LONG, child.wait_with_output()).await.expect("its end").unwrap();
    let expected = [ended(1, "retry", "NOT_KEPT"), ended(2, "retry", "NOT_KEPT")];
    assert_eq!(told(&text(&output.stdout)), expected);
    assert_eq!(output.status.code(), Some(2), "nothing was kept");
}

#[tokio::test]
async fn a_refusal_ends_it_while_the_source_still_waits() {
    let (_service, address) = serve(&[("a", &[SUCCESS]), ("b", &[REFUSED])]).await;
    let mut child =
        publish_file(&address, "-", &["--json", "--concurrency", "1"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((line("a") + &line("b")).as_bytes()).await.unwrap();
    let output = timeout(LONG, child.wait_with_output()).await.expect("its end").unwrap();
    assert_eq!(told(&text(&output.stdout)), [ended(1, "success", ""), ended(2, "retry", "NOT_KEPT")]);
    drop(stdin);
}

#[tokio::test]
async fn what_is_too_large_is_told_at_once_as_not_kept() {
    let (service, address) = serve(&[("a", &[Act::TooLarge])]).await;
    let output = run(publish(&address, &["a"], &["--json"])).await;
    assert_eq!(told(&text(&output.stdout)), [ended(1, "retry", "NOT_KEPT")]);
    assert_eq!((service.seen().len(), output.status.code()), (1, Some(2)));
}

#[tokio::test]
async fn a_signal_ends_it_after_what_runs_and_says_where_to_go_on() {
    let acts: [(&str, &[Act]); 2] = [("a", &[NOT_KEPT]), ("b", &[Act::Wait])];
    let (service, address) = serve(&acts).await;
    let more = ["--json", "--concurrency", "2", "--retry-for", "7200"];
    let mut child = publish(&address, &["a", "b", "c"], &more).spawn().unwrap();
    eventually("both calls", || async { (service.seen().len() == 2).then_some(()) }).await;
    signal("TERM", child.id().unwrap());
    // What waited to be sent again is given up: the signal has come.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("NOT_KEPT") && stdout.read_line(&mut shown).await.unwrap() > 0 {}
    service.go_on.notify_one();
    stdout.read_to_string(&mut shown).await.unwrap();
    let output = timeout(LONG, child.wait_with_output()).await.expect("its end").unwrap();
    assert_eq!(told(&shown), [ended(1, "retry", "NOT_KEPT"), ended(2, "success", "")]);
    let said = text(&output.stderr);
    assert!(said.contains("2 observations") && said.contains("stopped; what follows line 2"), "{said}");
    assert_eq!((service.seen().len(), output.status.code()), (2, Some(1)));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let acts: [(&str, &[Act]); 2] = [("a", &[NOT_KEPT]), ("b", &[Act::Wait])];
    let (service, address) = serve(&acts).await;
    let more = ["--json", "--concurrency", "2", "--retry-for", "7200"];
    let mut child = publish(&address, &["a", "b"], &more).spawn().unwrap();
    eventually("both calls", || async { (service.seen().len() == 2).then_some(()) }).await;
    signal("TERM", child.id().unwrap());
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("NOT_KEPT") && stdout.read_line(&mut shown).await.unwrap() > 0 {}
    signal("INT", child.id().unwrap());
    let output = timeout(LONG, child.wait_with_output()).await.expect("its end").unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("stopped twice: what was under way may have been kept"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_signal_after_everything_was_sent_is_no_fault() {
    let (service, address) = serve(&[("a", &[Act::Wait])]).await;
    let child = publish(&address, &["a"], &["--json"]).spawn().unwrap();
    eventually("the call", || async { (service.seen().len() == 1).then_some(()) }).await;
    signal("TERM", child.id().unwrap());
    service.go_on.notify_one();
    let output = timeout(LONG, child.wait_with_output()).await.expect("its end").unwrap();
    assert_eq!(told(&text(&output.stdout)), [ended(1, "success", "")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_folder_is_no_file_of_lines() {
    let output = run(publish_file("127.0.0.1:1", scratch("folder").to_str().unwrap(), &[])).await;
    assert!(text(&output.stderr).contains("is a folder"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_full_disk_below_the_outcomes_is_told_in_the_end() {
    let (service, address) = serve(&[("a", &[SUCCESS]), ("b", &[SUCCESS])]).await;
    let mut command = publish(&address, &["a", "b"], &["--json"]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command.spawn().unwrap().wait_with_output().await.unwrap();
    assert_eq!(service.seen(), ["a", "b"], "all is published");
    let said = text(&output.stderr);
    assert!(said.contains("2 observations") && said.contains("standard output: No space left"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn outcomes_that_nobody_reads_any_more_are_no_fault() {
    let (_service, address) = serve(&[("a", &[SUCCESS]), ("b", &[SUCCESS])]).await;
    let mut child = publish(&address, &["a", "b"], &["--json"]).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
}
