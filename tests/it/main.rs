//! The end-to-end tests: the running pair, through its public surfaces only.

// Clippy sees a test where `#[test]` stands; the tests' helpers are tests too.
#![allow(clippy::unwrap_used)]

mod cli;
mod commits_in_doubt;
mod definitions;
mod harness;
mod http_anything;
mod http_definitions;
mod http_openapi;
mod http_publish;
mod http_results;
mod http_support;
mod ingest_json;
mod ingest_limits;
mod ingest_outcomes;
mod ingest_streams;
mod isolation;
mod memory;
mod model;
mod outages;
mod outbox;
mod plans;
mod races;
mod results_acknowledging;
mod results_data;
mod results_listing;
mod results_outage;
mod results_plans;
mod results_recording;
mod results_shelf;
mod retention;
mod support;
