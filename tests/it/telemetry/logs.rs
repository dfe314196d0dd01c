//! The log of real processes: ids of the trace on what happens inside a request,
//! and nothing of what callers entrust.

use serde_json::Value;
use sluice_proto::{
    ingest::v1::Definition,
    results::v1::{RecordResultsRequest, results_intake_service_client::ResultsIntakeServiceClient},
};
use sluice_tests::{Pair, PairBuilder, Service, Tenant};

use crate::{http_support::Http, support::*};

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
    let line = of("refused: scope missing");
    assert_eq!((line["level"].as_str(), line["trace_id"].as_str()), (Some("WARN"), Some(TRACE)));
    assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    assert_eq!(of("serving")["trace_id"], Value::Null, "no request, no trace");
}

#[tokio::test]
async fn lines_of_text_do_too_and_the_filter_holds() {
    let pair = logging("text", "warn").start().await;
    refused(&pair).await;
    let log = pair.results[0].log();
    let line = log.lines().find(|line| line.contains("refused: scope missing")).expect("a line");
    assert!(line.contains(&format!(" trace_id={TRACE} span_id=")), "{line}");
    assert!(!log.contains(" INFO "), "{log}");
}

#[tokio::test]
async fn nothing_that_callers_entrust_is_logged_at_any_level() {
    let everything = "debug,sluice_ingest=trace,sluice_results=trace,sluice_service=trace";
    let pair = logging("json", everything).start().await;
    let acme = pair.clients(Tenant::Acme);
    let json_schema = r#"{"required": ["payload-of-schema"]}"#.to_owned();
    put(&acme, Definition { json_schema, ..definition("strict") }).await;
    put(&acme, unique("unique")).await;
    let batch = vec![
        marked("unique", "payload-chkpt", r#"{"keys": "payload-good"}"#),
        marked("unique", "payload-chkpt", r#"{"keys": "payload-other"}"#),
        json("strict", r#"{"k": "payload-against-schema"}"#),
        json("unique", "payload-no-json"),
        json("payload/no/definition", "1"),
        data("unique", "payload-data"),
    ];
    let told = publish(&acme, batch).await;
    drained(&pair).await;
    download(&acme, &told[0].ingest_id).await;
    refused(&pair).await;
    for http in [Http::ingest(&pair, Tenant::Acme), Http::results(&pair, Tenant::Acme)] {
        http.post("/aepublish/v1/acme/observation", r#"[{"path": "unique", "x": "payload-http"}]"#).await;
        http.get("/results?poll=payload-poll&payload-parameter=1").await;
        let stranger = Http { token: "sluice_payload-token_payload-secret".into(), ..http };
        assert!(!stranger.get("/results").await.status.is_success());
    }
    let secret = |tenant| pair.token(tenant).rsplit('_').next().unwrap();
    for replica in pair.ingest.iter().chain(&pair.results) {
        let log = replica.log();
        assert!(log.contains("\"DEBUG\""), "the filter lets nothing through:\n{log}");
        for hidden in ["payload", secret(Tenant::Acme), secret(Tenant::Intake), "uthorization", "Bearer"] {
            let told = log.lines().find(|line| line.contains(hidden));
            assert!(told.is_none(), "{hidden} in {told:?}");
        }
    }
}
