//! Metrics of requests, on both surfaces. Each is counted once, when its answer
//! has been sent or given up, by its route and how it ended.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use tonic::Code as GrpcCode;

use super::{Counter, Family, Gauge, Histogram, Label as _, Pair, Registry};
use crate::met::{Limit, Named};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    /// A status of gRPC.
    Grpc(GrpcCode),
    /// A status of HTTP.
    Http(u16),
}

/// The name the gRPC specification gives a status.
#[must_use]
pub fn grpc_code_name(code: GrpcCode) -> &'static str {
    match code {
        GrpcCode::Ok => "OK",
        GrpcCode::Cancelled => "CANCELLED",
        GrpcCode::Unknown => "UNKNOWN",
        GrpcCode::InvalidArgument => "INVALID_ARGUMENT",
        GrpcCode::DeadlineExceeded => "DEADLINE_EXCEEDED",
        GrpcCode::NotFound => "NOT_FOUND",
        GrpcCode::AlreadyExists => "ALREADY_EXISTS",
        GrpcCode::PermissionDenied => "PERMISSION_DENIED",
        GrpcCode::ResourceExhausted => "RESOURCE_EXHAUSTED",
        GrpcCode::FailedPrecondition => "FAILED_PRECONDITION",
        GrpcCode::Aborted => "ABORTED",
        GrpcCode::OutOfRange => "OUT_OF_RANGE",
        GrpcCode::Unimplemented => "UNIMPLEMENTED",
        GrpcCode::Internal => "INTERNAL",
        GrpcCode::Unavailable => "UNAVAILABLE",
        GrpcCode::DataLoss => "DATA_LOSS",
        GrpcCode::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What is counted of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Status(Code),
    /// A failure's status that is none, by its reason.
    NoFailure(&'static str),
}

impl EncodeLabelValue for Counted {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self {
            Self::Status(Code::Grpc(code)) => encoder.write_str(grpc_code_name(*code)),
            Self::Status(Code::Http(status)) => write!(encoder, "{status}"),
            Self::NoFailure(reason) => encoder.write_str(reason),
        }
    }
}

/// One way through a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    route: &'static str,
    method: &'static str,
    code: Counted,
}

/// The metrics of requests of one running service.
#[derive(Debug)]
pub struct Requests {
    ended: Family<Ended, Counter>,
    seconds: Family<[Pair; 2], Histogram, fn() -> Histogram>,
    pub(crate) open: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) body_bytes: Gauge,
    pub(crate) answer_bytes: Gauge,
    pub(crate) refusals: Arc<Refusals>,
}

crate::label! {
    enum LimitName {
        Connections = "connections_max",
        InFlight = "requests_in_flight_max",
        Headers = "header_list_bytes_max",
        Bodies = "body_bytes_in_flight_max",
        Answers = "answer_bytes_in_flight_max",
        Rate = "organisation_requests_per_second_max",
    }
}

/// What found no place, by the limit that was met.
#[derive(Debug)]
pub(crate) struct Refusals {
    pub(crate) connections: Limit,
    pub(crate) in_flight: Limit,
    pub(crate) headers: Limit,
    pub(crate) bodies: Limit,
    pub(crate) answers: Limit,
    pub(crate) rate: Limit,
}

impl Requests {
    /// Adds them to a registry.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            ended: registry.add(
                "sluice_requests_total",
                "Requests that ended, by rpc or route, HTTP method and status (STREAM_ENDING, \
                 STREAM_OUTGROWN, TOO_SLOW, and over HTTP DEADLINE_EXCEEDED: no failures)",
                Family::default(),
            ),
            seconds: registry.add(
                "sluice_request_duration_seconds",
                "Time from a request's head to the end of its answer, seconds",
                Family::new_with_constructor(super::seconds),
            ),
            open: registry.add("sluice_requests_open", "Requests under way", Gauge::default()),
            connections: registry.add("sluice_connections_open", "Connections of callers", Gauge::default()),
            body_bytes: registry.add(
                "sluice_body_bytes_in_flight",
                "Bytes of bodies that arrive or are worked on",
                Gauge::default(),
            ),
            answer_bytes: registry.add(
                "sluice_answer_bytes_in_flight",
                "Bytes of large answers that callers have not read yet",
                Gauge::default(),
            ),
            refusals: Arc::new(Refusals::register(registry)),
        }
    }

    /// Counts one that ended; `no_failure` is the reason why its status is none, if so.
    pub(crate) fn count(
        &self,
        route: &'static str,
        method: &'static str,
        code: Code,
        no_failure: Option<&'static str>,
        took: Duration,
    ) {
        let code = no_failure.map_or(Counted::Status(code), Counted::NoFailure);
        self.ended.get_or_create(&Ended { route, method, code }).inc();
        self.seconds.get_or_create(&[("route", route), ("method", method)]).observe(took.as_secs_f64());
    }
}

impl Refusals {
    fn register(registry: &mut Registry) -> Self {
        let help = "What found no place, by the limit that was met";
        let by = registry.add_by("sluice_refused_total", help, "limit", Counter::default);
        let named = Named::default();
        let limit = |name: LimitName| Limit::new(name.word(), by.of(name), &named);
        Self {
            connections: limit(LimitName::Connections),
            in_flight: limit(LimitName::InFlight),
            headers: limit(LimitName::Headers),
            bodies: limit(LimitName::Bodies),
            answers: limit(LimitName::Answers),
            rate: limit(LimitName::Rate),
        }
    }
}
