//! The OpenAPI documents. That they list the very routes there are, with their
//! scopes, each service checks at its start; here, that they are served, are
//! whole, and that what they list is there.

use http::{Method, Request, Version};
use http_body_util::Full;
use serde_json::Value;
use sluice_tests::Pair;

use crate::http::support::{Answer, send};

async fn call(address: std::net::SocketAddr, method: &str, path: &str) -> Answer {
    let method: Method = method.to_uppercase().parse().unwrap();
    let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
    send(address, Version::HTTP_11, request).await
}

/// Every `$ref` in a document leads somewhere.
fn refers(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                let pointer = to.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{to}");
            }
            fields.values().for_each(|field| refers(document, field));
        }
        Value::Array(list) => list.iter().for_each(|item| refers(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn documented_routes_are_there_and_others_are_not() {
    let pair = Pair::start().await;
    for (address, least) in [(pair.ingest[0].address(), 14), (pair.results[0].address(), 7)] {
        let document = call(address, "get", "/openapi.json").await.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        refers(&document, &document);
        let mut operations = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                operations += 1;
                assert!(operation["operationId"].is_string() && operation["summary"].is_string());
                let answer = call(address, method, &path.replace(['{', '}'], "x")).await;
                let expected = match path.as_str() {
                    "/openapi.json" => 200,
                    // The URL's signature is the credential.
                    "/data/{id}" => 403,
                    _ => 401,
                };
                assert_eq!(answer.status.as_u16(), expected, "{method} {path}");
                let code = answer.status.as_u16().to_string();
                assert!(operation["responses"][&code].is_object(), "{method} {path} {code}");
                for part in path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
                    let parameters =
                        operation["parameters"].to_string() + &document["components"].to_string();
                    assert!(parameters.contains(&format!(r#""name":"{part}""#)), "{path}");
                }
            }
            let beyond =
                call(address, "get", &format!("{path}/no/such/route").replace(['{', '}'], "x")).await;
            // A definition's path has slashes of its own.
            let (status, error) =
                if path.ends_with("{path}") { (401, "unauthorized") } else { (404, "not-found") };
            assert_eq!(beyond.error(), (status, error.into()), "{path}");
        }
        assert_eq!(operations, least);
    }
}

/// Every operation, but the one that gives the document itself.
fn operations(document: &Value) -> Vec<&Value> {
    let paths = document["paths"].as_object().unwrap();
    let methods = paths.iter().filter(|(path, _)| *path != "/openapi.json").map(|(_, methods)| methods);
    methods.flat_map(|methods| methods.as_object().unwrap().values()).collect()
}

/// Whoever calls may find no room, a fault, or a service that can't answer now.
#[test]
fn every_operation_documents_the_errors_of_every_call() {
    let mut missing = Vec::new();
    for document in [
        include_str!("../../../crates/ingest/src/http/openapi.json"),
        include_str!("../../../crates/results/src/http/openapi.json"),
    ] {
        let document: Value = serde_json::from_str(document).unwrap();
        for operation in operations(&document) {
            let absent =
                ["429", "500", "503"].into_iter().filter(|code| operation["responses"][code].is_null());
            missing.extend(absent.map(|code| format!("{} {code}", operation["operationId"])));
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
