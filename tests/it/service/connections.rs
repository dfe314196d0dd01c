//! How long connections live, and what ends them: age, silence, and answers that
//! nobody reads. What is under way on them ends well, or is cut off in time.

use std::{convert::Infallible, future::Future, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Body,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice::connection::Clients;
use sluice_proto::ingest::v1::Outcome;
use sluice_tests::{Pair, Service, Tenant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};
use tonic::{Code, Status};

use crate::{
    files::support::*,
    http::support::{Http, PATIENCE},
    ingest::streams::Stream,
    service::serving_limits::{call, told, with},
    support::*,
};

type Connection = JoinHandle<hyper::Result<()>>;

/// An HTTP/2 connection on which nothing is asked.
pub async fn connect<B>(pair: &Pair, window_bytes: u32) -> (SendRequest<B>, Connection)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TokioIo::new(TcpStream::connect(pair.ingest[0].address()).await.unwrap());
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window_bytes)
        .handshake(stream)
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// Asks for what is not there. Nothing of the answer but its head can be sent without a window.
async fn ask(pair: &Pair, sender: &mut SendRequest<Full<Bytes>>) -> http::Response<hyper::body::Incoming> {
    let url = format!("{}/nothing", pair.ingest[0].url());
    let request = http::Request::get(url).body(Full::default()).unwrap();
    sender.send_request(request).await.unwrap()
}

/// Ends when the connection of an answer of this status, which nobody reads, has ended, and
/// the answer with it.
async fn unread_answer(pair: &Pair, status: u16) -> impl Future<Output = ()> + use<> {
    let (mut sender, connection) = connect(pair, 0).await;
    let answer = ask(pair, &mut sender).await;
    assert_eq!(answer.status(), status);
    async move {
        connection.await.unwrap().ok();
        assert!(answer.into_body().collect().await.is_err());
        drop(sender);
    }
}

/// A stream is told that its connection has grown old.
async fn grows_old(stream: &mut Stream) {
    let end = stream.answer().await.unwrap_err();
    assert_eq!(told(&end), (Code::Unavailable, "STREAM_ENDING".into(), Some(Duration::ZERO)));
}

/// A file that is begun on a young connection and ended on an old one.
async fn across_the_age(pair: &Pair, acme: &Clients) -> Result<(), Status> {
    put(acme, definition("plain")).await;
    let mut stream = Stream::open(acme).await;
    let sending = Sending::begin(acme, file("plain"));
    grows_old(&mut stream).await;
    sending.try_chunk("the end").await;
    let said = sending.end().await?;
    let id = said.outcome.unwrap().ingest_id;
    adds_up(pair, acme, &[(id, "the end".into())].into()).await;
    Ok(())
}

#[tokio::test]
async fn a_file_outlives_the_age_of_its_connection_by_the_grace_and_no_more() {
    let old = || with("connection-age-max-seconds", "1");
    let pair = old().start().await;
    across_the_age(&pair, &pair.clients(Tenant::Acme)).await.unwrap();
    let pair = old().flag(Service::Ingest, "connection-age-grace-seconds", "0").start().await;
    across_the_age(&pair, &pair.clients(Tenant::Acme)).await.unwrap_err();
}

#[tokio::test]
async fn who_does_not_read_an_answer_loses_an_old_connection_too() {
    let pair = with("answer-pause-max-seconds", "2")
        .flag(Service::Ingest, "connection-age-max-seconds", "1")
        .start()
        .await;
    let unread = unread_answer(&pair, 404).await;
    tokio::time::timeout(PATIENCE * 2, unread).await.expect("the end");
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends() {
    let pair = with("keepalive-interval-seconds", "1")
        .flag(Service::Ingest, "keepalive-timeout-seconds", "1")
        .start()
        .await;
    let (mut sender, asked) = connect(&pair, 1).await;
    ask(&pair, &mut sender).await;
    // The beginning of HTTP/2's preface; and all of it, by one who answers pings.
    let mut begun = TcpStream::connect(pair.ingest[0].address()).await.unwrap();
    begun.write_all(b"PRI * HT").await.unwrap();
    let (_sender, silent) = connect::<Full<Bytes>>(&pair, 1).await;
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, begun.read_to_end(&mut said)).await.expect("the end").ok();
    tokio::time::timeout(PATIENCE, silent).await.expect("the end").unwrap().ok();
    assert!(!asked.is_finished() && !sender.is_closed());
}

#[tokio::test]
async fn who_does_not_read_an_answer_loses_the_connection_and_who_has_none_to_read_does_not() {
    let pair = with("answer-pause-max-seconds", "1").start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let mut idle = Stream::open(&acme).await;
    idle.send(request(vec![json("plain", "1")])).await;
    assert_eq!(idle.outcomes().await, [Outcome::Success]);
    let unread = unread_answer(&pair, 404).await;
    tokio::time::timeout(PATIENCE, unread).await.expect("the end");
    idle.send(request(vec![json("plain", "2")])).await;
    assert_eq!(idle.outcomes().await, [Outcome::Success]);
}

#[tokio::test]
async fn who_does_not_read_a_refusal_loses_the_connection_too() {
    let pair = with("requests-in-flight-max", "1")
        .flag(Service::Ingest, "answer-pause-max-seconds", "1")
        .start()
        .await;
    let _all_places = Stream::open(&pair.clients(Tenant::Acme)).await;
    let unread = unread_answer(&pair, 429).await;
    tokio::time::timeout(PATIENCE, unread).await.expect("the end");
}

#[tokio::test]
async fn unread_answers_to_callers_without_a_token_leave_places_for_those_with_one() {
    let pair = with("requests-in-flight-max", "4").start().await;
    let (mut sender, _connection) = connect(&pair, 0).await;
    let unread = [ask(&pair, &mut sender).await, ask(&pair, &mut sender).await];
    assert!(unread.iter().all(|answer| answer.status() == 404));
    // Of four places two are left, and they have two.
    assert_eq!(ask(&pair, &mut sender).await.status(), 429);
    let http = Http::ingest(&pair, Tenant::Globex);
    assert_eq!(http.get("/aecontent/v1/globex/observations").await.status, 200);
    call(&pair.clients(Tenant::Acme)).await.unwrap();
}

#[tokio::test]
async fn an_old_connection_takes_no_more_requests_and_ends_its_streams_when_they_are_answered() {
    let pair = with("connection-age-max-seconds", "1").start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let mut stream = Stream::open(&acme).await;
    let (mut all, mut sent) = (Contents::new(), 0);
    let end = loop {
        let observation = json("plain", &sent.to_string());
        if stream.requests.send(request(vec![observation.clone()])).await.is_err() {
            break stream.answer().await.unwrap_err();
        }
        match stream.answer().await {
            Ok(answer) => all.extend(accepted(&[observation], &answer.observations)),
            Err(end) => break end,
        }
        sent += 1;
    };
    assert_eq!(told(&end), (Code::Unavailable, "STREAM_ENDING".into(), Some(Duration::ZERO)));
    // What was not answered was not taken either; the next call finds a new connection.
    assert_eq!(all.len(), sent);
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_cut_off_and_who_does_is_not() {
    let pair = with("keepalive-interval-seconds", "1")
        .flag(Service::Ingest, "keepalive-timeout-seconds", "1")
        .start()
        .await;
    let (mut sender, alive) = connect(&pair, 1).await;
    ask(&pair, &mut sender).await;
    // HTTP/2's preface and empty settings, and then nothing, whatever is asked.
    let mut silent = TcpStream::connect(pair.ingest[0].address()).await.unwrap();
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, silent.read_to_end(&mut said)).await.expect("the end").ok();
    assert!(!alive.is_finished() && !sender.is_closed());
}
