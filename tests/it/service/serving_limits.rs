//! The limits on what callers take up beside their bodies: each refuses at once,
//! says when to come again, and lets in whatever stays below it.

use std::time::Duration;

use sluice::connection::{Clients, is_serving};
use sluice_proto::{
    ingest::v1::{ListDefinitionsRequest, Outcome},
    results::v1::ListResultsRequest,
};
use sluice_tests::{DEADLINE, Pair, PairBuilder, Service, Tenant, eventually};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::{Code, Request, Status, metadata::MetadataValue};
use tonic_types::StatusExt as _;

use crate::{
    http::support::{Answer, Http},
    ingest::streams::Stream,
    support::*,
    telemetry::exposition::scrape,
};

pub fn with(name: &str, value: &str) -> PairBuilder {
    builder().flag(Service::Ingest, name, value)
}

pub async fn call(clients: &Clients) -> Result<(), Status> {
    let request = ListDefinitionsRequest::default();
    clients.definitions.clone().list_definitions(request).await.map(drop)
}

/// Code, reason, and when to come again.
pub fn told(status: &Status) -> (Code, String, Option<Duration>) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (status.code(), reason, details.retry_info().and_then(|info| info.retry_delay))
}

#[tokio::test]
async fn so_many_requests_are_in_flight_and_no_more() {
    let pair = with("requests-in-flight-max", "2").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let first = Stream::open(&acme).await;
    // The second place is free.
    eventually("a place", || async { call(&globex).await.ok() }).await;
    let _second = Stream::open(&globex).await;
    let refused = call(&acme).await.unwrap_err();
    assert_eq!(told(&refused), (Code::ResourceExhausted, "OVERLOADED".into(), Some(Duration::from_secs(1))));
    // Over all connections, callers and surfaces, but not for those who ask whether it serves.
    let refused = Http::ingest(&pair, Tenant::Globex).get("/aecontent/v1/globex/observations").await;
    assert_eq!(refused.error(), (429, "limit-exceeded".into()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(is_serving(&pair.ingest[0].url()).await);
    drop(first);
    eventually("a place", || async { call(&acme).await.ok() }).await;
}

#[tokio::test]
async fn an_organisation_has_up_to_as_many_requests_in_flight_as_are_free() {
    let pair = with("requests-in-flight-max", "4").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let _first = Stream::open(&acme).await;
    eventually("a place", || async { call(&acme).await.ok() }).await;
    let second = Stream::open(&acme).await;
    // Of four places two are left, and it has two.
    let refused = call(&acme).await.unwrap_err();
    assert_eq!(told(&refused), (Code::ResourceExhausted, "OVERLOADED".into(), Some(Duration::from_secs(1))));
    let http = Http::ingest(&pair, Tenant::Acme);
    assert_eq!(http.get("/aecontent/v1/acme/observations").await.error(), (429, "limit-exceeded".into()));
    call(&globex).await.unwrap();
    drop(second);
    eventually("a place", || async { call(&acme).await.ok() }).await;
}

#[tokio::test]
async fn so_many_connections_are_open_and_no_more() {
    let pair = with("connections-max", "2").admin().start().await;
    let (first, second) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Acme));
    // Those that asked whether it serves may not have gone yet.
    eventually("a place", || async { call(&first).await.ok() }).await;
    eventually("a place", || async { call(&second).await.ok() }).await;
    let refused = async || {
        let seen = scrape(pair.ingest[0].admin()).await;
        seen.sum("sluice_refused_total", &[("limit", "connections_max")])
    };
    let before = refused().await;
    let mut third = TcpStream::connect(pair.ingest[0].address()).await.unwrap();
    let end = tokio::time::timeout(DEADLINE, third.read(&mut [0])).await.expect("its end");
    assert!(matches!(end, Ok(0) | Err(_)), "it is closed");
    // And not because it said nothing for too long.
    assert_eq!(refused().await, before + 1.0);
    assert!(call(&first).await.is_ok() && call(&second).await.is_ok(), "those that are open stay");
    drop(first);
    eventually("a place", || async { call(&pair.clients(Tenant::Acme)).await.ok() }).await;
}

#[tokio::test]
async fn so_many_requests_are_on_one_connection_and_the_others_wait() {
    let pair = with("streams-per-connection-max", "2").start().await;
    let (acme, other) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Acme));
    call(&acme).await.unwrap();
    let (first, _second) = (Stream::open(&acme).await, Stream::open(&acme).await);
    let third = tokio::spawn({
        let acme = acme.clone();
        async move { call(&acme).await }
    });
    for _ in 0..20 {
        call(&other).await.unwrap();
    }
    assert!(!third.is_finished(), "it waits for a place on its connection");
    drop(first);
    third.await.unwrap().unwrap();
}

/// Asks with headers of so many bytes together, as RFC 9113 counts them: in HTTP/2 those of
/// the request's line are among them.
async fn with_headers(http: &Http, bytes: usize) -> Answer {
    const PATH: &str = "/aecontent/v1/acme/observations";
    let (request, authority) = (http.request(http::Method::GET, PATH), http.address.to_string());
    let counted = |name: &str, value: &str| name.len() + value.len() + 32;
    let line = match http.version {
        http::Version::HTTP_2 => {
            counted(":method", "GET")
                + counted(":scheme", "http")
                + counted(":authority", &authority)
                + counted(":path", PATH)
        }
        _ => counted("host", &authority),
    };
    let token = request.headers_ref().unwrap()["authorization"].to_str().unwrap();
    let others = line + counted("authorization", token) + counted("x-padding", "");
    let padding = "x".repeat(bytes - others);
    http.send(request.header("x-padding", padding), "").await
}

#[tokio::test]
async fn headers_have_up_to_so_many_bytes() {
    let pair = with("header-list-bytes-max", "4096").start().await;
    let acme = pair.clients(Tenant::Acme);
    let grpc = async |bytes: usize| {
        let mut request = Request::new(ListDefinitionsRequest::default());
        let value: MetadataValue<_> = "x".repeat(bytes).parse().unwrap();
        request.metadata_mut().insert("x-padding", value);
        acme.definitions.clone().list_definitions(request).await.map(drop)
    };
    let mut http = Http::ingest(&pair, Tenant::Acme);
    grpc(3000).await.unwrap();
    assert!(grpc(4100).await.is_err());
    assert_eq!(with_headers(&http, 4096).await.status, 200);
    assert_eq!(with_headers(&http, 4097).await.error(), (413, "limit-exceeded".into()));
    http.version = http::Version::HTTP_2;
    assert_eq!(with_headers(&http, 4096).await.status, 200);
    assert_eq!(with_headers(&http, 4097).await.status, 431);
    // Nobody else's requests suffer.
    call(&acme).await.unwrap();
}

#[tokio::test]
async fn an_organisation_that_sends_too_much_is_told_when_to_come_again() {
    let pair = builder()
        .flag(Service::Results, "organisation-requests-per-second-max", "1")
        .flag(Service::Results, "organisation-requests-burst-max", "5")
        .start()
        .await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let list = async |clients: &Clients, organisation: &str| {
        let request =
            ListResultsRequest { organisation: organisation.into(), ..ListResultsRequest::default() };
        clients.results.clone().list_results(request).await.map(drop)
    };
    for _ in 0..5 {
        list(&acme, "").await.unwrap();
    }
    let mut refused = None;
    for _ in 0..100 {
        refused = refused.or(list(&acme, "").await.err());
    }
    let (code, reason, delay) = told(&refused.expect("more than one a second"));
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "RATE_EXCEEDED"));
    assert!(delay.is_some_and(|delay| delay <= Duration::from_secs(1)), "{delay:?}");
    // Another one has a bucket of its own; the operator's tokens have none.
    list(&globex, "").await.unwrap();
    let admin = pair.clients(Tenant::Admin);
    for _ in 0..20 {
        list(&admin, "acme").await.unwrap();
    }
    // Both surfaces take from one bucket.
    let http = Http::results(&pair, Tenant::Acme);
    let mut refused = None;
    for _ in 0..100 {
        refused = refused.or(Some(http.get("/results").await).filter(|answer| answer.status != 200));
    }
    let refused = refused.expect("more than one a second");
    assert_eq!(refused.error(), (429, "limit-exceeded".into()));
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_json_content_goes_so_far_and_no_further() {
    let pair = with("json-depth-max", "3")
        .flag(Service::Ingest, "json-keys-max", "4")
        .flag(Service::Ingest, "json-string-bytes-max", "5")
        .start()
        .await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let at_the_limits = ["[[[]]]", r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"12345":"12345"}"#];
    let beyond = [
        ("[[[[]]]]", "nested deeper than 3 levels at /0/0/0 (byte 3)"),
        (r#"{"a":1,"b":{"c":2,"d":3,"e":4}}"#, "more than 4 keys at /b (byte 24)"),
        (r#"{"a":"123456"}"#, "a string of more than 5 bytes at /a (byte 12)"),
    ];
    let texts = at_the_limits.into_iter().chain(beyond.map(|(text, _)| text));
    let said = publish(&acme, texts.map(|text| json("plain", text)).collect()).await;
    for (said, text) in said.iter().zip(at_the_limits) {
        assert_eq!(said.outcome(), Outcome::Success, "{text}: {said:?}");
    }
    for (said, (text, details)) in said[3..].iter().zip(beyond) {
        assert_eq!((said.reason.as_str(), said.details.as_str()), ("TOO_LARGE", details), "{text}");
    }
}

#[tokio::test]
async fn what_found_no_place_is_counted() {
    let pair = Pair::builder()
        .admin()
        .flag(Service::Ingest, "requests-in-flight-max", "1")
        .flag(Service::Ingest, "header-list-bytes-max", "4096")
        .start()
        .await;
    let http = Http::ingest(&pair, Tenant::Acme);
    let _stream = Stream::open(&pair.clients(Tenant::Acme)).await;
    assert_eq!(http.get("/aecontent/v1/acme/observations").await.status, 429);
    let padded = http.request(http::Method::GET, "/openapi.json").header("x-padding", "x".repeat(4100));
    assert_eq!(http.send(padded, "").await.status, 413);
    let seen = scrape(pair.ingest[0].admin()).await;
    let refused = |limit| seen.sum("sluice_refused_total", &[("limit", limit)]);
    assert_eq!(
        ["requests_in_flight_max", "header_list_bytes_max", "connections_max"].map(refused),
        [1.0, 1.0, 0.0]
    );
    assert!(seen.sum("sluice_connections_open", &[]) >= 1.0);
}
