//! The values of telemetry's settings, each checked when it is read.

use std::fmt;

use tracing_subscriber::EnvFilter;

use crate::config::Value;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object each.
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".into()),
        }
    }
}

/// Which log lines are written, as `RUST_LOG` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    pub(super) fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Value for LogFilter {
    fn parse(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(fault) => Err(format!("expected a filter such as info,sluice_ingest=debug: {fault}")),
        }
    }
}

/// The address of an OpenTelemetry collector that takes OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    /// Whether it is reached over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for OtlpEndpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let uri: Option<http::Uri> = text.parse().ok();
        let fits = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
        });
        let expected = || {
            "expected http://host:port or https://host:port of a collector (OTLP over gRPC), or nothing"
                .to_owned()
        };
        if fits { Ok(Self(text.into())) } else { Err(expected()) }
    }
}

/// A share between 0 and 1, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// The share.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Value for Ratio {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self(ratio)),
            _ => Err("expected a number from 0 to 1".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_checked_when_it_is_read() {
        assert_eq!(LogFormat::parse("json"), Ok(LogFormat::Json));
        assert!(LogFormat::parse("xml").is_err());
        assert!(LogFilter::parse("info,sluice_ingest=debug").is_ok());
        assert!(LogFilter::parse("sluice_ingest=loudly").is_err());
        for good in ["0", "0.25", "1"] {
            assert!(Ratio::parse(good).is_ok(), "{good}");
        }
        for bad in ["-0.1", "1.1", "NaN", "half"] {
            assert!(Ratio::parse(bad).is_err(), "{bad}");
        }
        for good in ["http://collector.observability:4317", "https://collector:4317/"] {
            assert!(OtlpEndpoint::parse(good).is_ok(), "{good}");
        }
        for bad in ["collector:4317", "unix:collector", "http://u:p@collector", "http://collector/v1/traces"]
        {
            assert!(OtlpEndpoint::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Option::<OtlpEndpoint>::parse(""), Ok(None));
    }
}
