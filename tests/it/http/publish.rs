//! Publishing over HTTP, as aepublish's clients do it.

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sluice_tests::{Pair, Service, Tenant};

use crate::{
    http::support::{Answer, Http, normalised},
    support::{builder, definition, download, drained, put, throttled, unique},
};

const PATH: &str = "/aepublish/v1/acme/observation";

async fn started() -> (Pair, Http) {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    for definition in [definition("plain"), unique("unique"), throttled("throttled", 1)] {
        put(&acme, definition).await;
    }
    let http = Http::ingest(&pair, Tenant::Acme);
    (pair, http)
}

fn outcomes(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["observations"].as_array().unwrap().clone()
}

/// Outcome and reason of each.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let text = |outcome: &Value, field: &str| outcome[field].as_str().unwrap_or_default().to_owned();
    outcomes(answer).iter().map(|o| (text(o, "outcome"), text(o, "reason"))).collect()
}

#[tokio::test]
async fn every_outcome_looks_like_this() {
    let (_pair, acme) = started().await;
    let first = acme
        .post(
            PATH,
            r#"[{"path":"unique","keys":{"a":1}},{"path":"unique","keys":{"a":1.0},"chkpt":"s"},
                {"path":"plain","chkpt":"c","n":1},{"path":"plain","chkpt":"c","n":2},{"path":"gone"}]"#,
        )
        .await;
    let expected = concat!(
        r#"{"observations":[{"outcome":"success","ingest_id":"<uuid>","definition_etag":"<hex>"},"#,
        r#"{"outcome":"suppressed","ingest_id":"<uuid>","chkpt":"s","reason":"UNIQUE","definition_etag":"<hex>"},"#,
        r#"{"outcome":"success","ingest_id":"<uuid>","chkpt":"c","definition_etag":"<hex>"},"#,
        r#"{"outcome":"duplicate","ingest_id":"<uuid>","chkpt":"c","reason":"CONTENT_DIFFERS","#,
        r#""original_outcome":"success","definition_etag":"<hex>"},"#,
        r#"{"outcome":"error","reason":"UNKNOWN_DEFINITION","details":"there is no definition gone"}]}"#
    );
    assert_eq!(normalised(first.text()), expected);
    let second = acme.post(PATH, r#"[{"path":"throttled"},{"path":"throttled"}]"#).await;
    assert_eq!(told(&second), [("success".into(), String::new()), ("throttled".into(), "THROTTLE".into())]);
    assert_eq!(acme.post(PATH, " [ ] ").await.text(), r#"{"observations":[]}"#);
}

#[tokio::test]
async fn a_result_is_the_very_bytes_that_were_sent() {
    let (pair, mut acme) = started().await;
    let sent = [
        r#"{"path":"plain", "n":1.00, "z":1e2,"a":"\u00e9\/", "chkpt":"1"}"#,
        "{\"b\" :\t[ 1 , 2 ]\n,\"pa\\u0074h\":\"pl\\u0061in\"}",
        r#"{"path":"plain","n":12345678901234567890.10,"poll":"p","task":"t","identifier":"i","é":"]},["}"#,
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        acme.version = version;
        let body = format!("[\n  {} ,{},\r\n{}]", sent[0], sent[1], sent[2])
            .replace(r#""1""#, &format!("\"{version:?}\""));
        let answer = acme.post(PATH, body.clone()).await;
        drained(&pair).await;
        let results = Http::results(&pair, Tenant::Acme);
        for (outcome, sent) in outcomes(&answer).iter().zip(sent) {
            let sent = sent.replace(r#""1""#, &format!("\"{version:?}\""));
            let id = outcome["ingest_id"].as_str().unwrap_or_else(|| panic!("{outcome}"));
            let data = download(&pair.clients(Tenant::Acme), id).await;
            assert_eq!(data, sent);
            let record = results.get(&format!("/results/{id}")).await.json();
            assert_eq!(record["checksum"], hex::encode(Md5::digest(&sent)));
            assert_eq!(record["size"], sent.len());
        }
        let last = outcomes(&answer)[2]["ingest_id"].as_str().unwrap().to_owned();
        let record = results.get(&format!("/results/{last}")).await.json();
        assert_eq!(
            (&record["poll"], &record["task"], &record["identifier"]),
            (&json!("p"), &json!("t"), &json!("i"))
        );
    }
}

#[tokio::test]
async fn one_that_is_no_good_spoils_only_itself() {
    let (_pair, acme) = started().await;
    let bomb = format!(r#"{{"path":"plain","a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        (r#"{"path":"plain","a":1,"a":2}"#, "INVALID_JSON"),
        (r#"{"path":"plain","a":"\u0000"}"#, "INVALID_JSON"),
        (r#"{"path":"plain","a":"\ud800"}"#, "INVALID_JSON"),
        (r#"{"path":"plain","a":1e400}"#, "INVALID_JSON"),
        (&bomb, "TOO_LARGE"),
        (r#"{"path":"plain","a":tru}"#, "INVALID_JSON"),
        (r#"{"path" "plain"}"#, "INVALID_JSON"),
        ("nonsense", "INVALID_JSON"),
        ("1", "INVALID_FIELD"),
        ("[]", "INVALID_FIELD"),
        ("{}", "INVALID_FIELD"),
        (r#"{"path":""}"#, "INVALID_FIELD"),
        (r#"{"path":1}"#, "INVALID_FIELD"),
        (r#"{"path":"plain","chkpt":5}"#, "INVALID_FIELD"),
        (r#"{"path":"plain","poll":["x"]}"#, "INVALID_FIELD"),
        (r#"{"path":"plain","task":{}}"#, "INVALID_FIELD"),
    ];
    let list: Vec<String> = cases.iter().map(|(bad, _)| format!(r#"{bad},{{"path":"plain"}}"#)).collect();
    let answer = acme.post(PATH, format!("[{}]", list.join(","))).await;
    let told = told(&answer);
    for (pair, (bad, reason)) in told.chunks(2).zip(cases) {
        let expected = [("error".into(), reason.into()), ("success".into(), String::new())];
        assert_eq!(pair, expected, "{:.100}", bad);
    }
    let mut bytes = br#"[{"path":"plain","a":""#.to_vec();
    bytes.extend_from_slice(b"\xff\"},{\"path\":\"plain\",\"chkpt\":null}]");
    let answer = acme.post(PATH, bytes).await;
    assert_eq!(
        self::told(&answer),
        [("error".into(), "INVALID_JSON".into()), ("success".into(), String::new())]
    );
}

#[tokio::test]
async fn what_is_no_list_is_refused_as_a_whole() {
    let (_pair, acme) = started().await;
    for body in
        ["", "null", "{}", "[", "[{]", r#"[{"path":"plain"}"#, r#"[{"path":"plain"},]"#, "[] x", "\u{feff}[]"]
    {
        let answer = acme.post(PATH, body).await;
        assert_eq!(answer.error(), (400, "invalid-body".into()), "{body}");
    }
    let deep = "[".repeat(1_000_000);
    assert_eq!(acme.post(PATH, deep).await.error(), (400, "invalid-body".into()));
    let many = format!("[{}]", vec![r#"{"path":"plain"}"#; 1001].join(","));
    let answer = acme.post(PATH, many).await;
    assert_eq!(
        (answer.error(), answer.params()),
        ((400, "invalid-parameter".into()), vec!["observations".into()])
    );
    let form = acme.request(Method::POST, PATH).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(acme.send(form, "[]").await.error(), (400, "invalid-body".into()));
    let packed = acme.request(Method::POST, PATH).header("content-encoding", "gzip");
    assert_eq!(acme.send(packed, "[]").await.error(), (400, "invalid-body".into()));
}

#[tokio::test]
async fn sizes_are_bounded_for_the_body_and_for_each() {
    let pair = builder().flag(Service::Ingest, "request-bytes-max", "4096").start().await;
    put(&pair.clients(Tenant::Acme), definition("plain")).await;
    let acme = Http::ingest(&pair, Tenant::Acme);
    let of = |size: usize| {
        let body = format!(r#"[{{"path":"plain","a":"{}"}}]"#, "x".repeat(size - 25));
        assert_eq!(body.len(), size);
        body
    };
    assert_eq!(told(&acme.post(PATH, of(4096)).await)[0].0, "success");
    for size in [4097, 100_000] {
        assert_eq!(acme.post(PATH, of(size)).await.error(), (413, "limit-exceeded".into()));
    }
}

#[tokio::test]
async fn the_account_is_the_tokens() {
    let (pair, acme) = started().await;
    let body = Bytes::from_static(br#"[{"path":"plain"}]"#);
    let foreign = acme.post("/aepublish/v1/globex/observation", body.clone()).await;
    assert_eq!(foreign.error(), (403, "missing-scope".into()));
    let admin = Http::ingest(&pair, Tenant::Admin);
    assert_eq!(told(&admin.post(PATH, body.clone()).await)[0].0, "success");
    let malformed = admin.post("/aepublish/v1/a%20b/observation", body.clone()).await;
    assert_eq!(
        (malformed.error(), malformed.params()),
        ((400, "invalid-parameter".into()), vec!["account_id".into()])
    );
    let broken = admin.post("/aepublish/v1/%ff/observation", body.clone()).await;
    assert_eq!(broken.error(), (400, "invalid-parameter".into()));
    let none = Http { token: String::new(), ..Http::ingest(&pair, Tenant::Acme) };
    assert_eq!(none.post(PATH, body).await.error(), (401, "unauthorized".into()));
}

#[tokio::test]
async fn an_element_that_is_too_large_is_not_looked_into_and_spoils_only_itself() {
    let pair = builder().flag(Service::Ingest, "observation-bytes-max", "1000").start().await;
    put(&pair.clients(Tenant::Acme), definition("plain")).await;
    let acme = Http::ingest(&pair, Tenant::Acme);
    let of = |size: usize| format!(r#"{{"path":"plain","chkpt":"{}"}}"#, "x".repeat(size - 27));
    let (longest, longer) = (of(1000), of(1001));
    assert_eq!(longest.len(), 1000);
    // Millions of members, and of what is not JSON at all.
    let many = format!("{{{}\"\":}}", "\"\":,".repeat(1_000_000));
    let answer = acme.post(PATH, format!(r#"[{longest},{longer},{many},{{"path":"plain"}}]"#)).await;
    let too_large = ("error".to_owned(), "TOO_LARGE".to_owned());
    let refused = ("error".to_owned(), "INVALID_FIELD".to_owned());
    let success = ("success".to_owned(), String::new());
    assert_eq!(told(&answer), [refused, too_large.clone(), too_large, success]);
    // A marker is repeated as long as it is one.
    let outcomes = outcomes(&answer);
    assert!(outcomes.iter().all(|outcome| outcome["chkpt"] == Value::Null), "{outcomes:?}");
}
