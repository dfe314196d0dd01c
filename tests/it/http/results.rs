//! The results API over HTTP, as ricloud's clients use it.

use http::{Method, Request, StatusCode, Version};
use http_body_util::Full;
use serde_json::{Value, json};
use sluice_proto::results::v1::NewResult;
use sluice_tests::{Link, Pair, Tenant};

use crate::{
    http::support::{Answer, Http, normalised, raw, send},
    results::shelf::{Shelf, new},
    support::{definition, put},
};

/// A results service with `count` results of `acme`, and their ids, newest first.
async fn filled(count: usize) -> (Shelf, Http, Vec<String>) {
    let shelf = Shelf::start().await;
    for n in 0..count {
        let named = NewResult { poll: format!("poll-{}", n % 2), ..new(format!("{{\"n\":{n}}}")) };
        shelf.record(&[named]).await;
    }
    let acme = Http::results(&shelf.0, Tenant::Acme);
    let ids = ids(&acme.get("/results?limit=1000&state=available,consumed,expired").await);
    assert_eq!(ids.len(), count);
    (shelf, acme, ids)
}

fn ids(list: &Answer) -> Vec<String> {
    let list = list.json();
    assert_eq!((&list["resource"], &list["url"]), (&json!("list"), &json!("/results")));
    list["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect()
}

fn has_more(list: &Answer) -> bool {
    list.json()["has_more"].as_bool().unwrap()
}

#[tokio::test]
async fn a_result_and_a_list_look_like_this() {
    let (_shelf, acme, ids) = filled(1).await;
    let result = concat!(
        r#"{"id":"<uuid>","resource":"result","organisation":"acme","poll":"poll-0","task":null,"#,
        r#""identifier":"<identifier>","url":"db://results/acme/<uuid>","type":"application/json","#,
        r#""checksum":"<hex>","size":7,"signed_url":null,"state":"available","date_created":"<date>","#,
        r#""date_consumed":null,"date_deleted":null,"definition":"<definition>","storage_config":null}"#
    );
    let shown = |answer: &Answer| {
        let body = answer.json();
        let record = body.get("data").map_or(&body, |data| &data[0]);
        let mut text = normalised(answer.text());
        for field in ["identifier", "definition"] {
            let value = record[field].as_str().unwrap();
            text = text.replace(&format!(r#""{field}":"{value}""#), &format!(r#""{field}":"<{field}>""#));
        }
        text
    };
    let got = acme.get(&format!("/results/{}", ids[0])).await;
    assert_eq!((got.status, shown(&got).as_str()), (StatusCode::OK, result));
    let list = acme.get("/results").await;
    let expected = format!(r#"{{"resource":"list","url":"/results","data":[{result}],"has_more":false}}"#);
    assert_eq!(shown(&list), expected);
    let acked = acme.post(&format!("/results/{}/ack", ids[0]), "null").await;
    let consumed = result
        .replace(r#""state":"available""#, r#""state":"consumed""#)
        .replace(r#""date_consumed":null"#, r#""date_consumed":"<date>""#);
    assert_eq!(shown(&acked), consumed);
}

#[tokio::test]
async fn h2c_and_both_other_headers_say_the_same() {
    let (shelf, acme, ids) = filled(1).await;
    let path = format!("/results/{}", ids[0]);
    let expected = acme.get(&path).await;
    let token = shelf.0.token(Tenant::Acme);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (name, value) in
            [("authorization", format!("Bearer {token}")), ("x-aims-auth-token", token.to_owned())]
        {
            let request = Request::get(&path).header(name, value).body(Full::default()).unwrap();
            let answer = send(acme.address, version, request).await;
            assert_eq!((answer.status, &answer.body), (StatusCode::OK, &expected.body), "{version:?} {name}");
        }
    }
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_answer_the_same() {
    let (shelf, acme, ids) = filled(1).await;
    let globex = Http::results(&shelf.0, Tenant::Globex);
    let foreign = globex.get(&format!("/results/{}", ids[0])).await;
    let unknown = acme.get("/results/01963f2e-7d9a-7c31-8f0e-000000000001").await;
    let malformed = acme.get("/results/%00%2F..").await;
    let body = r#"{"error":"not-found","message":"no such result","params":{}}"#;
    for answer in [foreign, unknown, malformed] {
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, body));
    }
    let ack = globex.post(&format!("/results/{}/ack", ids[0]), "").await;
    assert_eq!((ack.status, ack.text()), (StatusCode::NOT_FOUND, body));
}

#[tokio::test]
async fn the_organisation_is_the_tokens_or_the_headers() {
    let (shelf, acme, ids) = filled(1).await;
    let admin = Http::results(&shelf.0, Tenant::Admin);
    let missing = admin.get("/results").await;
    assert_eq!(missing.error(), (400, "invalid-parameter".into()));
    assert_eq!(missing.params(), ["Sluice-Organisation"]);
    let named =
        |http: &Http, name: &str| http.request(Method::GET, "/results").header("Sluice-Organisation", name);
    let listed = admin.send(named(&admin, "acme"), "").await;
    assert_eq!(self::ids(&listed), ids);
    let foreign = acme.send(named(&acme, "globex"), "").await;
    assert_eq!(foreign.error(), (403, "missing-scope".into()));
}

#[tokio::test]
async fn pages_go_after_and_before_a_result() {
    let (shelf, acme, all) = filled(5).await;
    // Any state will do for a place in the list.
    acme.post(&format!("/results/{}/ack", all[1]), "").await;
    shelf.expire(&all[3]).await;
    let page = async |query: String| {
        let list = acme.get(&format!("/results?state=available&state=consumed,expired&{query}")).await;
        (ids(&list), has_more(&list))
    };
    assert_eq!(page("limit=2".into()).await, (all[..2].to_vec(), true));
    assert_eq!(page(format!("limit=2&after_id={}", all[1])).await, (all[2..4].to_vec(), true));
    assert_eq!(page(format!("limit=2&after_id={}", all[3])).await, (all[4..].to_vec(), false));
    // Where a list stops, not where it begins.
    assert_eq!(page(format!("limit=2&before_id={}", all[3])).await, (all[..2].to_vec(), true));
    assert_eq!(page(format!("limit=3&before_id={}", all[3])).await, (all[..3].to_vec(), false));
    assert_eq!(page(format!("before_id={}", all[0])).await, (vec![], false));
    let between = format!("after_id={}&before_id={}", all[0], all[4]);
    assert_eq!(page(between.clone()).await, (all[1..4].to_vec(), false));
    assert_eq!(page(format!("limit=2&{between}")).await, (all[1..3].to_vec(), true));
    assert_eq!(page(format!("after_id={}", all[4])).await, (vec![], false));

    for id in ["01963f2e-7d9a-7c31-8f0e-000000000001", "", "x"] {
        for side in ["after_id", "before_id"] {
            let answer = acme.get(&format!("/results?{side}={id}")).await;
            assert_eq!(
                (answer.error(), answer.params()),
                ((400, "invalid-parameter".into()), vec![side.into()])
            );
        }
    }
}

#[tokio::test]
async fn ten_are_listed_where_no_limit_is_given() {
    let (_shelf, acme, all) = filled(11).await;
    let list = acme.get("/results").await;
    assert_eq!((ids(&list), has_more(&list)), (all[..10].to_vec(), true));
    acme.post(&format!("/results/{}/ack", all[10]), "").await;
    let list = acme.get("/results").await;
    assert_eq!((ids(&list), has_more(&list)), (all[..10].to_vec(), false));
}

#[tokio::test]
async fn filters_are_those_of_the_contract() {
    let (shelf, acme, all) = filled(4).await;
    acme.post(&format!("/results/{}/ack", all[0]), "").await;
    let first = acme.get(&format!("/results/{}", all[3])).await.json();
    let text = |field: &str| first[field].as_str().unwrap().to_owned();
    let list = async |query: String| ids(&acme.get(&format!("/results?{query}")).await);
    assert_eq!(list(String::new()).await, all[1..]);
    assert_eq!(list("state=consumed".into()).await, all[..1]);
    assert_eq!(list("poll=poll-0".into()).await, [all[1].clone(), all[3].clone()]);
    assert_eq!(list("task=".into()).await, all[1..]);
    assert_eq!(list("task=t".into()).await, [""; 0]);
    assert_eq!(list(format!("checksum={}", text("checksum"))).await, all[3..]);
    let date = text("date_created");
    assert_eq!(list(format!("date_created={date}")).await, all[3..]);
    assert_eq!(list(format!("date_created[gt]={date}")).await, all[1..3]);
    assert_eq!(list(format!("date_created%5Blte%5D={date}")).await, all[3..]);
    assert_eq!(list(format!("date_created[lt]={date}")).await, [""; 0]);
    // As ricloud's client writes a datetime without a zone, and a date: UTC.
    assert_eq!(list("date_created[gt]=2020-02-29T11:59:15.110".into()).await, all[1..]);
    assert_eq!(list("date_created[lt]=2020-02-29".into()).await, [""; 0]);
    shelf.expire(&all[1]).await;
    for (state, field, id) in [("consumed", "date_consumed", &all[0]), ("expired", "date_deleted", &all[1])] {
        let date = acme.get(&format!("/results/{id}")).await.json()[field].as_str().unwrap().to_owned();
        for (range, is_in) in [
            (format!("={date}"), true),
            (format!("[gte]={date}"), true),
            (format!("[lte]={date}"), true),
            (format!("[gt]={date}"), false),
            (format!("[lt]={date}"), false),
            ("[gt]=2020-01-01".into(), true),
            ("[lt]=2020-01-01".into(), false),
        ] {
            let expected = if is_in { vec![id.clone()] } else { vec![] };
            assert_eq!(list(format!("state={state}&{field}{range}")).await, expected, "{field}{range}");
        }
    }
}

#[tokio::test]
async fn a_query_that_can_not_be_read_names_its_parameters() {
    let (_shelf, acme, _) = filled(0).await;
    for (query, fields) in [
        ("color=red&sise=2", vec!["color", "sise"]),
        ("limit=0", vec!["limit"]),
        ("limit=1001", vec!["limit"]),
        ("limit=ten&state=gone&checksum=zz", vec!["limit", "state"]),
        ("checksum=zz&poll=%00", vec!["checksum", "poll"]),
        ("limit=1&limit=2", vec!["limit"]),
        ("date_created=yesterday&date_deleted[lt]=1", vec!["date_created", "date_deleted[lt]"]),
        ("date_created=2020-01-01T00:00:00Z&date_created[lt]=2021-01-01T00:00:00Z", vec!["date_created"]),
        ("date_consumed[gte]=99999-01-01T00:00:00Z", vec!["date_consumed[gte]"]),
    ] {
        let answer = acme.get(&format!("/results?{query}")).await;
        assert_eq!(answer.error(), (400, "invalid-parameter".into()), "{query}");
        assert_eq!(answer.params(), fields, "{query}");
    }
}

#[tokio::test]
async fn acknowledging_takes_any_body_and_counts_once() {
    let (shelf, acme, all) = filled(4).await;
    let path = format!("/results/{}/ack", all[0]);
    // As ricloud's own client sends it: `null` without a content type.
    for body in ["null", "", "not json {"] {
        let answer = acme.send(acme.request(Method::POST, &path), body).await;
        assert_eq!((answer.status, &answer.json()["state"]), (StatusCode::OK, &json!("consumed")));
    }
    shelf.expire(&all[1]).await;
    let expired = acme.post(&format!("/results/{}/ack", all[1]), "").await;
    assert_eq!(expired.error(), (409, "conflict".into()));

    let a_list = format!(r#"[["{}"]]"#, all[2]);
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"[["x"]]"#,
        &a_list,
        r#"{"ids":[1]}"#,
        r#"{"ids":[],"all":true}"#,
        "{\"ids\":[\"\u{1}\"]}",
    ] {
        let answer = acme.post("/results/ack", body.to_owned()).await;
        assert_eq!(answer.error(), (400, "invalid-body".into()), "{body}");
    }
    let mut wanted = all.clone();
    wanted.extend([all[2].clone(), "nonsense".into(), "01963f2e-7d9a-7c31-8f0e-000000000001".into()]);
    let ack = async |ids: &[String]| acme.post("/results/ack", json!({ "ids": ids }).to_string()).await;
    assert_eq!(ack(&wanted).await.text(), r#"{"acknowledged":2}"#);
    assert_eq!(ack(&wanted).await.text(), r#"{"acknowledged":0}"#);
    assert_eq!(ack(&[]).await.text(), r#"{"acknowledged":0}"#);
    let many: Vec<_> = (0..10_001).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    assert_eq!(ack(&many[1..]).await.text(), r#"{"acknowledged":0}"#);
    assert_eq!(ack(&many).await.error(), (400, "invalid-parameter".into()));
    // As large as over gRPC.
    const LARGEST: usize = 16 * 1024 * 1024;
    let body = json!({ "ids": vec!["x".repeat(1600); 10_000] }).to_string();
    let sized = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    for path in ["/results/ack", &path] {
        assert_eq!(acme.post(path, sized(LARGEST)).await.status, StatusCode::OK, "{path}");
        assert_eq!(
            acme.post(path, sized(LARGEST + 1)).await.error(),
            (413, "limit-exceeded".into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_failure_has_the_contracts_form() {
    let (shelf, acme, _) = filled(0).await;
    let none = Http { token: "sluice_k1_wrong".into(), ..Http::results(&shelf.0, Tenant::Acme) };
    let answer = none.get("/results").await;
    assert_eq!(answer.error(), (401, "unauthorized".into()));
    assert!(answer.headers.contains_key("www-authenticate"));
    let intake = Http::results(&shelf.0, Tenant::Intake);
    assert_eq!(intake.get("/results").await.error(), (403, "missing-scope".into()));
    for path in ["/", "/results/", "/data/", "/results/a/b/c", "/sluice.results.v1.ResultsService/GetResult"]
    {
        assert_eq!(acme.get(path).await.error(), (404, "not-found".into()), "{path}");
    }
    let wrong = acme.delete("/results").await;
    assert_eq!(wrong.error(), (404, "not-found".into()));
    assert_eq!(wrong.headers["allow"], "GET,HEAD");
    let text = acme.request(Method::POST, "/results/ack").header("content-type", "text/plain");
    assert_eq!(acme.send(text, r#"{"ids":[]}"#).await.error(), (400, "invalid-body".into()));
}

#[tokio::test]
async fn grpc_callers_get_grpcs_errors_on_any_path() {
    let (_shelf, acme, _) = filled(0).await;
    for (path, token, code) in [
        ("/results", &*acme.token, "12"),
        ("/sluice.results.v1.ResultsService/GetResult", "no", "16"),
        ("/sluice.results.v1.ResultsIntakeService/RecordResults", &acme.token, "7"),
    ] {
        let request =
            Request::post(path).header("content-type", "application/grpc").header("x-aims-auth-token", token);
        let answer = send(acme.address, Version::HTTP_2, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(answer.headers["grpc-status"], code, "{path}");
    }
}

#[tokio::test]
async fn without_its_databases_a_service_says_when_to_come_again() {
    let pair = Pair::builder().proxied(Link::ResultsDatabase).proxied(Link::IngestDatabase).start().await;
    put(&pair.clients(Tenant::Acme), definition("plain")).await;
    pair.proxy(Link::ResultsDatabase).refuse();
    pair.proxy(Link::IngestDatabase).refuse();
    let (results, ingest) = (Http::results(&pair, Tenant::Acme), Http::ingest(&pair, Tenant::Acme));
    for answer in [results.get("/results").await, ingest.get("/aecontent/v1/acme/observations").await] {
        assert_eq!(answer.error(), (503, "unavailable".into()));
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let published = ingest.post("/aepublish/v1/acme/observation", r#"[{"path":"plain","chkpt":"1"}]"#).await;
    assert_eq!(published.status, StatusCode::OK);
    let outcome = &published.json()["observations"][0];
    assert_eq!((&outcome["outcome"], &outcome["delay"]), (&json!("retry"), &json!(1)));
}

#[tokio::test]
async fn a_body_that_breaks_off_or_never_ends_is_refused_in_time() {
    let (_shelf, acme, _) = filled(0).await;
    let head = |length: &str| {
        let token = &acme.token;
        format!("POST /results/ack HTTP/1.1\r\nHost: x\r\nAuthorization: Token {token}\r\n{length}\r\n\r\n{{")
    };
    let answer = String::from_utf8(raw(acme.address, head("Content-Length: 50").as_bytes()).await).unwrap();
    let (top, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(top.starts_with("HTTP/1.1 400 "), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"], "invalid-body");
    let chunked = head("Transfer-Encoding: chunked").replace("\r\n\r\n{", "\r\n\r\nzz\r\n");
    let answer = String::from_utf8(raw(acme.address, chunked.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn slow_clients_are_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_shelf, acme, _) = filled(0).await;
    let token = &acme.token;
    let body = format!(
        "POST /results/ack HTTP/1.1\r\nHost: x\r\nAuthorization: Token {token}\r\nContent-Length: 9\r\n\r\n{{"
    );
    let talk = async |sent: &str| {
        let mut stream = tokio::net::TcpStream::connect(acme.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let read = async { stream.read_exact(&mut answer).await.is_ok() };
        // It waits for up to four seconds itself.
        let answered = tokio::time::timeout(std::time::Duration::from_secs(20), read)
            .await
            .unwrap_or_else(|_| panic!("in time: {sent:?}"));
        answered.then(|| String::from_utf8_lossy(&answer).into_owned())
    };
    let (body, head, silence) = tokio::join!(talk(&body), talk("GET /results HT"), talk(""));
    assert_eq!(body.as_deref(), Some("HTTP/1.1 503"), "worth another try");
    assert!(head.is_none_or(|line| line.starts_with("HTTP/1.1 4")));
    assert_eq!(silence, None);
}
