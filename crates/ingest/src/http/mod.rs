//! The HTTP surface: handlers convert, call, convert. It follows Alert Logic's
//! aepublish and aecontent APIs.

mod aecontent;
mod aepublish;
mod draft;
mod split;

use std::sync::Arc;

use http::Method;
use sluice_service::{Error, auth::Keys, http::Api, program::Failure};

use crate::{calls::DefinitionCalls, publisher::Publisher};

/// What publishing needs.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Decides.
    pub publisher: Publisher,
    /// Largest body.
    pub request_bytes_max: usize,
}

/// Every route with its scope.
///
/// # Errors
/// If the OpenAPI document says something else.
pub fn api(keys: Arc<Keys>, ingest: &Ingest, calls: &DefinitionCalls) -> Result<Api, Failure> {
    use aecontent::{delete, get, list, put, validate};
    let (read, write) = ("definitions.read", "definitions.write");
    let api = Api::new(keys).route(
        Method::POST,
        "/aepublish/v1/{account_id}/observation",
        "observations.publish",
        ingest,
        aepublish::publish,
    );
    api.route(Method::GET, "/aecontent/v1/{account_id}/observations", read, calls, list)
        .route(Method::POST, "/aecontent/v1/{account_id}/observations", write, calls, put)
        .route(Method::GET, "/aecontent/v1/{account_id}/observations/paths/{path}", read, calls, get)
        .route(Method::DELETE, "/aecontent/v1/{account_id}/observations/paths/{path}", write, calls, delete)
        .route(Method::GET, "/aecontent/v1/{account_id}/observations/ids/{id}", read, calls, get)
        .route(Method::POST, "/aecontent/v1/{account_id}/validations/observations", read, calls, validate)
        .route(Method::GET, "/aecontent/v1/observations", read, calls, list)
        .route(Method::POST, "/aecontent/v1/observations", write, calls, put)
        .route(Method::GET, "/aecontent/v1/observations/paths/{path}", read, calls, get)
        .route(Method::DELETE, "/aecontent/v1/observations/paths/{path}", write, calls, delete)
        .route(Method::GET, "/aecontent/v1/observations/ids/{id}", read, calls, get)
        .route(Method::POST, "/aecontent/v1/validations/observations", read, calls, validate)
        .documented_by(include_str!("openapi.json"))
}

/// Fields by their names on this surface.
fn named(error: Error) -> Error {
    error.with_fields_named(|field| match field {
        "organisation" => "account_id".into(),
        other => other.strip_prefix("definition.").unwrap_or(other).into(),
    })
}
