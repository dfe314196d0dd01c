//! The HTTP surface: handlers convert, call, convert. It follows Reincubate's
//! ricloud results API.

mod data;
mod query;
mod results;

use std::sync::Arc;

use http::Method;
use sluice_service::{auth::Keys, http::Api, program::Failure};

use crate::calls::Calls;

/// Every route with its scope.
///
/// # Errors
/// If the OpenAPI document says something else.
pub fn api(keys: Arc<Keys>, calls: &Calls) -> Result<Api, Failure> {
    Api::new(keys)
        .route(Method::GET, "/results", "results.read", calls, results::list)
        .route(Method::GET, "/results/{id}", "results.read", calls, results::get)
        .route(Method::POST, "/results/{id}/ack", "results.ack", calls, results::acknowledge)
        .route(Method::POST, "/results/ack", "results.ack", calls, results::acknowledge_many)
        .open_route(Method::GET, "/data/{id}", calls, data::get)
        .open_route(Method::HEAD, "/data/{id}", calls, data::head)
        .documented_by(include_str!("openapi.json"))
}
