//! The memory for bodies is shared between organisations: neither what is sent slowly, nor
//! what open streams keep, is at anybody else's cost.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, FileMetadata, Observation, Outcome};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{files::support::*, ingest::streams::Stream, support::*, telemetry::exposition::scrape};

const PUBLISH: &str = "/sluice.ingest.v1.IngestService/PublishObservations";
/// Files that are taken at the same time; and how many of them the first organisation may
/// have, the next one, and so on: half of what is left.
const FILES_MAX: usize = 64;
const FILES: [usize; 4] = [32, 16, 8, 4];

/// Clients of another organisation, with its definition.
async fn globex(pair: &Pair) -> Clients {
    let globex = pair.clients(Tenant::Globex);
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    globex
}

/// How many bytes of bodies there are.
async fn held(pair: &Pair) -> f64 {
    scrape(pair.ingest[0].admin()).await.sum("sluice_body_bytes_in_flight", &[])
}

/// Sends a message, but not its last byte, and goes on for as long as it is not aborted.
fn without_end(address: SocketAddr, token: &str, message: &[u8]) -> JoinHandle<()> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let sent = Bytes::from([&[0], &length[..], &message[..message.len() - 1]].concat());
    let frame = Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(sent));
    let body = StreamBody::new(stream::iter([frame]).chain(stream::pending()));
    let request = http::Request::post(format!("http://{address}{PUBLISH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .unwrap();
    tokio::spawn(async move {
        let connection = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), connection);
        let (mut sender, connection) = handshake.await.unwrap();
        let _connection = tokio::spawn(connection);
        let _answer = sender.send_request(request).await;
    })
}

#[tokio::test]
async fn a_message_without_its_end_takes_no_room_to_be_decoded() {
    let pair = builder().admin().start().await;
    let globex = globex(&pair).await;
    // 95,000 empty observations: decoded, almost all there is room for.
    let empty = [0x1a, 0].repeat(95_000);
    let sending = without_end(pair.ingest[0].address(), pair.token(Tenant::Acme), &empty);
    let arrived = (empty.len() - 1) as f64;
    eventually("all but its end", || async { (held(&pair).await >= arrived).then_some(()) }).await;
    let large = vec![data("plain", format!("\"{}\"", "x".repeat(MIB - 2))); 4];
    assert_eq!(kinds(&publish(&globex, large).await), [Outcome::Success; 4]);
    assert!(!sending.is_finished());
    sending.abort();
}

#[tokio::test]
async fn idle_streams_of_one_end_no_file_of_another() {
    let (_intake, pair, acme) = start().await;
    let globex = globex(&pair).await;
    let mut idle = Vec::new();
    for observations in [23_000, 23_000, 3_500] {
        let mut stream = Stream::open(&acme).await;
        stream.send(request(vec![Observation::default(); observations])).await;
        assert!(stream.answer().await.unwrap().status.is_some(), "too many observations");
        idle.push(stream);
    }
    let said = outcome(&globex, file("plain"), &vec![7; 3 * MIB]).await;
    assert_eq!(said.outcome(), Outcome::Success);
}

/// Begins some files of an organisation, each with a chunk.
async fn begin_all(clients: &Clients, organisation: &str, files: usize) -> Vec<Sending> {
    let mut all = Vec::new();
    for _ in 0..files {
        let file = FileMetadata { organisation: organisation.into(), ..file("plain") };
        let sending = Sending::begin(clients, file);
        sending.chunk(vec![7; MIB]).await;
        all.push(sending);
    }
    all
}

#[tokio::test]
async fn as_many_files_as_there_may_be_have_chunks_as_large_as_they_may_be() {
    let files = FILES_MAX.to_string();
    let (intake, pair, acme) = start_with(builder().flag(Service::Ingest, "files-max", &files)).await;
    intake.goes(Manner::Swallow);
    let (globex, admin) = (globex(&pair).await, pair.clients(Tenant::Admin));
    let mut all = Vec::new();
    for (organisation, files) in ["initech", "umbrella"].into_iter().zip(FILES) {
        put(&admin, Definition { organisation: organisation.into(), ..definition("plain") }).await;
        all.extend(begin_all(&admin, organisation, files).await);
        intake.until("all of them", |told| (told.begun.len() == all.len()).then_some(())).await;
    }
    all.extend(begin_all(&acme, "acme", FILES[2]).await);
    intake.until("all of them", |told| (told.begun.len() == all.len()).then_some(())).await;
    all.extend(begin_all(&globex, "globex", FILES[3]).await);
    intake.until("a chunk of each", |told| (told.bytes == all.len() * MIB).then_some(())).await;
    for sending in &all {
        sending.try_chunk(vec![8; MIB]).await;
    }
    for sending in all {
        let said = sending.end().await.unwrap();
        assert_eq!((said.outcome.unwrap().outcome(), said.size), (Outcome::Success, 2 * MIB as u64));
    }
}

#[tokio::test]
async fn files_that_wait_for_their_storage_take_no_room_from_requests() {
    let (intake, pair, acme) = start_with(builder().admin()).await;
    intake.goes(Manner::Hang);
    let waiting = begin_all(&acme, "acme", FILES[0]).await;
    for sending in &waiting {
        // More than goes into the storage's window.
        sending.chunk(vec![8; MIB]).await;
        sending.chunk(vec![9; MIB]).await;
    }
    intake.until("all of them", |told| (told.begun.len() == FILES[0]).then_some(())).await;
    eventually("no room taken", || async { (held(&pair).await == 0.0).then_some(()) }).await;
    assert!(waiting.iter().all(|file| !file.publishing.is_finished()));
}
