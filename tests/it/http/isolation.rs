//! Nobody reaches another organisation by a route. Driven from the OpenAPI
//! documents, which each service holds against its routes at the start, so that a
//! new route is covered when it is written.

use http::{Method, StatusCode};
use serde_json::Value;
use sluice_proto::ingest::v1::Outcome;
use sluice_tests::{Pair, Tenant};

use crate::{
    http::support::{Answer, Http},
    support::*,
};

/// The header by which callers of the results service name an organisation.
const ORGANISATION: &str = "Sluice-Organisation";

/// What globex has, and acme must not find.
struct Theirs {
    definition_path: String,
    definition_id: String,
    result_id: String,
}

async fn theirs(pair: &Pair) -> Theirs {
    let globex = pair.clients(Tenant::Globex);
    let written = put(
        &globex,
        sluice_proto::ingest::v1::Definition { organisation: "globex".into(), ..definition("theirs") },
    )
    .await;
    let said = publish_one(&globex, json("theirs", "1")).await;
    assert_eq!(said.outcome(), Outcome::Success);
    drained(pair).await;
    Theirs { definition_path: "theirs".into(), definition_id: written.id, result_id: said.ingest_id }
}

/// Every route that needs a token, with its method.
async fn routes(http: &Http) -> Vec<(Method, String)> {
    let document = http.get("/openapi.json").await.json();
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] != Value::Array(Vec::new()) {
                routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
            }
        }
    }
    assert!(!routes.is_empty());
    routes
}

/// Calls a route with what it needs to get as far as the question whose it is.
async fn call(http: &Http, method: &Method, path: &str, organisation: Option<&str>) -> Answer {
    // Enough of a body for those that read one.
    const BODY: &str = r#"{"ids":["01963f2e-7d9a-7c31-8f0e-000000000001"]}"#;
    let mut request = http.request(method.clone(), path).header("content-type", "application/json");
    if let Some(organisation) = organisation {
        request = request.header(ORGANISATION, organisation);
    }
    http.send(request, BODY).await
}

#[tokio::test]
async fn no_route_acts_for_another_organisation() {
    let pair = Pair::start().await;
    let theirs = theirs(&pair).await;
    let (ingest, results) = (Http::ingest(&pair, Tenant::Acme), Http::results(&pair, Tenant::Acme));
    let mut named = 0;
    for (method, path) in routes(&ingest).await.iter().filter(|(_, path)| path.contains("{account_id}")) {
        let path = path
            .replace("{account_id}", "globex")
            .replace("{path}", &theirs.definition_path)
            .replace("{id}", &theirs.definition_id);
        let answer = call(&ingest, method, &path, None).await;
        assert_eq!(answer.error(), (403, "missing-scope".into()), "{method} {path}");
        named += 1;
    }
    for (method, path) in routes(&results).await {
        let path = path.replace("{id}", &theirs.result_id);
        let answer = call(&results, &method, &path, Some("globex")).await;
        assert_eq!(answer.error(), (403, "missing-scope".into()), "{method} {path}");
        named += 1;
    }
    assert!(named >= 11, "{named} routes");
    untouched(&pair, &theirs).await;
}

#[tokio::test]
async fn no_route_finds_what_another_organisation_has() {
    let pair = Pair::start().await;
    let theirs = theirs(&pair).await;
    let (ingest, results) = (Http::ingest(&pair, Tenant::Acme), Http::results(&pair, Tenant::Acme));
    for (method, path) in routes(&ingest).await {
        if !path.contains("{path}") && !path.contains("{id}") {
            continue;
        }
        let path = path
            .replace("{account_id}", "acme")
            .replace("{path}", &theirs.definition_path)
            .replace("{id}", &theirs.definition_id);
        let system_wide = !path.contains("acme");
        let answer = call(&ingest, &method, &path, None).await;
        // What is system-wide only administrators delete, found or not.
        if system_wide && method == Method::DELETE {
            assert_eq!(answer.error(), (403, "missing-scope".into()), "{method} {path}");
        } else {
            assert_eq!(answer.error(), (404, "not-found".into()), "{method} {path}");
        }
    }
    for (method, path) in routes(&results).await.iter().filter(|(_, path)| path.contains("{id}")) {
        let path = path.replace("{id}", &theirs.result_id);
        let answer = call(&results, method, &path, None).await;
        assert_eq!(answer.error(), (404, "not-found".into()), "{method} {path}");
    }
    for side in ["after_id", "before_id"] {
        let answer = results.get(&format!("/results?{side}={}", theirs.result_id)).await;
        assert_eq!((answer.error(), answer.params()), ((400, "invalid-parameter".into()), vec![side.into()]));
    }
    let many = results.post("/results/ack", format!(r#"{{"ids":["{}"]}}"#, theirs.result_id)).await;
    assert_eq!((many.status, &many.json()["acknowledged"]), (StatusCode::OK, &Value::from(0)), "{many:?}");
    let listed = results.get("/results").await;
    assert_eq!(listed.json()["data"], Value::Array(Vec::new()));
    untouched(&pair, &theirs).await;
}

/// All of it is still there for its own.
async fn untouched(pair: &Pair, theirs: &Theirs) {
    let (ingest, results) = (Http::ingest(pair, Tenant::Globex), Http::results(pair, Tenant::Globex));
    let path = format!("/aecontent/v1/globex/observations/paths/{}", theirs.definition_path);
    assert_eq!(ingest.get(&path).await.status, StatusCode::OK);
    let record = results.get(&format!("/results/{}", theirs.result_id)).await.json();
    assert_eq!(record["state"], "available", "{record}");
}
