//! The end-to-end tests: the running pair, through its public surfaces only.

// Clippy sees a test where `#[test]` stands; the tests' helpers are tests too.
#![allow(clippy::unwrap_used)]

mod cli;
mod database;
mod deployment;
mod files;
mod harness;
mod history;
mod http;
mod ingest;
mod links;
mod rehearsal;
mod results;
mod service;
mod settings;
mod storage;
mod support;
mod telemetry;
mod tls;
