//! One trace from the publisher's call to the record, across the places where
//! work changes hands: the caller's context is taken over from a request's head,
//! work of many requests done at once is linked to each of them, and what is
//! kept or called carries the context along (W3C Trace Context). Where spans are
//! disabled all of it does nothing.

use std::collections::HashMap;

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::{
    Code,
    metadata::{MetadataKey, MetadataMap},
};
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::metrics::grpc_code_name;

/// The request that work comes from.
#[derive(Clone, Debug)]
pub struct Origin(Span);

impl Default for Origin {
    fn default() -> Self {
        Self(Span::none())
    }
}

impl Origin {
    /// The span this is called in.
    #[must_use]
    pub fn current() -> Self {
        Self(Span::current())
    }
}

/// The context of a span; `None` if it is disabled.
fn context_of(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    Some(span.context().span().span_context().clone()).filter(SpanContext::is_valid)
}

/// Makes `span`, which is new, the work of several requests: part of the trace
/// of the first that is sampled, linked to each (the SDK keeps 128 links), and
/// each linked to it.
pub fn gather<'a>(span: &Span, origins: impl Iterator<Item = &'a Origin>) {
    if span.is_disabled() {
        return;
    }
    let origins: Vec<_> = origins.filter_map(|Origin(of)| Some((of, context_of(of)?))).collect();
    let contexts = origins.iter().map(|(_, context)| context.clone());
    let Some(parent) = gather_contexts(span, contexts) else { return };
    let Some(own) = context_of(span) else { return };
    for (origin, context) in origins {
        if context != parent && context.is_sampled() {
            origin.add_link(own.clone());
        }
    }
}

/// The same for work whose origins are known by the contexts that came with it.
/// What is no context is passed over.
pub fn gather_remote<'a>(span: &Span, traceparents: impl Iterator<Item = &'a str>) {
    if span.is_disabled() {
        return;
    }
    let mut contexts: Vec<SpanContext> = Vec::new();
    for context in traceparents.filter_map(read) {
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    gather_contexts(span, contexts.into_iter());
}

/// Links to each, and the parent chosen among them.
fn gather_contexts(span: &Span, contexts: impl Iterator<Item = SpanContext> + Clone) -> Option<SpanContext> {
    let parent = contexts.clone().find(SpanContext::is_sampled).or_else(|| contexts.clone().next())?;
    adopt(span, Context::new().with_remote_span_context(parent.clone()));
    contexts.for_each(|context| span.add_link(context));
    Some(parent)
}

/// Makes `span`, which is new, part of the trace that a request's head names.
pub(crate) fn continue_from(span: &Span, headers: &HeaderMap) {
    if !span.is_disabled() && headers.contains_key("traceparent") {
        adopt(span, TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers)));
    }
}

/// Names a span whose name was not known when it began.
pub(crate) fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

fn adopt(span: &Span, parent: Context) {
    // Not possible without a layer for traces, as in most tests.
    let _without_traces = span.set_parent(parent);
}

/// The context of the current span as W3C's `traceparent`; empty if it is
/// disabled.
#[must_use]
pub fn traceparent() -> String {
    let Some(context) = context_of(&Span::current()) else { return String::new() };
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// Sends the current span's context along with a call.
pub fn inject(metadata: &mut MetadataMap) {
    let span = Span::current();
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut Metadata(metadata));
    }
}

/// The span of a call of another service's rpc. Within it, [`inject`] and at the
/// end [`called`].
pub fn call_span(method: &'static str) -> Span {
    tracing::info_span!(
        "call",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
    )
}

/// Says how the call ended whose span this is called in.
pub fn called(code: Code) {
    let span = Span::current();
    span.record("rpc.response.status_code", grpc_code_name(code));
    if code != Code::Ok {
        span.record("otel.status_code", "ERROR");
    }
}

/// Reads a kept `traceparent`.
fn read(traceparent: &str) -> Option<SpanContext> {
    if traceparent.is_empty() {
        return None;
    }
    let kept = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &kept);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_kept_is_read_and_what_is_no_context_is_passed_over() {
        let context = read(KEPT).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for wrong in
            ["", "00", "00-0-0-00", &KEPT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32))]
        {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn without_traces_nothing_is_kept_or_sent() {
        assert_eq!(traceparent(), "");
        let mut metadata = MetadataMap::new();
        inject(&mut metadata);
        assert!(metadata.is_empty());
        gather(&Span::none(), [Origin::default()].iter());
        gather_remote(&Span::none(), [KEPT].into_iter());
    }
}
