//! Definitions over HTTP, as aecontent's clients use them.

use http::StatusCode;
use serde_json::{Value, json};
use sluice_tests::{Pair, Tenant};

use crate::http::support::{Answer, Http, normalised};

const ALL: &str = "/aecontent/v1/acme/observations";
const SYSTEM_WIDE: &str = "/aecontent/v1/observations";

async fn started() -> (Pair, Http) {
    let pair = Pair::builder().results_replicas(1).start().await;
    let acme = Http::ingest(&pair, Tenant::Acme);
    (pair, acme)
}

fn id(answer: &Answer, status: StatusCode, field: &str) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1);
    body[field].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_definition_is_stored_shown_overwritten_and_deleted() {
    let (_pair, acme) = started().await;
    let body = json!({
        "description": "too many logins", "unique": 3600, "unique_by": ["/keys", "/a~1b"], "throttle_count": 5,
        "throttle_period": 60, "json_schema": {"type": "object", "required": ["keys"]}, "disabled": true
    });
    let put = acme.post(&format!("{ALL}?path=security/bf/excessive-logins"), body.to_string()).await;
    let stored = id(&put, StatusCode::CREATED, "stored");
    let path = format!("{ALL}/paths/security%2Fbf%2Fexcessive-logins");
    let got = acme.get(&path).await;
    let expected = concat!(
        r#"{"id":"<uuid>","account_id":"acme","path":"security/bf/excessive-logins","#,
        r#""description":"too many logins","unique":3600,"unique_by":["/keys","/a~1b"],"throttle_count":5,"#,
        r#""throttle_period":60,"json_schema":{"required":["keys"],"type":"object"},"storage_config":null,"#,
        r#""disabled":true,"etag":"<hex>","date_created":"<date>","date_updated":"<date>"}"#
    );
    assert_eq!(normalised(got.text()), expected);
    assert_eq!(got.json()["id"], *stored);
    assert_eq!(acme.get(&format!("{ALL}/ids/{stored}")).await.text(), got.text());
    assert_eq!(acme.get(ALL).await.json(), json!({ stored.clone(): got.json() }));

    // What was got can be put again; with its etag only once.
    let again = acme.post(ALL, got.body.clone()).await;
    assert_eq!(id(&again, StatusCode::CREATED, "stored"), stored);
    let stale = acme.post(ALL, got.body.clone()).await;
    assert_eq!(stale.error(), (409, "conflict".into()));
    let bare = acme.post(&format!("{ALL}?path=security/bf/excessive-logins"), "{}").await;
    assert_eq!(id(&bare, StatusCode::CREATED, "stored"), stored);
    let shown = acme.get(&path).await.json();
    for absent in ["unique", "throttle_count", "throttle_period", "json_schema", "storage_config"] {
        assert_eq!(shown[absent], Value::Null, "{absent}");
    }
    assert_eq!(id(&acme.delete(&path).await, StatusCode::OK, "deleted"), stored);
    for answer in
        [acme.get(&path).await, acme.delete(&path).await, acme.get(&format!("{ALL}/ids/{stored}")).await]
    {
        assert_eq!(answer.error(), (404, "not-found".into()));
    }
    assert_eq!(acme.get(ALL).await.text(), "{}");
}

#[tokio::test]
async fn system_wide_ones_are_for_all_and_written_by_few() {
    let (pair, acme) = started().await;
    let admin = Http::ingest(&pair, Tenant::Admin);
    let put = admin.post(&format!("{SYSTEM_WIDE}?path=a/b"), r#"{"unique":60}"#).await;
    let stored = id(&put, StatusCode::CREATED, "stored");
    let shown = acme.get(&format!("{SYSTEM_WIDE}/paths/a%2Fb")).await.json();
    assert_eq!((&shown["account_id"], &shown["unique"]), (&Value::Null, &json!(60)));
    assert_eq!(acme.get(&format!("{ALL}/paths/a%2Fb")).await.json(), shown);
    assert_eq!(acme.get(&format!("{SYSTEM_WIDE}/ids/{stored}")).await.json(), shown);
    // A storage config belongs to one organisation.
    let elsewhere = r#"{"storage_config":"01963f2e-7d9a-7c31-8f0e-000000000001"}"#;
    let named = admin.post(&format!("{SYSTEM_WIDE}?path=a/b"), elsewhere).await;
    assert_eq!(named.error(), (400, "invalid-parameter".into()));
    assert_eq!(named.params(), ["storage_config"]);
    id(&acme.post(&format!("{ALL}?path=stored"), elsewhere).await, StatusCode::CREATED, "stored");
    acme.delete(&format!("{ALL}/paths/stored")).await;
    // With its slashes as they are, too.
    assert_eq!(acme.get(&format!("{SYSTEM_WIDE}/paths/a/b")).await.json(), shown);
    assert_eq!(acme.get(&format!("{ALL}/paths/a/b")).await.json(), shown);
    for unknown in ["a", "a/b/", "a//b", "/a/b"] {
        let answer = acme.get(&format!("{ALL}/paths/{unknown}")).await;
        assert_eq!(answer.error(), (404, "not-found".into()), "{unknown}");
    }
    // What was got can be put as an own one: the etag is the other's.
    let own = id(&acme.post(ALL, shown.to_string()).await, StatusCode::CREATED, "stored");
    assert_ne!(own, stored);
    acme.delete(&format!("{ALL}/paths/a%2Fb")).await;
    // An account's list is what is in force for it: an own one hides the other.
    let all = acme.get(&format!("{SYSTEM_WIDE}?format=extended&include_metadata=true")).await.json();
    assert_eq!(all, json!({ stored.clone(): shown }));
    assert_eq!(acme.get(ALL).await.json(), all);
    let own = id(&acme.post(&format!("{ALL}?path=a/b"), "{}").await, StatusCode::CREATED, "stored");
    assert_eq!(acme.get(ALL).await.json().as_object().unwrap().keys().collect::<Vec<_>>(), [&own]);
    assert_eq!(acme.get(SYSTEM_WIDE).await.json(), all);
    acme.delete(&format!("{ALL}/paths/a%2Fb")).await;
    assert_eq!(acme.get(&format!("{ALL}?ts=1")).await.params(), ["ts"]);
    let refused = [
        acme.post(&format!("{SYSTEM_WIDE}?path=a/b"), "{}").await,
        acme.delete(&format!("{SYSTEM_WIDE}/paths/a%2Fb")).await,
        acme.get("/aecontent/v1/globex/observations").await,
    ];
    for answer in refused {
        assert_eq!(answer.error(), (403, "missing-scope".into()));
    }
    assert_eq!(acme.delete(&format!("{ALL}/paths/a%2Fb")).await.error(), (404, "not-found".into()));
    let deleted = admin.delete(&format!("{SYSTEM_WIDE}/paths/a/b")).await;
    assert_eq!(id(&deleted, StatusCode::OK, "deleted"), stored);
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_is_named_by_field() {
    let (_pair, acme) = started().await;
    let wrong = r#"{"path":"a b","unique":0,"throttle_count":1,"json_schema":{"type":"nonsense"},"storage_config":"x"}"#;
    let fields = ["json_schema", "path", "storage_config", "throttle_period", "unique"];
    let put = acme.post(ALL, wrong).await;
    assert_eq!(
        (put.error(), put.params()),
        ((400, "invalid-parameter".into()), fields.map(String::from).to_vec())
    );
    let validations = "/aecontent/v1/acme/validations/observations";
    let said = acme.post(validations, wrong).await;
    assert_eq!((said.status, &said.json()["valid"]), (StatusCode::OK, &json!(false)));
    assert_eq!(said.params(), fields);
    let typed = acme.post(validations, r#"{"path":"a","unique":"1h","colour":"red"}"#).await;
    assert_eq!((typed.status, typed.params()), (StatusCode::OK, vec!["colour".to_owned()]));
    for good in [r#"{"path":"a","unique":1}"#, r#"{"unique":1}"#] {
        assert_eq!(acme.post(validations, good).await.text(), r#"{"valid":true,"params":{}}"#);
    }
    assert_eq!(acme.get(ALL).await.text(), "{}");

    for body in ["", "[]", "null", "{", r#"{"path":"a","path":"a"}"#, &"[".repeat(100_000)] {
        for path in [ALL, validations] {
            assert_eq!(
                acme.post(path, body.to_owned()).await.error(),
                (400, "invalid-body".into()),
                "{body:.20}"
            );
        }
    }
    assert_eq!(acme.post(ALL, vec![b' '; 1024 * 1024 + 1]).await.error(), (413, "limit-exceeded".into()));
    let twice = acme.post(&format!("{ALL}?path=a"), r#"{"path":"b"}"#).await;
    assert_eq!(twice.params(), ["path"]);
    for path in ["paths/%00", "paths/..%2F..", "ids/x", "ids/%00"] {
        assert_eq!(acme.get(&format!("{ALL}/{path}")).await.error(), (404, "not-found".into()), "{path}");
    }
}
