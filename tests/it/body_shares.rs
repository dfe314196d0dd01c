//! The memory for bodies is shared between organisations: what is sent slowly is at nobody
//! else's cost.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Pair, Tenant, eventually};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::{files_support::MIB, support::*, telemetry::exposition::scrape};

const PUBLISH: &str = "/sluice.ingest.v1.IngestService/PublishObservations";

/// Clients of another organisation, with its definition.
async fn globex(pair: &Pair) -> Clients {
    let globex = pair.clients(Tenant::Globex);
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    globex
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
    let held = async || scrape(pair.ingest[0].admin()).await.sum("sluice_body_bytes_in_flight", &[]);
    let arrived = (empty.len() - 1) as f64;
    eventually("all but its end", || async { (held().await >= arrived).then_some(()) }).await;
    let large = vec![data("plain", format!("\"{}\"", "x".repeat(MIB - 2))); 4];
    let published = timeout(Duration::from_secs(3), publish(&globex, large)).await;
    assert_eq!(kinds(&published.expect("an answer in time")), [Outcome::Success; 4]);
    assert!(!sending.is_finished());
    sending.abort();
}
