//! Where spans go: in bounded batches to a collector, or nowhere. A collector
//! that is away or slow holds nobody up: spans beyond the queue are dropped.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData},
};
use tonic::transport::ClientTlsConfig;

use super::{OtlpEndpoint, Program, Settings};
use crate::peer::ClientTls;

/// Spans that may wait to be sent; more are dropped.
const QUEUE_SPANS_MAX: usize = 4096;
/// Spans sent in one call.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span may wait for others to go along.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// How long one call may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes spans and, with a collector, sends them.
///
/// # Errors
/// If the exporter can't be built.
pub(super) fn provider(program: Program, settings: &Settings) -> Result<SdkTracerProvider, String> {
    let builder = SdkTracerProvider::builder();
    let Some(endpoint) = &settings.otlp_endpoint else {
        return Ok(builder.with_sampler(Sampler::AlwaysOff).build());
    };
    let mut exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint.as_str()).with_timeout(SEND_TIMEOUT);
    if let Some(tls) = tls(Some(endpoint), &settings.otlp_ca_file)? {
        exporter = exporter.with_tls_config(tls);
    }
    let exporter = exporter.build().map_err(|error| format!("otlp_endpoint: {error}"))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(SEND_EVERY)
        .build();
    let processor = BatchSpanProcessor::builder(Told { exporter, failing: AtomicBool::new(false) })
        .with_batch_config(batches)
        .build();
    let begun_here = Sampler::TraceIdRatioBased(settings.otlp_sample_ratio.get());
    Ok(builder
        .with_sampler(Sampler::ParentBased(Box::new(begun_here)))
        .with_resource(resource(program))
        .with_span_processor(processor)
        .build())
}

/// How a collector is reached by TLS, if it is.
///
/// # Errors
/// If the CA file can't be used, or there is no TLS that needs it.
pub(super) fn tls(
    endpoint: Option<&OtlpEndpoint>,
    ca_file: &Option<PathBuf>,
) -> Result<Option<ClientTlsConfig>, String> {
    if !endpoint.is_some_and(OtlpEndpoint::is_https) {
        return match ca_file {
            Some(_) => Err("of use with an https otlp_endpoint only".into()),
            None => Ok(None),
        };
    }
    let tls = ClientTls { ca_file: ca_file.clone(), ..ClientTls::default() };
    tls.contents().and_then(|contents| tls.config(&contents)).map(Some)
}

/// What the spans tell of the process; `OTEL_RESOURCE_ATTRIBUTES` adds to it.
fn resource(program: Program) -> Resource {
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.namespace", "sluice"),
            KeyValue::new("service.name", program.service),
            KeyValue::new("service.version", program.version),
            KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
        ])
        .build()
}

/// An exporter that says once that the collector is away, and once that it is
/// back.
#[derive(Debug)]
struct Told {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Told {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(spans).await;
        match (&sent, self.failing.swap(sent.is_err(), Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "spans can't be delivered and are dropped"),
            (Ok(()), true) => tracing::info!("spans are delivered again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
