//! The ingest service's settings.

use std::{net::SocketAddr, path::PathBuf};

use sluice_service::{config::Secret, limits::Limits};

sluice_service::settings! {
    /// Settings of the ingest service.
    pub struct Settings {
        listen: SocketAddr = Some("127.0.0.1:7401"), "Address to serve on.";
        database_url: Secret = None, "URL of the ingest database.";
        keys_file: PathBuf = None, "TOML file of the valid tokens; read again when it changes.";
        migrate: bool = Some("false"), "Bring the schema up to date at the start.";
        results_url: String = None, "URL of the results service.";
        results_token_file: PathBuf = None, "File that holds the token for the results service (scope intake.write).";
        lanes: usize = Some("2"), "Gate transactions at the same time, each with its own session.";
        database_connections: usize = Some("4"), "Pooled sessions beside the lanes'.";
        gate_retention_seconds: u64 = Some("604800"), "How long markers and windows are kept at least.";
        outbox_bytes_max: u64 = Some("4294967296"), "Compressed bytes accepted and not yet recorded, over all replicas; above, callers are told to retry.";
        observations_max: usize = Some("1000"), "Most observations in one request.";
        observation_bytes_max: usize = Some("1048576"), "Largest content of one observation.";
        log_format: String = Some("text"), "Logs as text or json.";
        ..limits: Limits;
    }
}
