//! Bad JSON of every kind is refused alone; good JSON and other bytes are kept
//! exactly.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use prost_types::{ListValue, Struct, Value, value::Kind};
use sluice_proto::ingest::v1::{Definition, Observation, Outcome, observation::Content};
use sluice_tests::Tenant;

use super::definitions::try_put;
use crate::support::*;

fn bad_texts() -> Vec<(&'static str, Vec<u8>)> {
    let text = |why: &'static str, text: &str| (why, text.as_bytes().to_vec());
    vec![
        text("empty", ""),
        text("white space only", " \n"),
        text("cut off", r#"{"a":1"#),
        text("something after it", "{} {}"),
        text("not a value", "NaN"),
        text("a comment", "{/**/}"),
        text("single quotes", "{'a':1}"),
        text("a comma too many", "[1,]"),
        text("a leading zero", "01"),
        text("a plus sign", "+1"),
        text("no digit after the point", "1."),
        text("out of range", r#"{"a":1e400}"#),
        text("out of range below", "-1e400"),
        ("out of range in digits", "9".repeat(400).into_bytes()),
        text("U+0000 escaped", r#"{"a":"\u0000"}"#),
        text("U+0000 in a key", r#"{"a\u0000":1}"#),
        ("U+0000 raw", b"\"a\0b\"".to_vec()),
        text("a raw line end in a string", "\"a\nb\""),
        text("a lone high surrogate", r#""\ud800""#),
        text("a lone low surrogate", r#""\udc00""#),
        text("two high surrogates", r#""\ud800\ud800""#),
        text("a key twice", r#"{"a":1,"a":2}"#),
        text("a key twice, once escaped", r#"{"b":[{"a":1,"\u0061":2}]}"#),
        text("an unknown escape", r#""\x41""#),
        ("nested too deep", [vec![b'['; 10_000], vec![b']'; 10_000]].concat()),
        (
            "nested too deep in objects",
            [r#"{"a":"#.repeat(10_000), "1".into(), "}".repeat(10_000)].concat().into(),
        ),
        ("nested and never closed", vec![b'['; 100_000]),
        ("not UTF-8", b"\"\xff\"".to_vec()),
        ("an overlong form", b"\"\xc0\x80\"".to_vec()),
        ("a surrogate as bytes", b"\"\xed\xa0\x80\"".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", b"{\0}\0".to_vec()),
    ]
}

#[tokio::test]
async fn bad_json_of_every_kind_is_refused_alone() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let (mut observations, mut why) = (vec![json("plain", "0")], vec!["good"]);
    for (fault, bytes) in bad_texts() {
        if let Ok(text) = String::from_utf8(bytes.clone()) {
            observations.extend([json("plain", &text), json("plain", "{}")]);
            why.extend([fault, "good"]);
        }
        observations.extend([data("plain", bytes), json("plain", "{}")]);
        why.extend([fault, "good"]);
    }
    let said = publish(&acme, observations.clone()).await;
    for (said, why) in said.iter().zip(why) {
        if why == "good" {
            assert_eq!(said.outcome(), Outcome::Success, "{said:?}");
        } else {
            let reason = if why.starts_with("nested") { "TOO_LARGE" } else { "INVALID_JSON" };
            assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Error, reason), "{why}");
            assert!(!said.details.is_empty(), "{why}");
        }
    }
    adds_up(&pair, &acme, &accepted(&observations, &said)).await;
}

#[tokio::test]
async fn a_refusal_says_where_by_json_pointer() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let json_schema = r#"{"properties":{"a":{"items":{"type":"integer"}}}}"#.into();
    put(&acme, Definition { json_schema, ..definition("strict") }).await;
    let said = publish(
        &acme,
        vec![
            json("plain", r#"{"a":[1,{"b/c":1e400}]}"#),
            json("plain", r#"{"a":{"k":1,"k":2}}"#),
            json("strict", r#"{"a":[1,"two"]}"#),
            json("strict", r#"{"a":[1,2.0]}"#),
        ],
    )
    .await;
    assert!(said[0].details.contains("/a/1/b~1c"), "{}", said[0].details);
    assert!(said[1].details.contains("/a/k"), "{}", said[1].details);
    assert_eq!((said[2].outcome(), said[2].reason.as_str()), (Outcome::Error, "SCHEMA"));
    assert!(said[2].details.contains("/a/1"), "{}", said[2].details);
    assert_eq!(said[3].outcome(), Outcome::Success, "2.0 is an integer in draft 2020-12");
}

#[tokio::test]
async fn under_a_schema_that_refers_to_itself_a_refusal_says_where_as_well() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let tree = r##"{"$id":"https://example.com/tree","type":"object","required":["n"],"properties":
        {"n":{"type":"integer"},"children":{"items":{"$ref":"#"}},"next":{"$ref":"https://example.com/tree"}},
        "default":{"$ref":"nowhere"}}"##;
    put(&acme, Definition { json_schema: tree.into(), ..definition("tree") }).await;
    let endless = Definition {
        json_schema: tree.replace("\"type\"", "\"$ref\":\"#\",\"type\""),
        ..definition("endless")
    };
    let status = try_put(&acme, endless).await.unwrap_err();
    assert!(status.message().contains("without going into the value"), "{status:?}");
    let deep = format!(r#"{}{{"n":1}}{}"#, r#"{"n":1,"next":"#.repeat(120), "}".repeat(120));
    let said = publish(
        &acme,
        vec![
            json("tree", r#"{"n":1,"children":[{"n":2,"children":[{"n":3}]},{"n":4,"next":{"n":5}}]}"#),
            json("tree", &deep),
            json("tree", r#"{"n":1,"children":[{"n":2,"children":[{"n":"3"}]},{"n":4}]}"#),
        ],
    )
    .await;
    assert_eq!((said[0].outcome(), said[1].outcome()), (Outcome::Success, Outcome::Success), "{said:?}");
    assert_eq!((said[2].outcome(), said[2].reason.as_str()), (Outcome::Error, "SCHEMA"));
    assert!(said[2].details.contains("\"/children/0/children/0/n\""), "{}", said[2].details);
}

fn body(fields: &[(&str, Kind)]) -> Observation {
    let value = |kind: &Kind| Value { kind: Some(kind.clone()) };
    let fields: BTreeMap<_, _> = fields.iter().map(|(key, kind)| ((*key).to_owned(), value(kind))).collect();
    let content = Some(Content::Body(Struct { fields: fields.into_iter().collect() }.into()));
    Observation { content, ..json("plain", "") }
}

#[tokio::test]
async fn a_body_is_compact_json_with_sorted_keys_and_exact_integers() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let exact = 9_007_199_254_740_991.0;
    let list = Kind::ListValue(ListValue {
        values: vec![Value { kind: Some(Kind::NumberValue(0.5)) }, Value { kind: Some(Kind::NullValue(0)) }],
    });
    let observations = vec![
        body(&[("b", Kind::NumberValue(exact)), ("a", Kind::StringValue("é\"".into())), ("c", list)]),
        body(&[("n", Kind::NumberValue(exact + 1.0))]),
        body(&[("n", Kind::NumberValue(-exact - 1.0))]),
        body(&[("n", Kind::NumberValue(f64::NAN))]),
        body(&[("n", Kind::NumberValue(f64::INFINITY))]),
        body(&[("n", Kind::StringValue("a\0b".into()))]),
        body(&[("n", Kind::NumberValue(-exact))]),
    ];
    let said = publish(&acme, observations).await;
    let bad = (Outcome::Error, "INVALID_JSON");
    let good = (Outcome::Success, "");
    assert_eq!(told(&said), [good, bad, bad, bad, bad, bad, good], "{said:?}");
    assert!(said[1].details.contains("/n"), "{}", said[1].details);
    drained(&pair).await;
    let kept = results(&acme).await;
    assert_eq!(kept[&said[0].ingest_id], r#"{"a":"é\"","b":9007199254740991,"c":[0.5,null]}"#);
    assert_eq!(kept[&said[6].ingest_id], r#"{"n":-9007199254740991}"#);
    assert_eq!(kept.len(), 2);
}

/// A body of this many structs in each other.
fn nested(levels: usize) -> Observation {
    let mut kind = Kind::BoolValue(true);
    for _ in 1..levels {
        let fields = [("a".to_owned(), Value { kind: Some(kind) })];
        kind = Kind::StructValue(Struct { fields: fields.into_iter().collect() });
    }
    body(&[("a", kind)])
}

#[tokio::test]
async fn a_deeply_nested_body_is_taken_or_refused_alone() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let said = publish(&acme, vec![nested(30), json("plain", "{}")]).await;
    assert_eq!(kinds(&said), [Outcome::Success; 2]);
    let said = publish(&acme, vec![nested(130), json("plain", "{}")]).await;
    assert_eq!(told(&said), [(Outcome::Error, "INVALID_JSON"), (Outcome::Success, "")]);
}

#[tokio::test]
async fn the_bytes_are_kept_exactly_with_their_checksum() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let typed =
        |media_type: &str, bytes: Vec<u8>| Observation { r#type: media_type.into(), ..data("plain", bytes) };
    let observations = vec![
        json(
            "plain",
            " {\"b\" : 1.50 ,\r\n\t\"a\":\"\\u00e9é\\/\" , \"n\":123456789012345678901234567890}\n",
        ),
        data("plain", "[1e5, -0, 0.10]"),
        typed("application/octet-stream", binary),
        typed("text/plain", vec![]),
        typed("application/problem+json", b"{}".to_vec()),
    ];
    let said = publish(&acme, observations.clone()).await;
    assert_eq!(kinds(&said), [Outcome::Success; 5], "{said:?}");
    let accepted = accepted(&observations, &said);
    adds_up(&pair, &acme, &accepted).await;
    for record in list(&acme).await {
        let sent = &accepted[&record.id];
        assert_eq!(download(&acme, &record.id).await, sent);
        assert_eq!(record.checksum, hex::encode(Md5::digest(sent)));
        assert_eq!(record.size, sent.len() as u64);
    }
}
