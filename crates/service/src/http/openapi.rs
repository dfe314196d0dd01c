//! What an OpenAPI 3.1 document says of routes, to hold it against those that
//! there are. Each operation's description names its scope; one with an empty
//! `security` needs no token.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::program::Failure;

/// How a description names the scope.
const SCOPE: &str = "Scope `";

/// Every operation, as `METHOD /path (scope)`.
pub(super) fn routes(document: &str) -> Result<BTreeSet<String>, Failure> {
    let document: Value = serde_json::from_str(document)?;
    let paths = document["paths"].as_object().ok_or("the OpenAPI document has no paths")?;
    let mut routes = BTreeSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let method = method.to_uppercase();
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            let scope = if open { "no token" } else { scope(operation) };
            routes.insert(format!("{method} {path} ({scope})"));
        }
    }
    Ok(routes)
}

fn scope(operation: &Value) -> &str {
    let description = operation["description"].as_str().unwrap_or_default();
    let named = description.split_once(SCOPE).and_then(|(_, rest)| rest.split_once('`'));
    named.map_or("no scope", |(scope, _)| scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_with_their_scopes() {
        let document = r#"{"paths":{"/a/{id}":{"get":{"description":"Scope `a.read`. More."},"post":{}},
            "/openapi.json":{"get":{"security":[]}}}}"#;
        let told: Vec<_> = routes(document).unwrap().into_iter().collect();
        assert_eq!(told, ["GET /a/{id} (a.read)", "GET /openapi.json (no token)", "POST /a/{id} (no scope)"]);
        assert!(routes("{}").is_err() && routes("no").is_err());
    }
}
