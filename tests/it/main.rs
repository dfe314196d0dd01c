//! The end-to-end tests: the running pair, through its public surfaces only.

// Clippy sees a test where `#[test]` stands; the tests' helpers are tests too.
#![allow(clippy::unwrap_used)]

mod audit;
mod cli;
mod commits_in_doubt;
mod definitions;
mod files_failures;
mod files_limits;
mod files_outcomes;
mod files_publish;
mod files_races;
mod files_support;
mod harness;
mod history;
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
mod keys;
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
mod storage_cleanup;
mod storage_clouds;
mod storage_configs;
mod storage_files;
mod storage_results;
mod storage_servers;
mod storage_signed;
mod storage_support;
mod support;
mod telemetry;
mod tls;
