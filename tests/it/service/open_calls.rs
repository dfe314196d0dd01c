//! Calls that need no token, health and reflection: what they take up is bounded, and at
//! nobody else's cost.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
};
use prost::Message as _;
use sluice_proto::ingest::v1::Outcome;
use sluice_tests::{Pair, Tenant, eventually};
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};

use crate::{
    http::support::PATIENCE,
    ingest::streams::Stream,
    service::connections::connect,
    service::serving_limits::{call, told, with},
    support::*,
    telemetry::exposition::scrape,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// Asks of the whole process.
const WHOLE: [u8; 0] = [];
const WINDOW_BYTES: u32 = 65_535;

type Sent = UnsyncBoxBody<Bytes, Infallible>;

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat().into()
}

/// What a health check asks for.
fn of_service(name_bytes: usize) -> Vec<u8> {
    tonic_reflection::pb::v1::ServiceResponse { name: "x".repeat(name_bytes) }.encode_to_vec()
}

fn list_services() -> Vec<u8> {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    ServerReflectionRequest { host: String::new(), message_request }.encode_to_vec()
}

/// A body that ends.
fn all(bytes: Bytes) -> Sent {
    Full::new(bytes).boxed_unsync()
}

/// A body that is only begun.
fn begun(bytes: Bytes) -> Sent {
    let bytes = tokio_stream::once(Ok(Frame::data(bytes)));
    StreamBody::new(bytes.chain(tokio_stream::pending())).boxed_unsync()
}

fn of_rpc(pair: &Pair, path: &str, token: Option<Tenant>, body: Sent) -> Request<Sent> {
    let request = Request::post(format!("{}{path}", pair.ingest[0].url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let token = token.map(|tenant| format!("Bearer {}", pair.token(tenant)));
    token
        .into_iter()
        .fold(request, |request, token| request.header("authorization", token))
        .body(body)
        .unwrap()
}

async fn answer(sender: &SendRequest<Sent>, request: Request<Sent>) -> Response<Incoming> {
    timeout(PATIENCE, sender.clone().send_request(request)).await.expect("an answer").unwrap()
}

/// The next message of an answer, or its end.
async fn next(answer: &mut Response<Incoming>) -> Result<Bytes, Status> {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return Err(status);
    }
    let frame = timeout(PATIENCE, answer.body_mut().frame()).await.expect("a frame").unwrap().unwrap();
    match frame.into_data() {
        Ok(data) => Ok(data),
        Err(frame) => Err(Status::from_header_map(frame.trailers_ref().unwrap()).unwrap()),
    }
}

#[tokio::test]
async fn health_checks_that_are_never_complete_leave_room_for_bodies() {
    const CALLS: usize = 600;
    let pair = with("body-bytes-in-flight-max", "33554432").admin().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let (sender, _connection) = connect(&pair, WINDOW_BYTES).await;
    // Each as large as 64 KiB, but for its last byte: together more than there is room for.
    let bytes = framed(&of_service(65_532));
    let bytes = bytes.slice(..bytes.len() - 1);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let (sender, request) = (sender.clone(), of_rpc(&pair, CHECK, None, begun(bytes.clone())));
        calls.spawn(async move { sender.clone().send_request(request).await });
    }
    eventually("the end of the calls, or of the room", || {
        while calls.try_join_next().is_some() {}
        let all_ended = calls.is_empty();
        let admin = pair.ingest[0].admin();
        async move {
            let taken = scrape(admin).await.sum("sluice_body_bytes_in_flight", &[]);
            (all_ended || taken > 33_500_000.0).then_some(())
        }
    })
    .await;
    let said = publish_one(&acme, json("plain", &format!("\"{}\"", "x".repeat(10_000)))).await;
    assert_eq!(said.outcome(), Outcome::Success);
}

#[tokio::test]
async fn a_health_check_has_up_to_4_kib() {
    let pair = Pair::start().await;
    let (sender, _connection) = connect(&pair, WINDOW_BYTES).await;
    for (message, expected) in
        [(of_service(4093), Code::NotFound), (of_service(4094), Code::ResourceExhausted)]
    {
        let mut answer = answer(&sender, of_rpc(&pair, CHECK, None, all(framed(&message)))).await;
        assert_eq!(next(&mut answer).await.unwrap_err().code(), expected, "{} bytes", message.len());
    }
}

#[tokio::test]
async fn a_reflection_stream_that_nobody_reads_loses_its_connection() {
    let pair = with("answer-pause-max-seconds", "1").start().await;
    let (sender, connection) = connect(&pair, 0).await;
    let unread = answer(&sender, of_rpc(&pair, REFLECT, None, all(framed(&list_services())))).await;
    assert_eq!(unread.status(), 200);
    timeout(PATIENCE, connection).await.expect("the end").unwrap().ok();
    assert!(unread.into_body().collect().await.is_err());
}

#[tokio::test]
async fn who_watches_health_and_reads_is_not_cut_off() {
    let pair = with("answer-pause-max-seconds", "1").start().await;
    let (sender, watching) = connect(&pair, WINDOW_BYTES).await;
    let mut watch = answer(&sender, of_rpc(&pair, WATCH, None, all(framed(&WHOLE)))).await;
    next(&mut watch).await.unwrap();
    // One that began later and does not read has ended by then.
    let (unreading, connection) = connect(&pair, 0).await;
    let _unread = answer(&unreading, of_rpc(&pair, WATCH, None, all(framed(&WHOLE)))).await;
    timeout(PATIENCE, connection).await.expect("the end").unwrap().ok();
    assert!(watch.body_mut().frame().now_or_never().is_none() && !watching.is_finished());
}

#[tokio::test]
async fn streams_without_a_token_end_with_their_connection() {
    let pair = with("connection-age-max-seconds", "1").start().await;
    for (path, message) in [(WATCH, WHOLE.to_vec()), (REFLECT, list_services())] {
        let (sender, _connection) = connect(&pair, WINDOW_BYTES).await;
        let body = if path == WATCH { all(framed(&message)) } else { begun(framed(&message)) };
        let mut stream = answer(&sender, of_rpc(&pair, path, None, body)).await;
        next(&mut stream).await.unwrap();
        let (code, reason, _) = told(&next(&mut stream).await.unwrap_err());
        assert_eq!((code, &*reason), (Code::Unavailable, "STREAM_ENDING"), "{path}");
    }
}

#[tokio::test]
async fn health_and_reflection_answer_while_all_places_of_callers_are_taken() {
    let pair = with("requests-in-flight-max", "2").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let _first = Stream::open(&acme).await;
    eventually("a place", || async { call(&globex).await.ok() }).await;
    let _second = Stream::open(&globex).await;
    assert_eq!(told(&call(&acme).await.unwrap_err()).1, "OVERLOADED");
    let (sender, _connection) = connect(&pair, WINDOW_BYTES).await;
    for (path, message) in [(CHECK, WHOLE.to_vec()), (REFLECT, list_services())] {
        let mut answer = answer(&sender, of_rpc(&pair, path, None, all(framed(&message)))).await;
        next(&mut answer).await.unwrap_or_else(|status| panic!("{path}: {status}"));
    }
}

/// So many streams of an rpc are open without a token, and no more; of those with one, and
/// of other rpcs, some more are.
async fn has_places(path: &str, message: &[u8], places: usize, other: &str, asked: &[u8]) {
    let pair = with("streams-per-connection-max", "4096").start().await;
    let (sender, _connection) = connect(&pair, WINDOW_BYTES).await;
    let open = async |path: &str, message: &[u8], token| {
        let mut stream = answer(&sender, of_rpc(&pair, path, token, begun_or_all(path, message))).await;
        next(&mut stream).await.map(|_| stream)
    };
    let mut streams = Vec::new();
    for _ in 0..places {
        // Those that asked whether it serves may not have gone yet.
        streams.push(eventually("a place", || async { open(path, message, None).await.ok() }).await);
    }
    let refused = open(path, message, None).await.unwrap_err();
    assert_eq!(told(&refused).1, "OVERLOADED");
    open(path, message, Some(Tenant::Acme)).await.expect("a place of its own");
    open(other, asked, None).await.expect("another kind of place");
    call(&pair.clients(Tenant::Acme)).await.unwrap();
}

/// Reflection goes on for as long as its caller asks.
fn begun_or_all(path: &str, message: &[u8]) -> Sent {
    if path == REFLECT { begun(framed(message)) } else { all(framed(message)) }
}

#[tokio::test]
async fn so_many_reflection_streams_are_open_and_no_more() {
    has_places(REFLECT, &list_services(), 32, CHECK, &WHOLE).await;
}

#[tokio::test]
async fn so_many_watch_health_and_no_more() {
    has_places(WATCH, &WHOLE, 512, REFLECT, &list_services()).await;
}
