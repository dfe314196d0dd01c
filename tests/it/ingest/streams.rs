//! `StreamObservations`: one answer per request, in order; bad requests are
//! answered and the stream lives on; a revoked token ends it.

use prost::Message as _;
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Outcome, PublishObservationsRequest, PublishObservationsResponse};
use sluice_tests::{Pair, Tenant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::*;

/// Both ends of a stream.
pub struct Stream {
    pub requests: mpsc::Sender<PublishObservationsRequest>,
    pub answers: Streaming<PublishObservationsResponse>,
}

impl Stream {
    pub async fn open(clients: &Clients) -> Self {
        let (requests, sent) = mpsc::channel(256);
        let answers = clients.ingest.clone().stream_observations(ReceiverStream::new(sent)).await;
        Self { requests, answers: answers.unwrap().into_inner() }
    }

    pub async fn send(&self, request: PublishObservationsRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> Result<PublishObservationsResponse, Status> {
        Ok(self.answers.message().await?.expect("an answer, not the end"))
    }

    pub async fn outcomes(&mut self) -> Vec<Outcome> {
        let answer = self.answer().await.unwrap();
        assert_eq!(answer.status, None);
        kinds(&answer.observations)
    }
}

async fn start() -> (Pair, Clients) {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (pair, acme)
}

#[tokio::test]
async fn requests_are_decided_and_answered_in_order() {
    let (pair, acme) = start().await;
    // One that gets slower looks: an unknown definition asks the database.
    let mut stream = Stream::open(&acme).await;
    for n in 0..100 {
        let mark = format!("mark-{}", n / 2);
        let first = if n % 10 == 0 { "nobody/knows" } else { "plain" };
        stream.send(request(vec![json(first, "0"), marked("plain", &mark, &(n / 2).to_string())])).await;
    }
    let mut all = Contents::new();
    let mut last_id = String::new();
    for n in 0..100 {
        let answer = stream.answer().await.unwrap();
        let said = &answer.observations;
        let first = if n % 10 == 0 { Outcome::Error } else { Outcome::Success };
        let second = if n % 2 == 0 { Outcome::Success } else { Outcome::Duplicate };
        assert_eq!(kinds(said), [first, second], "request {n}");
        assert_eq!(said[1].chkpt, format!("mark-{}", n / 2), "request {n}");
        if second == Outcome::Duplicate {
            assert_eq!(said[1].ingest_id, last_id, "the one before");
        }
        last_id.clone_from(&said[1].ingest_id);
        let sent = [json("plain", "0"), json("plain", &(n / 2).to_string())];
        all.extend(accepted(&sent, said));
    }
    drop(stream.requests);
    assert!(stream.answers.message().await.unwrap().is_none(), "it ends when the publisher ends it");
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn an_answer_comes_without_waiting_for_the_next_request() {
    let (_pair, acme) = start().await;
    let mut stream = Stream::open(&acme).await;
    for n in 0..5 {
        stream.send(request(vec![json("plain", &n.to_string())])).await;
        assert_eq!(stream.outcomes().await, [Outcome::Success]);
    }
}

#[tokio::test]
async fn a_bad_request_is_answered_with_its_status_and_the_stream_lives_on() {
    let (_pair, acme) = start().await;
    let mut stream = Stream::open(&acme).await;
    let good = || request(vec![json("plain", "1")]);
    let foreign = PublishObservationsRequest { organisation: "globex".into(), ..good() };
    let long = PublishObservationsRequest { request_id: "x".repeat(129), ..good() };
    let many = request(vec![json("plain", "1"); 1001]);
    for (bad, code, reason) in [
        (request(vec![]), Code::InvalidArgument, "EMPTY_BATCH"),
        (foreign, Code::PermissionDenied, "FOREIGN_ORGANISATION"),
        (long, Code::InvalidArgument, "INVALID_FIELD"),
        (many, Code::InvalidArgument, "INVALID_FIELD"),
    ] {
        stream.send(bad).await;
        stream.send(good()).await;
        let answer = stream.answer().await.unwrap();
        assert!(answer.observations.is_empty());
        let status = answer.status.expect("why it was refused");
        assert_eq!((status.code, status.message.is_empty()), (code as i32, false), "{reason}");
        let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.ErrorInfo"));
        let info = tonic_types::pb::ErrorInfo::decode(&info.expect("details").value[..]).unwrap();
        assert_eq!(info.reason, reason);
        assert_eq!(stream.outcomes().await, [Outcome::Success], "after {reason}");
    }
}

#[tokio::test]
async fn a_request_over_the_limit_ends_the_stream_with_its_reason() {
    let (_pair, acme) = start().await;
    let mut stream = Stream::open(&acme).await;
    stream.send(request(vec![json("plain", &format!("\"{}\"", "x".repeat(17 * 1024 * 1024)))])).await;
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::ResourceExhausted);
}

/// Takes everything out of the keys file.
fn revoke_all(pair: &Pair) {
    std::fs::write(&pair.keys_file, "").unwrap();
}

#[tokio::test]
async fn a_revoked_token_ends_a_stream_that_is_idle() {
    let (pair, acme) = start().await;
    let mut stream = Stream::open(&acme).await;
    stream.send(request(vec![json("plain", "1")])).await;
    assert_eq!(stream.outcomes().await, [Outcome::Success]);
    revoke_all(&pair);
    let ended = tokio::time::timeout(sluice_tests::DEADLINE, stream.answers.message()).await;
    let status = ended.expect("an end").expect_err("an error");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn a_revoked_token_ends_a_stream_that_is_busy() {
    let (pair, acme) = start().await;
    let mut stream = Stream::open(&acme).await;
    let requests = stream.requests.clone();
    let busy =
        tokio::spawn(async move { while requests.send(request(vec![json("plain", "1")])).await.is_ok() {} });
    for _ in 0..10 {
        assert_eq!(stream.outcomes().await, [Outcome::Success]);
    }
    revoke_all(&pair);
    let status = loop {
        match stream.answer().await {
            Ok(answer) => assert_eq!(kinds(&answer.observations), [Outcome::Success]),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    drop(stream);
    busy.await.unwrap();
}

#[tokio::test]
async fn other_tokens_keep_their_streams_when_one_is_revoked() {
    let (pair, acme) = start().await;
    let admin = pair.clients(Tenant::Admin);
    let named =
        || PublishObservationsRequest { organisation: "acme".into(), ..request(vec![json("plain", "1")]) };
    let (mut revoked, mut kept) = (Stream::open(&acme).await, Stream::open(&admin).await);
    kept.send(named()).await;
    assert_eq!(kept.outcomes().await, [Outcome::Success]);
    let text = std::fs::read_to_string(&pair.keys_file).unwrap();
    let mut keys: toml::Table = text.parse().unwrap();
    let tokens = keys["token"].as_array_mut().unwrap();
    tokens.retain(|token| token.get("all_organisations").is_some());
    assert_eq!(tokens.len(), 2);
    std::fs::write(&pair.keys_file, keys.to_string()).unwrap();
    let status = revoked.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    kept.send(named()).await;
    assert_eq!(kept.outcomes().await, [Outcome::Success]);
}
