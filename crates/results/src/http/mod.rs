//! The HTTP surface: handlers convert, call, convert. It follows Reincubate's
//! ricloud results API.

mod data;
mod query;
mod results;

use std::sync::Arc;

use http::Method;
use sluice_service::{auth::Keys, http::Api, program::Failure};

use crate::calls::Calls;

/// What acknowledging needs, whose requests have bodies.
#[derive(Clone, Debug)]
struct Acknowledging {
    calls: Calls,
    /// Largest body.
    request_bytes_max: usize,
}

/// Every route with its scope.
///
/// # Errors
/// If the OpenAPI document says something else.
pub fn api(keys: Arc<Keys>, calls: &Calls, request_bytes_max: usize) -> Result<Api, Failure> {
    let acknowledging = Acknowledging { calls: calls.clone(), request_bytes_max };
    Api::new(keys)
        .route(Method::GET, "/results", "results.read", calls, results::list)
        .route(Method::GET, "/results/{id}", "results.read", calls, results::get)
        .route(Method::POST, "/results/{id}/ack", "results.ack", &acknowledging, results::acknowledge)
        .route(Method::POST, "/results/ack", "results.ack", &acknowledging, results::acknowledge_many)
        .open_route(Method::GET, "/data/{id}", calls, data::get)
        .open_route(Method::HEAD, "/data/{id}", calls, data::head)
        .documented_by(include_str!("openapi.json"))
}
