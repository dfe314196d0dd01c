//! How a log line looks. Inside a request each one ends with the ids of its
//! trace and span, so that a line leads to the trace and the other way round.
//! Fields of spans are not repeated: what is worth a line says so itself.

use std::fmt;

use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tracing::{Event, Subscriber};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::LogFormat;

/// Writes events as lines.
#[derive(Debug)]
pub(super) enum Lines {
    Text,
    Json(Format<Json>),
}

impl Lines {
    pub(super) fn new(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json(
                tracing_subscriber::fmt::format()
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            ),
        }
    }
}

/// Of the span the event happens in, if it is part of a trace.
fn current() -> Option<SpanContext> {
    tracing::dispatcher::get_default(|dispatch| {
        let span = dispatch.current_span();
        let context = get_otel_context(span.id()?, dispatch)?;
        Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
    })
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ids = current();
        match self {
            Self::Text => {
                let metadata = event.metadata();
                SystemTime.format_time(&mut writer)?;
                write!(writer, " {:>5} {}: ", metadata.level(), metadata.target())?;
                context.format_fields(writer.by_ref(), event)?;
                if let Some(ids) = ids {
                    write!(writer, " trace_id={} span_id={}", ids.trace_id(), ids.span_id())?;
                }
                writeln!(writer)
            }
            Self::Json(format) => {
                let mut line = String::new();
                format.format_event(context, Writer::new(&mut line), event)?;
                let Some(ids) = ids else { return writer.write_str(&line) };
                // The line is one object; the ids become its last members.
                let object = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
                let (trace, span) = (ids.trace_id(), ids.span_id());
                writeln!(writer, "{object},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}")
            }
        }
    }
}
