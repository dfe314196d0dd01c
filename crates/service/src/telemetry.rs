//! Logs: one line per event, as text or JSON, on standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging. `format` is `json` or `text`; `RUST_LOG` filters, and
/// without it everything at `info` and above is written. Starting twice keeps
/// the first.
pub fn init(format: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_started = match format {
        "json" => builder.json().try_init(),
        _ => builder.with_ansi(false).try_init(),
    };
}
