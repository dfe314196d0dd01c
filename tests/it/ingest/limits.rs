//! The bounds of requests and fields, on both sides of each, and what a refusal
//! says.

use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use sluice_proto::ingest::v1::{
    Definition, Observation, Outcome, PublishObservationsRequest, observation::Content,
};
use sluice_tests::{Pair, Service, Tenant};
use tonic::{Code, Status, codec::CompressionEncoding};
use tonic_types::StatusExt;

use crate::support::*;

const MIB: usize = 1024 * 1024;

async fn pair_with(path: &str) -> (Pair, sluice::connection::Clients) {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition(path)).await;
    (pair, acme)
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error says its reason");
    assert_eq!(info.domain, "sluice");
    info.reason.clone()
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

async fn refusal(clients: &sluice::connection::Clients, request: PublishObservationsRequest) -> Status {
    clients.ingest.clone().publish_observations(request).await.expect_err("a refusal")
}

#[tokio::test]
async fn an_empty_batch_is_refused_with_its_reason_and_field() {
    let (_pair, acme) = pair_with("plain").await;
    let status = refusal(&acme, request(vec![])).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "EMPTY_BATCH");
    assert_eq!(fields(&status), ["observations"]);
}

#[tokio::test]
async fn a_thousand_observations_are_taken_and_one_more_is_not() {
    let (pair, acme) = pair_with("plain").await;
    let numbered = |count: usize| (0..count).map(|n| json("plain", &n.to_string())).collect::<Vec<_>>();
    let status = refusal(&acme, request(numbered(1001))).await;
    assert_eq!((status.code(), reason(&status)), (Code::InvalidArgument, "INVALID_FIELD".into()));
    assert_eq!(fields(&status), ["observations"]);
    let observations = numbered(1000);
    let said = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&said), [Outcome::Success; 1000]);
    adds_up(&pair, &acme, &accepted(&observations, &said)).await;
}

#[tokio::test]
async fn what_is_more_than_goes_to_the_results_at_once_arrives_too() {
    let pair = builder().flag(Service::Ingest, "observations-max", "2001").start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let observations: Vec<_> = (0..2001).map(|n| json("plain", &n.to_string())).collect();
    let said = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&said), [Outcome::Success; 2001]);
    adds_up(&pair, &acme, &accepted(&observations, &said)).await;
}

#[tokio::test]
async fn a_request_id_has_up_to_128_bytes() {
    let (_pair, acme) = pair_with("plain").await;
    // Bytes, not characters: 64 times two.
    let said = publish_as(&acme, &"é".repeat(64), vec![json("plain", "{}")]).await;
    assert_eq!(kinds(&said.observations), [Outcome::Success]);
    let long =
        PublishObservationsRequest { request_id: "x".repeat(129), ..request(vec![json("plain", "{}")]) };
    let status = refusal(&acme, long).await;
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["request_id".into()]));
}

#[tokio::test]
async fn a_malformed_organisation_is_the_callers_fault() {
    let (pair, _) = pair_with("plain").await;
    let admin = pair.clients(Tenant::Admin);
    for organisation in ["", "a b", "é", &"x".repeat(129)] {
        let observations = vec![json("plain", "{}")];
        let named = PublishObservationsRequest { organisation: organisation.into(), ..request(observations) };
        let status = refusal(&admin, named).await;
        assert_eq!(
            (status.code(), fields(&status)),
            (Code::InvalidArgument, vec!["organisation".into()]),
            "{organisation:?}"
        );
    }
}

#[tokio::test]
async fn fields_have_up_to_512_bytes_and_spoil_only_their_own_observation() {
    let (_pair, acme) = pair_with("plain").await;
    let with = |field: &str, text: String| {
        let mut observation = json("plain", "{}");
        match field {
            "chkpt" => observation.chkpt = text,
            "identifier" => observation.identifier = text,
            "poll" => observation.poll = text,
            "task" => observation.task = text,
            _ => observation.r#type = text,
        }
        observation
    };
    for field in ["chkpt", "identifier", "poll", "task"] {
        let observations = vec![
            with(field, format!("{field}{}", "x".repeat(512 - field.len()))),
            with(field, "x".repeat(513)),
            with(field, "a\0b".into()),
            json("plain", "{}"),
        ];
        let said = publish(&acme, observations).await;
        let refused = (Outcome::Error, "INVALID_FIELD");
        assert_eq!(
            told(&said),
            [(Outcome::Success, ""), refused, refused, (Outcome::Success, "")],
            "{field}: {said:?}"
        );
        assert!(said[1].details.contains(field), "{}", said[1].details);
    }
    let types = ["no-slash", "a/", "/b", "a/b c", "text/plain\r\nx: y", &format!("a/{}", "b".repeat(254))];
    let said = publish(&acme, types.map(|text| with("type", text.into())).to_vec()).await;
    assert!(told(&said).iter().all(|said| *said == (Outcome::Error, "INVALID_FIELD")), "{said:?}");
    let absent = Observation { content: None, ..json("plain", "") };
    assert_eq!(publish_one(&acme, absent).await.reason, "INVALID_FIELD");
}

#[tokio::test]
async fn a_chkpt_that_is_refused_is_not_repeated_and_spoils_no_answer() {
    let (pair, acme) = pair_with("plain").await;
    let longest = "x".repeat(512);
    let observations = vec![
        marked("plain", &longest, "1"),
        marked("plain", &"x".repeat(513), "2"),
        // Longer than the answers that clients take.
        marked("plain", &"x".repeat(5 * MIB), "3"),
    ];
    let said = publish(&acme, observations.clone()).await;
    let refused = (Outcome::Error, "INVALID_FIELD");
    assert_eq!(told(&said), [(Outcome::Success, ""), refused, refused]);
    let repeated: Vec<_> = said.iter().map(|said| said.chkpt.as_str()).collect();
    assert_eq!(repeated, [&longest, "", ""]);
    adds_up(&pair, &acme, &accepted(&observations, &said)).await;
}

/// An observation whose body has so many bytes as JSON.
fn body(bytes: usize) -> Observation {
    let text = Value { kind: Some(Kind::StringValue("x".repeat(bytes - 8))) };
    let fields = [("a".to_owned(), text)].into_iter().collect();
    Observation { content: Some(Content::Body(Struct { fields }.into())), ..json("plain", "") }
}

#[tokio::test]
async fn bodies_are_as_large_and_as_many_as_other_contents() {
    let (_pair, acme) = pair_with("plain").await;
    let said = publish(&acme, vec![body(MIB); 15]).await;
    assert_eq!(kinds(&said), [Outcome::Success; 15]);
    let said = publish(&acme, vec![body(MIB + 1), body(MIB)]).await;
    assert_eq!(told(&said), [(Outcome::Error, "TOO_LARGE"), (Outcome::Success, "")]);
}

#[tokio::test]
async fn strings_under_a_slow_pattern_are_bounded_and_others_are_not() {
    let (_pair, acme) = pair_with("plain").await;
    let json_schema = r#"{"properties":{"a":{"pattern":"^x|a[ab]{900}[^ab]"}}}"#.into();
    put(&acme, Definition { json_schema, ..definition("slow") }).await;
    let of = |field: &str, bytes: usize| json("slow", &format!(r#"{{"{field}":"{}"}}"#, "x".repeat(bytes)));
    let said = publish(&acme, vec![of("a", 20_000), of("a", 100_000), of("b", MIB - 100)]).await;
    assert_eq!(told(&said), [(Outcome::Success, ""), (Outcome::Error, "TOO_LARGE"), (Outcome::Success, "")]);
}

#[tokio::test]
async fn one_mebibyte_is_taken_and_one_byte_more_is_not() {
    let (pair, acme) = pair_with("plain").await;
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let observations =
        vec![json("plain", &text(MIB)), json("plain", &text(MIB + 1)), data("plain", text(MIB))];
    let answer = publish_as(&acme, "", observations.clone()).await;
    assert_eq!(
        told(&answer.observations),
        [(Outcome::Success, ""), (Outcome::Error, "TOO_LARGE"), (Outcome::Success, "")]
    );
    assert_eq!(answer.stats.unwrap().accepted_bytes, 2 * MIB as u64);
    adds_up(&pair, &acme, &accepted(&observations, &answer.observations)).await;
}

/// The largest content that results takes, as bytes that nothing makes smaller.
#[tokio::test]
async fn the_largest_observation_there_can_be_is_handed_over_and_one_byte_more_is_not_taken() {
    let builder = builder().flag(Service::Ingest, "observation-bytes-max", &(16 * MIB).to_string());
    let pair = builder.flag(Service::Ingest, "request-bytes-max", &(17 * MIB).to_string()).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let of = |bytes: usize| {
        let noise = (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8);
        let bytes: Vec<u8> = noise.collect();
        Observation { r#type: "application/octet-stream".into(), ..data("plain", bytes) }
    };
    let (largest, larger) = (of(16 * MIB), of(16 * MIB + 1));
    let said = publish(&acme, vec![largest.clone()]).await;
    assert_eq!(told(&said), [(Outcome::Success, "")]);
    assert_eq!(told(&publish(&acme, vec![larger]).await), [(Outcome::Error, "TOO_LARGE")]);
    adds_up(&pair, &acme, &accepted(&[largest], &said)).await;
}

#[tokio::test]
async fn a_request_has_up_to_16_mebibytes() {
    let (pair, acme) = pair_with("plain").await;
    let block = |bytes: usize| json("plain", &format!("\"{}\"", "x".repeat(bytes - 2)));
    let sized = |target: usize| {
        let mut whole = request((0..16).map(|_| block(MIB - 1024)).collect());
        let mut last = target - whole.encoded_len();
        whole.observations.push(block(last));
        last -= whole.encoded_len() - target;
        *whole.observations.last_mut().unwrap() = block(last);
        assert_eq!(whole.encoded_len(), target);
        whole
    };
    let whole = sized(16 * MIB);
    let said = acme.ingest.clone().publish_observations(whole.clone()).await.unwrap().into_inner();
    assert_eq!(kinds(&said.observations), [Outcome::Success; 17]);
    let status = refusal(&acme, sized(16 * MIB + 1)).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    adds_up(&pair, &acme, &accepted(&whole.observations, &said.observations)).await;
}

#[tokio::test]
async fn a_request_that_outgrows_the_limit_when_it_is_decompressed_is_told_like_any_other() {
    let (_pair, acme) = pair_with("plain").await;
    let large = request(vec![json("plain", &" ".repeat(20 * 1024 * 1024))]);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = acme.ingest.clone().send_compressed(encoding);
        let status = client.publish_observations(large.clone()).await.expect_err("a refusal");
        assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, "REQUEST_TOO_LARGE".into()));
    }
}
