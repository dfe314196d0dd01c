//! The settings of the results service.

use std::{net::SocketAddr, path::PathBuf};

use sluice_service::{config::Secret, limits::Limits, settings};

settings! {
    /// How the results service is set up.
    pub struct Settings {
        listen: SocketAddr = Some("127.0.0.1:7402"), "Address to serve gRPC and HTTP on.";
        database_url: Secret = None, "URL or key-value string of the results database.";
        keys_file: PathBuf = None, "TOML file of the tokens that are valid; changes are followed.";
        migrate: bool = Some("false"), "Bring the schema up to date at the start.";
        database_connections: usize = Some("6"), "Sessions for calls, at most; the recorder keeps two of its own.";
        log_format: String = Some("text"), "How to log: text or json.";
        ..limits: Limits;
    }
}
