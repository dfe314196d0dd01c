//! The settings of the results service.

use std::{net::SocketAddr, path::PathBuf};

use sluice_service::{
    config::Secret,
    settings,
    telemetry::{self, LogFilter, LogFormat, OtlpEndpoint, Ratio},
};

/// The service's name in metrics and traces.
pub(crate) const SERVICE: &str = "sluice-results";
/// Its version there.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

settings! {
    /// How the results service is set up.
    pub struct Settings {
        listen: SocketAddr = Some("127.0.0.1:7402"), "Address to serve gRPC and HTTP on.";
        database_url: Secret = None, "URL or key-value string of the results database.";
        keys_file: PathBuf = None, "TOML file of the tokens that are valid; changes are followed.";
        migrate: bool = Some("false"), "Bring the schema up to date at the start.";
        database_connections: usize = Some("6"), "Sessions for calls, at most; the recorder keeps two of its own.";
        admin_listen: Option<SocketAddr> = Some(""), "Address of the admin port: /metrics, /livez, /readyz, without TLS or tokens. Empty: none.";
        log_format: LogFormat = Some("text"), "Logs as text or json.";
        log_filter: LogFilter = Some("info"), "Which log lines are written, such as info,sluice_results=debug; the variable RUST_LOG wins.";
        otlp_endpoint: Option<OtlpEndpoint> = Some(""), "OpenTelemetry collector that takes traces over gRPC, such as http://collector:4317. Empty: no traces.";
        otlp_sample_ratio: Ratio = Some("1"), "Share of the traces begun here that are kept, from 0 to 1; callers that send a traceparent decide themselves.";
    }
}

impl Settings {
    /// How the process logs and traces.
    #[must_use]
    pub fn telemetry(&self) -> telemetry::Settings {
        telemetry::Settings {
            service: SERVICE,
            version: VERSION,
            log_format: self.log_format,
            log_filter: self.log_filter.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
            otlp_sample_ratio: self.otlp_sample_ratio,
        }
    }
}
