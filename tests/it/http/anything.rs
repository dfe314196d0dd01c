//! Whatever is sent, the answer is a typed one within five seconds, and never a
//! fault of the service.

use std::net::SocketAddr;

use http::{Method, Request, Version};
use http_body_util::Full;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use sluice_tests::{Pair, Tenant};

use crate::{
    http::support::{Answer, exchange, raw},
    support::{definition, put},
};

const REQUESTS: usize = 2000;
const RAW_REQUESTS: usize = 500;

/// One request, arbitrary but for what keeps it a request.
#[derive(Clone, Debug)]
struct Sent {
    results: bool,
    h2: bool,
    authorised: bool,
    method: String,
    target: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "acme",
            "globex",
            "a%2Fb",
            "plain",
            "%00",
            "%ff",
            "..",
            "%2e%2e",
            "null",
            "-1",
            "0",
            "1000",
            "1001",
            "99999999999999999999",
            "01963f2e-7d9a-7c31-8f0e-000000000001",
            "2020-02-29T11:59:15.110451Z",
            "9999-12-31T23:59:60Z",
            "-262143-01-01T00:00:00Z",
            "2020-02-30",
            "consumed,available",
            "%F0%9F%98%80"
        ])
        .prop_map(str::to_owned),
        "[A-Za-z0-9%._~:@!$'()*+,;=-]{0,12}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "/results",
        "/results/ack",
        "/results/{}",
        "/results/{}/ack",
        "/data/{}",
        "/openapi.json",
        "/aepublish/v1/{}/observation",
        "/aepublish/v1/acme/observation",
        "/aecontent/v1/observations",
        "/aecontent/v1/{}/observations",
        "/aecontent/v1/acme/observations/paths/{}",
        "/aecontent/v1/acme/observations/ids/{}",
        "/aecontent/v1/acme/validations/observations",
        "/aecontent/v1/observations/paths/{}",
        "/sluice.results.v1.ResultsService/GetResult",
        "/grpc.health.v1.Health/Check",
    ]);
    prop_oneof![
        8 => (known, text()).prop_map(|(path, part)| path.replace("{}", &part)),
        1 => vec(text(), 0..5).prop_map(|parts| format!("/{}", parts.join("/"))),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "poll",
            "task",
            "identifier",
            "checksum",
            "state",
            "limit",
            "after_id",
            "before_id",
            "path",
            "date_created",
            "date_created[gte]",
            "date_consumed[lt]",
            "date_deleted[gt]",
            "date_created%5Blte%5D",
        ])
        .prop_map(str::to_owned),
        "[a-z%&=+]{0,6}",
    ];
    let pairs = vec((name, text()).prop_map(|(name, value)| format!("{name}={value}")), 0..3);
    pairs.prop_map(|pairs| if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\"path\":\"plain\"",
        "\"a\":1",
        "\"ids\":[]",
        "\\u0000",
        "\\ud800",
        "1e400",
        "null",
        " ",
        "{\"path\":\"plain\"}",
        "\"unique\":60",
        "\"json_schema\":{}",
        "\u{feff}",
        "-",
        "\\",
    ]);
    prop_oneof![
        vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        vec(any::<u8>(), 0..64),
        prop::sample::select(vec!["[", "{\"a\":", "[{"]).prop_map(|piece| piece.repeat(50_000).into_bytes()),
        Just(br#"[{"path":"plain"},{"path":"plain","chkpt":7}]"#.to_vec()),
        Just(br#"{"ids":["x"]}"#.to_vec()),
        Just(br#"{"path":"z","unique":1}"#.to_vec()),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec![
        "content-type",
        "content-encoding",
        "accept",
        "sluice-organisation",
        "x-aims-auth-token",
        "grpc-timeout",
        "x-other",
        "expect",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "application/json",
            "text/plain",
            "gzip",
            "acme",
            "globex",
            "application/x-www-form-urlencoded",
            "1S",
            "100-continue",
            "",
        ])
        .prop_map(|value| value.as_bytes().to_vec()),
        vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..20),
    ];
    vec((name, value), 0..3)
}

fn sent() -> impl Strategy<Value = Sent> {
    let method = prop_oneof![
        6 => prop::sample::select(vec!["GET", "POST", "DELETE"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"]).prop_map(str::to_owned),
        1 => "[A-Z]{1,8}",
    ];
    (any::<bool>(), any::<bool>(), prop::bool::weighted(0.9), method, path(), query(), headers(), body())
        .prop_map(|(results, h2, authorised, method, path, query, headers, body)| Sent {
            results,
            h2,
            authorised,
            method,
            target: path + &query,
            headers,
            body,
        })
}

fn request(sent: &Sent, token: &str) -> Option<Request<Full<bytes::Bytes>>> {
    let method: Method = sent.method.parse().ok()?;
    // Tunnels are not HTTP requests, and its clients treat them apart.
    if method == Method::CONNECT {
        return None;
    }
    let mut request = Request::builder().method(method).uri(&sent.target);
    if sent.authorised {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in &sent.headers {
        request = request.header(*name, value.as_slice());
    }
    request.body(Full::new(sent.body.clone().into())).ok()
}

fn is_typed(sent: &Sent, answer: &Answer) {
    let status = answer.status.as_u16();
    assert!((200..300).contains(&status) || (400..500).contains(&status), "{sent:?}: {answer:?}");
    if sent.method == "HEAD" {
        return;
    }
    if status >= 400 {
        answer.error();
    } else {
        answer.json();
    }
}

fn address(pair: &Pair, results: bool) -> SocketAddr {
    if results { pair.results[0].address() } else { pair.ingest[0].address() }
}

#[tokio::test]
async fn every_request_gets_a_typed_answer_in_time() {
    let pair = Pair::start().await;
    put(&pair.clients(Tenant::Acme), definition("plain")).await;
    let mut runner = TestRunner::new(Config::default());
    let mut answered = 0;
    for _ in 0..REQUESTS {
        let sent = sent().new_tree(&mut runner).unwrap().current();
        let Some(request) = request(&sent, pair.token(Tenant::Acme)) else { continue };
        let version = if sent.h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let answer = exchange(address(&pair, sent.results), version, request);
        let answer = tokio::time::timeout(crate::http::support::PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer in time: {sent:?}"));
        is_typed(&sent, &answer.unwrap_or_else(|| panic!("no answer: {sent:?}")));
        answered += 1;
    }
    assert!(answered > REQUESTS / 2, "{answered}");
}

#[tokio::test]
async fn bytes_that_are_no_request_end_in_a_refusal_or_a_closed_connection() {
    let pair = Pair::start().await;
    let mut runner = TestRunner::new(Config::default());
    let pieces = prop_oneof![
        prop::sample::select(vec![
            "GET ",
            "POST ",
            "/results",
            " HTTP/1.1",
            "\r\n",
            "\r\n\r\n",
            "Host: x\r\n",
            "Content-Length: 5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\0\0\0\u{4}\0\0\0\0\0",
            ": ",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        vec(any::<u8>(), 0..30),
    ];
    let bytes = vec(pieces, 0..10).prop_map(|pieces| pieces.concat());
    for turn in 0..RAW_REQUESTS {
        let bytes = bytes.new_tree(&mut runner).unwrap().current();
        let answer = raw(address(&pair, turn % 2 == 0), &bytes).await;
        // HTTP/1.1 answers begin so; anything else is a frame of HTTP/2.
        for line in answer.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"HTTP/1")) {
            let status = String::from_utf8_lossy(line).into_owned();
            assert!(
                status.contains(" 4") || status.contains(" 2") || status.contains(" 100 "),
                "{status} {bytes:?}"
            );
        }
    }
}
