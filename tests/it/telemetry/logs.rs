//! The log of real processes: ids of the trace on what happens inside a request,
//! and nothing of what callers entrust; the same of the traces.

use serde_json::Value;
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::Definition,
    results::v1::{
        RecordResultsRequest, StorageConfig, results_intake_service_client::ResultsIntakeServiceClient,
    },
};
use sluice_tests::{Pair, PairBuilder, Service, Tenant, eventually, scratch};

use super::collector::Collector;
use crate::{
    files::support::{file, publish_file},
    http::support::Http,
    results::shelf::Shelf,
    storage::{self, support::Storage},
    support::*,
};

/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn logging(format: &str, filter: &str) -> PairBuilder {
    let both = [Service::Ingest, Service::Results];
    both.into_iter().fold(builder().processes(), |builder, service| {
        builder.flag(service, "log-format", format).flag(service, "log-filter", filter)
    })
}

/// A call that is refused, which is worth a line.
async fn refused(pair: &Pair) {
    let authorised = pair.authorised(Tenant::Acme, &pair.results[0]);
    let mut request = tonic::Request::new(RecordResultsRequest::default());
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    let status = ResultsIntakeServiceClient::new(authorised).record_results(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn lines_of_json_hold_the_ids_of_the_request_s_trace() {
    let pair = logging("json", "info").start().await;
    refused(&pair).await;
    let log = pair.results[0].log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |message: &str| lines.iter().find(|line| line["message"] == message).expect(message);
    let line = of("refused");
    assert_eq!((line["level"].as_str(), line["trace_id"].as_str()), (Some("WARN"), Some(TRACE)));
    assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(of("serving")["trace_id"], Value::Null, "no request, no trace");
}

#[tokio::test]
async fn lines_of_text_do_too_and_the_filter_holds() {
    let pair = logging("text", "warn").start().await;
    refused(&pair).await;
    let log = pair.results[0].log();
    let line = log.lines().find(|line| line.contains("refused")).expect("a line");
    assert!(line.contains(&format!(" trace_id={TRACE} span_id=")), "{line}");
    assert!(!log.contains(" INFO "), "{log}");
}

/// A pair that logs and traces all it can.
async fn talkative(collector: &Collector) -> Storage {
    let root = scratch("storage");
    let mut builder = storage::support::builder(&root).processes();
    let everything = "debug,sluice_ingest=trace,sluice_results=trace,sluice_service=trace";
    for service in [Service::Ingest, Service::Results] {
        builder = builder.flag(service, "log-format", "json").flag(service, "log-filter", everything);
        builder = builder.flag(service, "otlp-endpoint", &collector.url());
    }
    let builder = builder.flag(Service::Results, "storage-endpoints", NOBODY);
    Storage { shelf: Shelf(builder.start().await), root }
}

/// Observations, good and bad, and a file; the id of a result.
async fn entrust(acme: &Clients) -> String {
    let json_schema = r#"{"required": ["payload-of-schema"]}"#.to_owned();
    put(acme, Definition { json_schema, ..definition("strict") }).await;
    put(acme, Definition { unique: seconds(3600), ..definition("unique") }).await;
    let batch = vec![
        marked("unique", "payload-chkpt", r#"{"keys": "payload-good"}"#),
        marked("unique", "payload-chkpt", r#"{"keys": "payload-other"}"#),
        json("strict", r#"{"k": "payload-against-schema"}"#),
        json("unique", "payload-no-json"),
        json("payload/no/definition", "1"),
        data("unique", "payload-data"),
    ];
    let told = publish(acme, batch).await;
    publish_file(acme, file("unique"), b"payload-file").await;
    told[0].ingest_id.clone()
}

/// A bucket nobody answers for, with credentials.
fn bucket() -> StorageConfig {
    let credentials =
        [("access_key_id", "payload-id"), ("secret_access_key", "payload-secret"), ("endpoint", NOBODY)];
    let credentials = credentials.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    StorageConfig { url: "s3://bucket/path".into(), credentials, ..StorageConfig::default() }
}

#[tokio::test]
async fn nothing_that_callers_entrust_is_logged_or_traced_at_any_level() {
    let collector = Collector::start().await;
    let storage = talkative(&collector).await;
    let pair = &storage.shelf.0;
    let acme = pair.clients(Tenant::Acme);
    let signed_urls_expiry = seconds(600);
    let folder = StorageConfig { signed_urls_enabled: true, signed_urls_expiry, ..StorageConfig::default() };
    storage.default_folder(folder).await;
    let id = entrust(&acme).await;
    drained(pair).await;
    download(&acme, &id).await;
    let url = storage.get(&id).await.unwrap().signed_url.unwrap().url;
    let results = Http::results(pair, Tenant::Acme);
    let path = url.strip_prefix(&format!("http://{}", results.address)).unwrap();
    assert_eq!(results.get(path).await.status, 200);
    // Once more with a URL that is not good any more.
    assert_eq!(results.get(&path.replace("expires=", "expires=1")).await.status, 403);
    storage.create(bucket()).await.unwrap();
    refused(pair).await;
    for http in [Http::ingest(pair, Tenant::Acme), results] {
        http.post("/aepublish/v1/acme/observation", r#"[{"path": "unique", "x": "payload-http"}]"#).await;
        http.get("/results?poll=payload-poll&payload-parameter=1").await;
        let stranger = Http { token: "sluice_payload-token_payload-secret".into(), ..http };
        assert!(!stranger.get("/results").await.status.is_success());
    }

    let trace = || async { (!collector.of_trace(TRACE).is_empty()).then_some(()) };
    eventually("the last span", trace).await;
    let (_, signature) = path.split_once("signature=").unwrap();
    let secret = |tenant| pair.token(tenant).rsplit('_').next().unwrap();
    let hidden = [
        "payload",
        signature.split('&').next().unwrap(),
        secret(Tenant::Acme),
        secret(Tenant::Intake),
        "uthorization",
        "Bearer",
    ];
    let mut told = vec![("the traces", collector.everything())];
    for replica in pair.ingest.iter().chain(&pair.results) {
        let log = replica.log();
        assert!(log.contains("\"DEBUG\""), "the filter lets nothing through:\n{log}");
        told.push(("the log", log));
    }
    for (whose, text) in told {
        for hidden in hidden {
            let line = text.lines().find(|line| line.contains(hidden));
            assert!(line.is_none(), "{hidden} in {whose}: {line:?}");
        }
    }
}
