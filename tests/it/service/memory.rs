//! Memory stays bounded, whatever callers send at the same time: two hundred of
//! them, 16 MiB each, at one process. What finds no room is refused with the time
//! to come again, and afterwards the service is as before.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sluice_proto::{
    ingest::v1::{Outcome, PublishObservationsRequest},
    results::v1::{DownloadResultRequest, GetResultRequest, ListResultsRequest},
};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tonic::{Code, Status, codec::CompressionEncoding};
use tonic_types::StatusExt;

use crate::{http::support::exchange, support::*};

const MIB: usize = 1024 * 1024;
const CALLERS: usize = 200;
/// What a service with the limits it has by default may take at most.
const RESIDENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// All of it, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(120);
const GET: &str = "/sluice.results.v1.ResultsService/GetResult";
const DOWNLOAD: &str = "/sluice.results.v1.ResultsService/DownloadResult";
const LIST: &str = "/sluice.results.v1.ResultsService/ListResults";
const PUBLISH: &str = "/sluice.ingest.v1.IngestService/PublishObservations";

/// The most memory that a process has ever had resident.
fn resident_bytes_max(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the high-water mark");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A request of almost 16 MiB.
fn large() -> PublishObservationsRequest {
    request(vec![data("plain", format!("\"{}\"", "x".repeat(MIB - 2))); 15])
}

fn framed(message: &impl Message) -> Bytes {
    let length = u32::try_from(message.encoded_len()).unwrap();
    [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat().into()
}

async fn connect(address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn of_rpc(address: SocketAddr, path: &str, token: &str, framed: Bytes) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(framed))
        .unwrap()
}

/// Calls an rpc over a connection of its own, without copying what is sent.
async fn call(address: SocketAddr, path: &str, token: &str, framed: Bytes) -> Status {
    let request = of_rpc(address, path, token, framed);
    let (head, body) = connect(address).await.send_request(request).await.expect("an answer").into_parts();
    let status = |headers: &HeaderMap| Status::from_header_map(headers);
    match status(&head.headers) {
        Some(status) => status,
        None => {
            let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
            status(&trailers).unwrap()
        }
    }
}

/// The pair, and clients; the definition `plain` is there.
async fn start() -> (Pair, sluice::connection::Clients) {
    let pair = builder().processes().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (pair, acme)
}

#[tokio::test]
async fn two_hundred_callers_of_16_mebibytes_stay_below_the_limit() {
    let (pair, acme) = start().await;
    let (address, pid) = (pair.ingest[0].address(), pair.ingest[0].pid().unwrap());
    let body = framed(&large());
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (body, token) = (body.clone(), pair.token(Tenant::Acme).to_owned());
        calls.spawn(async move { call(address, PUBLISH, &token, body).await });
    }
    let answers = timeout(PATIENCE, calls.join_all()).await.expect("answers in time");
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.code() == Code::Ok);
    assert!(!taken.is_empty(), "some found room");
    assert!(!refused.is_empty(), "more was sent than there is room for");
    for answer in refused {
        let details = answer.get_error_details();
        assert_eq!(answer.code(), Code::ResourceExhausted, "{answer:?}");
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert!(details.retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()));
    }
    let resident = resident_bytes_max(pid);
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB, {} taken", resident / MIB as u64, taken.len());
    // Nothing is held any more: a whole request finds room.
    let again = || async {
        let answer = acme.ingest.clone().publish_observations(large()).await.ok()?.into_inner();
        answer.observations.iter().all(|said| said.outcome() == Outcome::Success).then_some(())
    };
    eventually("a large request that finds room", again).await;
    drained(&pair).await;
}

#[tokio::test]
async fn so_do_as_many_over_http() {
    let (pair, acme) = start().await;
    let (address, pid) = (pair.ingest[0].address(), pair.ingest[0].pid().unwrap());
    let one = format!(r#"{{"path":"plain","text":"{}"}}"#, "x".repeat(MIB - 100));
    let body = Bytes::from(format!("[{}]", vec![one; 15].join(",")));
    let mut calls = JoinSet::new();
    for turn in 0..CALLERS {
        let version = if turn % 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
        let request = Request::builder()
            .method(Method::POST)
            .uri("/aepublish/v1/acme/observation")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", pair.token(Tenant::Acme)))
            .body(Full::new(body.clone()))
            .unwrap();
        calls.spawn(async move { exchange(address, version, request).await.expect("an answer") });
    }
    let answers = timeout(PATIENCE, calls.join_all()).await.expect("answers in time");
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!taken.is_empty() && !refused.is_empty(), "{} taken", taken.len());
    let no_room = (429, "limit-exceeded".into());
    assert!(refused.iter().any(|answer| answer.error() == no_room));
    for answer in refused {
        // On a busy machine so many bodies don't all come in time.
        assert!([&no_room, &(503, "unavailable".into())].contains(&&answer.error()), "{:?}", answer.error());
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let resident = resident_bytes_max(pid);
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB, {} taken", resident / MIB as u64, taken.len());
    assert_eq!(publish_one(&acme, json("plain", "1")).await.outcome(), Outcome::Success);
    drained(&pair).await;
}

#[tokio::test]
async fn small_requests_that_decode_to_large_ones_are_refused_before_that() {
    let (pair, acme) = start().await;
    let (address, pid) = (pair.ingest[0].address(), pair.ingest[0].pid().unwrap());
    // Eight million empty observations, and a mebibyte that becomes a gibibyte.
    let empty = [&[0][..], &(15 * MIB as u32).to_be_bytes(), &[0x1a, 0].repeat(15 * MIB / 2)].concat();
    for _ in 0..4 {
        let status = call(address, PUBLISH, pair.token(Tenant::Acme), empty.clone().into()).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = acme.ingest.clone().send_compressed(encoding);
        let bomb = request(vec![json("plain", &" ".repeat(100 * MIB))]);
        let status = client.publish_observations(bomb).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let fits = client.publish_observations(large()).await.unwrap().into_inner();
        assert_eq!(kinds(&fits.observations), [Outcome::Success; 15]);
    }
    let resident = resident_bytes_max(pid);
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB", resident / MIB as u64);
}

/// Calls results as many times at once, over one connection, and reads no answer. Says
/// how many found room; the others are told to come again.
async fn unread(pair: &Pair, path: &str, message: &impl Message) -> (usize, Vec<Response<Incoming>>) {
    let address = pair.results[0].address();
    let sender = connect(address).await;
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let request = of_rpc(address, path, pair.token(Tenant::Acme), framed(message));
        let mut sender = sender.clone();
        calls.spawn(async move { sender.send_request(request).await.expect("an answer") });
    }
    let answers = timeout(PATIENCE, calls.join_all()).await.expect("answers in time");
    let refused: Vec<Status> =
        answers.iter().filter_map(|answer| Status::from_header_map(answer.headers())).collect();
    for answer in &refused {
        let details = answer.get_error_details();
        assert_eq!(answer.code(), Code::ResourceExhausted, "{answer:?}");
        assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
        assert!(details.retry_info().unwrap().retry_delay.is_some_and(|delay| !delay.is_zero()));
    }
    (CALLERS - refused.len(), answers)
}

#[tokio::test]
async fn so_do_as_many_who_read_no_answer() {
    let (pair, acme) = start().await;
    let said = acme.ingest.clone().publish_observations(large()).await.unwrap().into_inner();
    drained(&pair).await;
    let id = said.observations[0].ingest_id.clone();
    let list = ListResultsRequest { page_size: 1000, data_bytes_max: 16 << 20, ..Default::default() };
    let download = DownloadResultRequest { id: id.clone(), ..Default::default() };
    let (taken, pages) = unread(&pair, LIST, &list).await;
    assert!((1..=4).contains(&taken), "{taken} of 15 MiB each");
    // What is small is answered meanwhile.
    acme.results.clone().get_result(GetResultRequest { id, ..Default::default() }).await.unwrap();
    // Nothing is held any more once the callers have gone.
    drop(pages);
    let again = || async {
        let page = acme.results.clone().list_results(list.clone()).await.ok()?.into_inner();
        (page.results.len() == 15).then_some(())
    };
    eventually("a page that finds room", again).await;
    let (taken, downloads) = unread(&pair, DOWNLOAD, &download).await;
    // Some are in the caller's windows.
    assert!((1..=80).contains(&taken), "{taken} of 1 MiB each");
    drop(downloads);
    eventually("a page that finds room", again).await;
    let resident = resident_bytes_max(pair.results[0].pid().unwrap());
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB", resident / MIB as u64);
}

#[tokio::test]
async fn a_smaller_limit_is_one_for_callers_and_not_for_what_is_handed_over() {
    let pair = builder()
        .flag(Service::Results, "body-bytes-in-flight-max", "33554432")
        .flag(Service::Results, "request-bytes-max", "1000")
        .start()
        .await;
    let address = pair.results[0].address();
    let message = |size: usize| framed(&GetResultRequest { id: "x".repeat(size), ..Default::default() });
    let fits = call(address, GET, pair.token(Tenant::Acme), message(997)).await;
    assert_eq!(fits.code(), Code::NotFound, "1,000 bytes");
    let larger = call(address, GET, pair.token(Tenant::Acme), message(998)).await;
    assert_eq!(larger.code(), Code::ResourceExhausted, "1,001 bytes");
    assert_eq!(larger.get_error_details().error_info().unwrap().reason, "REQUEST_TOO_LARGE");
    // What ingest hands over is not held to what its callers may send.
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let observations = vec![json("plain", &format!("\"{}\"", "x".repeat(MIB - 2))); 4];
    let said = publish(&acme, observations.clone()).await;
    drained(&pair).await;
    let sql = pair.results_database.sql().await;
    let recorded: i64 = sql.query_one("SELECT count(*) FROM result", &[]).await.unwrap().get(0);
    assert_eq!((kinds(&said), recorded), (vec![Outcome::Success; 4], 4));
}
