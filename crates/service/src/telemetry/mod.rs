//! What a process tells of itself while it runs: logs on standard error, and
//! traces to an OpenTelemetry collector. Both belong to the process and are
//! started once, by [`crate::program`]. (Metrics belong to a service:
//! [`crate::metrics`].)

mod export;
mod logs;
mod settings;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
pub use settings::{LogFilter, LogFormat, OtlpEndpoint, Ratio};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, LevelFilter, Targets, filter_fn},
    layer::{Filter, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// Where the spans of requests are made. Without a collector only these are, for
/// the ids in the log.
pub(crate) const REQUEST_TARGET: &str = "sluice_service::observe";
/// Where all spans and events are made that a collector gets: not those of
/// libraries, which would tell of the exporter's own calls, too.
const TARGETS: &str = "sluice";

crate::settings! {
    /// What a process tells of itself, and where.
    pub struct Settings {
        admin_listen: Option<SocketAddr> = Some(""), "Address of the admin port: /metrics, /livez, /readyz, without TLS or tokens. Empty: none.";
        log_format: LogFormat = Some("text"), "Logs as text or json.";
        log_filter: LogFilter = Some("info"), "Which log lines are written, such as info,sluice_service=debug; the variable RUST_LOG wins.";
        otlp_endpoint: Option<OtlpEndpoint> = Some(""), "OpenTelemetry collector that takes traces over gRPC, such as http://collector:4317 or https://collector:4317. Empty: no traces.";
        otlp_ca_file: Option<PathBuf> = Some(""), "PEM file of the CAs of the collector's certificate, for an https otlp_endpoint. Empty: the system's CAs.";
        otlp_sample_ratio: Ratio = Some("1"), "Share of the traces begun here that are kept, from 0 to 1; callers that send a traceparent decide themselves.";
    }
    checks {
        otlp_endpoint, otlp_ca_file =>
            export::tls(otlp_endpoint.as_ref(), otlp_ca_file).err().map(|fault| format!("otlp_ca_file: {fault}"));
    }
}

/// Which program it is that tells.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, as in `service.name`.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
}

/// Logs and traces under way.
#[derive(Debug)]
pub struct Telemetry {
    traces: SdkTracerProvider,
}

impl Telemetry {
    /// Starts logs and traces, inside a runtime. Starting twice in one process
    /// keeps the first.
    ///
    /// # Errors
    /// If the exporter can't be built. A collector that is away is no error.
    pub fn start(program: Program, settings: &Settings) -> Result<Self, String> {
        let traces = export::provider(program, settings)?;
        let lines = EnvFilter::try_from_default_env().unwrap_or_else(|_| settings.log_filter.to_env_filter());
        let logs = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .event_format(logs::Lines::new(settings.log_format))
            .with_filter(events_only(lines));
        let made = if settings.otlp_endpoint.is_some() { TARGETS } else { REQUEST_TARGET };
        let spans = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer(program.service))
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_filter(Targets::new().with_target(made, LevelFilter::INFO));
        let _already_started = tracing_subscriber::registry().with(spans).with(logs).try_init();
        Ok(Self { traces })
    }

    /// Sends what is still to be sent, but not for longer than `within`. Call it
    /// off the runtime's threads while the runtime still runs.
    pub fn stop(self, within: Duration) {
        if let Err(error) = self.traces.shutdown_with_timeout(within) {
            tracing::debug!(%error, "the last spans were not delivered");
        }
    }
}

/// Spans are no lines of the log, and are made for traces alone.
fn events_only<S>(lines: EnvFilter) -> impl Filter<S> {
    // Says which levels it could let through: without that, every library would
    // weigh each of its events and spans of the finest level.
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    lines.and(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_filter_lets_through_is_not_even_weighed() {
        let filter = events_only::<tracing_subscriber::Registry>(EnvFilter::new("info"));
        assert_eq!(filter.max_level_hint(), Some(LevelFilter::INFO));
    }
}
