//! One trace from the publisher's call to the record, as a collector gets it
//! from real processes.

use std::{net::Ipv4Addr, ops::Range, slice::from_ref, time::Duration};

use futures_util::stream;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Outcome, PublicationOutcome, PublishObservationsRequest};
use sluice_tests::{Ca, Link, Pair, PairBuilder, Service, Tenant, eventually, scratch};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use super::{
    collector::{Collector, Span},
    exposition::scrape,
};
use crate::{
    files::support::{chunk_message, file, metadata_message},
    http::support::Http,
    support::*,
};

const PUBLISH: &str = "sluice.ingest.v1.IngestService/PublishObservations";
const RECORD: &str = "sluice.results.v1.ResultsIntakeService/RecordResults";
const STORE: &str = "sluice.results.v1.ResultsIntakeService/StoreFile";
/// The publisher's own span.
const CALLER: &str = "00f067aa0ba902b7";

fn traced(builder: PairBuilder, endpoint: &str) -> PairBuilder {
    let builder = builder.processes();
    builder.flag(Service::Ingest, "otlp-endpoint", endpoint).flag(Service::Results, "otlp-endpoint", endpoint)
}

async fn start(builder: PairBuilder) -> (Pair, Clients) {
    let pair = builder.start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    // From now on the definition is known, and one check is enough.
    publish_one(&acme, json("plain", "0")).await;
    (pair, acme)
}

/// A trace id of a test.
fn trace(number: u8) -> String {
    format!("{:032x}", 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4700_u128 + u128::from(number))
}

/// Publishes as part of a trace.
async fn publish_in(acme: &Clients, trace: &str, flags: &str, text: &str) {
    let publication = try_to_publish_in(acme, trace, flags, text).await;
    assert_eq!(publication.outcome(), Outcome::Success, "{}", publication.details);
}

async fn try_to_publish_in(acme: &Clients, trace: &str, flags: &str, text: &str) -> PublicationOutcome {
    let observations = vec![json("plain", text)];
    let message = PublishObservationsRequest { observations, ..PublishObservationsRequest::default() };
    let mut request = tonic::Request::new(message);
    let traceparent = format!("00-{trace}-{CALLER}-{flags}");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    let answer = acme.ingest.clone().publish_observations(request).await.unwrap().into_inner();
    answer.observations.into_iter().next().unwrap()
}

/// The second half of a trace: from the outbox to the record.
async fn is_recorded(collector: &Collector, trace: &str, commit: &Span) {
    let emit = collector.span(trace, "emit outbox").await;
    assert_eq!((emit.kind, &emit.parent), (SpanKind::Consumer, &commit.id));
    assert_eq!(emit.links, from_ref(&commit.id));
    let calls = || async {
        let found: Vec<_> =
            collector.of_trace(trace).into_iter().filter(|span| span.name == RECORD).collect();
        (found.len() == 2).then_some(found)
    };
    let mut calls = eventually("both sides of the call", calls).await;
    calls.sort_by_key(|span| span.kind != SpanKind::Client);
    let [client, server] = &calls[..] else { panic!("two") };
    assert_eq!((client.kind, &client.parent), (SpanKind::Client, &emit.id));
    assert_eq!((server.kind, &server.parent), (SpanKind::Server, &client.id));
    assert_eq!(server.resource["service.name"], "sluice-results");
    assert_eq!(client.attributes["rpc.response.status_code"], "OK");
    let record = collector.span(trace, "record results").await;
    assert_eq!(record.parent, server.id);
    assert_eq!(record.links, from_ref(&server.id));
}

#[tokio::test]
async fn a_publishers_trace_reaches_the_record() {
    let collector = Collector::start().await;
    let (pair, acme) = start(traced(builder(), &collector.url())).await;
    let trace = trace(1);
    publish_in(&acme, &trace, "01", "\"a recognisable payload\"").await;
    let server = collector.span(&trace, PUBLISH).await;
    assert_eq!((server.kind, &*server.parent, server.status), (SpanKind::Server, CALLER, 0));
    for (name, value) in
        [("rpc.system.name", "grpc"), ("rpc.method", PUBLISH), ("rpc.response.status_code", "OK")]
    {
        assert_eq!(server.attributes[name], value);
    }
    for name in ["service.name", "service.version", "service.instance.id"] {
        assert!(!server.resource[name].is_empty());
    }
    assert_eq!(server.resource["service.name"], "sluice-ingest");
    let check = collector.span(&trace, "check").await;
    assert_eq!((check.kind, &check.parent), (SpanKind::Internal, &server.id));
    let commit = collector.span(&trace, "commit outbox").await;
    assert_eq!((commit.kind, &commit.parent), (SpanKind::Producer, &server.id));
    assert_eq!(commit.links, from_ref(&server.id));
    assert_eq!(commit.attributes["messaging.destination.name"], "outbox");
    assert_eq!(commit.attributes["messaging.batch.message_count"], "1");
    is_recorded(&collector, &trace, &commit).await;

    let everything = collector.everything();
    let secret = pair.token(Tenant::Acme).rsplit('_').next().unwrap();
    for hidden in ["recognisable", secret, pair.token(Tenant::Intake), "authorization"] {
        assert!(!everything.contains(hidden), "a span holds {hidden}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_in_the_process_that_finds_it_in_the_outbox() {
    let collector = Collector::start().await;
    let builder = traced(builder().proxied(Link::Intake), &collector.url());
    let (mut pair, acme) = start(builder).await;
    drained(&pair).await;
    pair.proxy(Link::Intake).refuse();
    let trace = trace(2);
    publish_in(&acme, &trace, "01", "1").await;
    // Nothing is lost of what was not sent yet when it stops.
    pair.ingest[0].stop().await;
    let commit = collector.span(&trace, "commit outbox").await;
    let sql = pair.ingest_database.sql().await;
    let kept: String = sql.query_one("SELECT traceparent FROM outbox", &[]).await.unwrap().get(0);
    assert_eq!(kept, format!("00-{trace}-{}-01", commit.id));
    let before = collector.of_trace(&trace).len();
    assert!(collector.of_trace(&trace).iter().all(|span| span.kind != SpanKind::Client || span.status == 2));

    pair.proxy(Link::Intake).pass();
    pair.ingest[0].restart(true).await;
    drained(&pair).await;
    let again = || async {
        let spans = collector.of_trace(&trace);
        let new = &spans[before..];
        let instance = |span: &Span| span.resource["service.instance.id"].clone();
        let emit =
            new.iter().find(|span| span.name == "emit outbox" && instance(span) != instance(&commit))?;
        let record = new.iter().any(|span| span.name == "record results");
        record.then(|| emit.clone())
    };
    let emit = eventually("the emission by the new process", again).await;
    assert_eq!((&emit.parent, &emit.links), (&commit.id, &vec![commit.id.clone()]));
}

/// Four requests that come while the database hangs: in one commit, or those in one that
/// came after the commit of the others had begun. Whether all were accepted.
async fn gathers(pair: &Pair, acme: &Clients, ours: Range<u8>) -> bool {
    let before = scrape(pair.ingest[0].admin()).await.sum("sluice_observations_total", &[]);
    pair.proxy(Link::IngestDatabase).stall();
    let publishing = ours.map(|number| {
        let acme = acme.clone();
        tokio::spawn(async move { try_to_publish_in(&acme, &trace(number), "01", &number.to_string()).await })
    });
    let publishing: Vec<_> = publishing.collect();
    let gathered = || async {
        let came = scrape(pair.ingest[0].admin()).await.sum("sluice_observations_total", &[]);
        let given_up = publishing.iter().any(JoinHandle::is_finished);
        (came == before + 4.0 || given_up).then_some(())
    };
    eventually("four requests that have come", gathered).await;
    pair.proxy(Link::IngestDatabase).pass();
    let mut accepted = 0;
    for publishing in publishing {
        accepted += usize::from(publishing.await.unwrap().outcome() == Outcome::Success);
    }
    accepted == 4
}

#[tokio::test]
async fn a_commit_of_many_requests_is_linked_to_each() {
    let collector = Collector::start().await;
    let builder = traced(builder().admin().proxied(Link::IngestDatabase), &collector.url());
    let (pair, acme) = start(builder.flag(Service::Ingest, "lanes", "1")).await;
    // A commit that hangs for seconds, on a slow machine, is given up; then once more.
    let mut rounds = 0..10;
    let ours = loop {
        let round = rounds.next().expect("a round in which nothing was given up");
        let ours = 50 + 4 * round..54 + 4 * round;
        if gathers(&pair, &acme, ours.clone()).await {
            break ours;
        }
    };
    let merged = || async {
        let ours: Vec<_> = ours.clone().map(trace).collect();
        let of_many = |span: &Span| span.name == "commit outbox" && span.links.len() > 1;
        collector.all().into_iter().find(|span| of_many(span) && ours.contains(&span.trace))
    };
    let commit = eventually("a commit of many requests", merged).await;
    let mut servers = Vec::new();
    for number in ours {
        servers.push(collector.span(&trace(number), PUBLISH).await);
    }
    servers.retain(|server| commit.links.contains(&server.id));
    assert_eq!(servers.len(), commit.links.len(), "linked to each");
    let (own, others): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.id == commit.parent);
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].trace, commit.trace);
    assert!(others.iter().all(|server| server.links == [commit.id.clone()]), "and each to it");
}

#[tokio::test]
async fn callers_decide_what_is_sampled_and_the_ratio_decides_for_the_others() {
    let collector = Collector::start().await;
    let builder = traced(builder(), &collector.url()).flag(Service::Ingest, "otlp-sample-ratio", "0");
    let (mut pair, acme) = start(builder).await;
    publish_in(&acme, &trace(20), "00", "2").await;
    publish_in(&acme, &trace(21), "01", "3").await;
    collector.span(&trace(21), "record results").await;
    drained(&pair).await;
    pair.ingest[0].stop().await;
    let all = collector.all();
    let ingest: Vec<_> = all.iter().filter(|span| span.resource["service.name"] == "sluice-ingest").collect();
    assert!(ingest.len() >= 4 && ingest.iter().all(|span| span.trace == trace(21)), "{ingest:#?}");
    assert!(all.iter().all(|span| span.trace != trace(20)), "{all:#?}");
}

#[tokio::test]
async fn http_requests_are_part_of_their_callers_traces_too() {
    let collector = Collector::start().await;
    let (pair, _acme) = start(traced(builder(), &collector.url())).await;
    let http = Http::ingest(&pair, Tenant::Acme);
    let path = "/aepublish/v1/acme/observation";
    let request = http.request(http::Method::POST, path).header("content-type", "application/json");
    let request = request.header("traceparent", format!("00-{}-{CALLER}-01", trace(30)));
    assert_eq!(http.send(request, "[{\"path\":\"plain\"}]").await.status, 200);
    let route = "/aepublish/v1/{account_id}/observation";
    let server = collector.span(&trace(30), &format!("POST {route}")).await;
    assert_eq!((server.kind, &*server.parent), (SpanKind::Server, CALLER));
    for (name, value) in
        [("http.route", route), ("http.request.method", "POST"), ("http.response.status_code", "200")]
    {
        assert_eq!(server.attributes[name], value);
    }
    let commit = collector.span(&trace(30), "commit outbox").await;
    assert_eq!(commit.parent, server.id);
    is_recorded(&collector, &trace(30), &commit).await;
}

#[tokio::test]
async fn a_file_is_part_of_its_publishers_trace() {
    let collector = Collector::start().await;
    let (_pair, acme) = start(traced(builder(), &collector.url())).await;
    let messages = [metadata_message(file("plain")), chunk_message("a file")];
    let mut request = tonic::Request::new(stream::iter(messages));
    let traceparent = format!("00-{}-{CALLER}-01", trace(50));
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    acme.ingest.clone().publish_file(request).await.unwrap();
    let server = collector.span(&trace(50), "sluice.ingest.v1.IngestService/PublishFile").await;
    let commit = collector.span(&trace(50), "commit outbox").await;
    assert_eq!(commit.parent, server.id);
    let stored = || async {
        let spans = collector.of_trace(&trace(50)).into_iter().filter(|span| span.name == STORE);
        let (clients, servers): (Vec<_>, Vec<_>) = spans.partition(|span| span.kind == SpanKind::Client);
        (!clients.is_empty() && !servers.is_empty()).then_some((clients, servers))
    };
    let (clients, servers) = eventually("both sides of StoreFile", stored).await;
    assert_eq!((&clients[0].parent, &servers[0].parent), (&server.id, &clients[0].id));
    collector.span(&trace(50), "emit outbox").await;
}

/// A pair that sends its traces to this collector, whose certificate a CA issued.
async fn start_trusting(ca: &Ca, collector: &Collector) -> (Pair, Clients) {
    let file = scratch("collector").join("ca");
    std::fs::write(&file, ca.pem()).unwrap();
    let file = file.to_str().unwrap();
    let builder = traced(builder(), &collector.url());
    start(builder.flag(Service::Ingest, "otlp-ca-file", file).flag(Service::Results, "otlp-ca-file", file))
        .await
}

#[tokio::test]
async fn spans_go_to_a_collector_over_tls() {
    let ca = Ca::new();
    let collector = Collector::start_tls(&ca.issue(&["127.0.0.1"])).await;
    let (_pair, acme) = start_trusting(&ca, &collector).await;
    publish_in(&acme, &trace(60), "01", "1").await;
    collector.span(&trace(60), PUBLISH).await;
}

#[tokio::test]
async fn a_collector_of_another_ca_is_told_nothing() {
    let collector = Collector::start_tls(&Ca::new().issue(&["127.0.0.1"])).await;
    let (pair, acme) = start_trusting(&Ca::new(), &collector).await;
    publish_in(&acme, &trace(61), "01", "1").await;
    let told = || async { pair.ingest[0].log().contains("spans can't be delivered").then_some(()) };
    eventually("a line that says so", told).await;
    assert!(collector.all().is_empty());
}

#[tokio::test]
async fn a_collector_that_is_silent_or_away_holds_nobody_up() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let away = format!("http://127.0.0.1:{}", sluice::port::free().unwrap());
    for endpoint in [silent, away] {
        let (mut pair, acme) = start(traced(builder(), &endpoint)).await;
        for number in 0..50 {
            publish_in(&acme, &trace(40), "01", &number.to_string()).await;
        }
        drained(&pair).await;
        // Shorter than an orchestrator's patience.
        timeout(Duration::from_secs(15), pair.ingest[0].stop()).await.expect("a stop in time");
        let log = pair.ingest[0].log();
        assert!(log.matches("spans can't be delivered").count() <= 1, "{log}");
    }
}
