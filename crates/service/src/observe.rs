//! The outermost layer: counts every request and how it ended, and makes the
//! span that everything it causes is part of. A request ends when its answer
//! has been sent, or when nobody waits for it any more. Names follow
//! OpenTelemetry's semantic conventions for RPC and HTTP servers; a path is
//! never told, since it may hold a signature.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code as GrpcCode, Status, body::Body};
use tower_service::Service;
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    error::{NoFailure, no_failure},
    metrics::{Code, Requests, grpc_code_name},
    stack::is_grpc,
    trace,
};

/// What is asked for where nothing is known under that name.
const UNKNOWN: &str = "_OTHER";
/// Rpcs outside of the contract. They have no spans, as unknown ones have none: probes
/// come often.
const OPEN_RPCS: [&str; 5] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/List",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The status of a request whose caller went away, as nginx has it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The template of the route that answered. The HTTP router puts it into its
/// answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matched(pub(crate) &'static str);

/// Puts the observer around everything else.
#[derive(Clone, Debug)]
pub(crate) struct Observe<S> {
    requests: Arc<Requests>,
    inner: S,
}

impl<S> Observe<S> {
    pub(crate) fn new(requests: Arc<Requests>, inner: S) -> Self {
        Self { requests, inner }
    }
}

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut under_way = UnderWay::begin(self.requests.clone(), &request);
        let span = under_way.span.clone();
        let answer = span.in_scope(|| self.inner.call(request));
        let observed = async move {
            let answer = answer.await?;
            under_way.answered(&answer);
            Ok(answer.map(|body| Body::new(Observed { body, under_way })))
        };
        Box::pin(observed.instrument(span))
    }
}

/// A request under way.
struct UnderWay {
    requests: Arc<Requests>,
    span: Span,
    started: Instant,
    route: &'static str,
    method: &'static str,
    code: Code,
    /// Whether that is no failure, and the reason.
    no_failure: Option<&'static str>,
}

impl UnderWay {
    fn begin<B>(requests: Arc<Requests>, request: &Request<B>) -> Self {
        requests.open.inc();
        let started = Instant::now();
        if is_grpc(request) {
            let route = rpc(request.uri().path());
            let span =
                if route == UNKNOWN || OPEN_RPCS.contains(&route) { Span::none() } else { rpc_span(route) };
            trace::continue_from(&span, request.headers());
            // Until it is known better: its caller may leave.
            let code = Code::Grpc(GrpcCode::Cancelled);
            return Self { requests, span, started, route, method: "", code, no_failure: None };
        }
        let method = method(request.method());
        let span = http_span(method);
        trace::continue_from(&span, request.headers());
        let code = Code::Http(CLIENT_CLOSED_REQUEST);
        Self { requests, span, started, route: UNKNOWN, method, code, no_failure: None }
    }

    fn answered(&mut self, answer: &Response<Body>) {
        match self.code {
            Code::Grpc(_) => self.told(answer.headers()),
            Code::Http(_) => {
                self.route = answer.extensions().get::<Matched>().map_or(UNKNOWN, |matched| matched.0);
                self.code = Code::Http(answer.status().as_u16());
                self.no_failure = answer.extensions().get::<NoFailure>().map(|told| told.0);
            }
        }
    }

    /// Looks for gRPC's status among headers, which are trailers mostly.
    fn told(&mut self, headers: &HeaderMap) {
        if !matches!(self.code, Code::Grpc(_)) {
            return;
        }
        // Most are, and a status is made of a copy of its headers.
        if headers.get(Status::GRPC_STATUS).is_some_and(|status| status == "0") {
            self.code = Code::Grpc(GrpcCode::Ok);
        } else if let Some(status) = Status::from_header_map(headers) {
            self.code = Code::Grpc(status.code());
            self.no_failure = no_failure(&status);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.requests.open.dec();
        self.requests.count(self.route, self.method, self.code, self.no_failure, self.started.elapsed());
        if self.span.is_disabled() {
            return;
        }
        let failed = match self.code {
            Code::Grpc(code) => {
                self.span.record("rpc.response.status_code", grpc_code_name(code));
                is_fault(code)
            }
            Code::Http(status) => {
                self.span.record("http.response.status_code", status);
                self.span.record("http.route", self.route);
                trace::rename(&self.span, format!("{} {}", self.method, self.route));
                status >= 500
            }
        };
        if failed && self.no_failure.is_none() {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// Statuses that are the server's fault, by the conventions.
fn is_fault(code: GrpcCode) -> bool {
    matches!(
        code,
        GrpcCode::Unknown
            | GrpcCode::DeadlineExceeded
            | GrpcCode::Unimplemented
            | GrpcCode::Internal
            | GrpcCode::Unavailable
            | GrpcCode::DataLoss
    )
}

fn rpc_span(method: &'static str) -> Span {
    tracing::info_span!(
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
    )
}

fn http_span(method: &'static str) -> Span {
    tracing::info_span!(
        "request",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
    )
}

/// The rpc of a path, if there is one.
fn rpc(path: &str) -> &'static str {
    if let Some(rpc) = sluice_proto::rpc(path) {
        return rpc.path.trim_start_matches('/');
    }
    let name = path.trim_start_matches('/');
    OPEN_RPCS.into_iter().find(|open| *open == name).unwrap_or(UNKNOWN)
}

/// One of HTTP's own methods.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(UNKNOWN)
}

/// The body of an answer; the request ends with it.
struct Observed {
    body: Body,
    under_way: UnderWay,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = this.under_way.span.in_scope(|| Pin::new(&mut this.body).poll_frame(context));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            this.under_way.told(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_has_a_name() {
        let publish = "sluice.ingest.v1.IngestService/PublishObservations";
        assert_eq!(rpc(&format!("/{publish}")), publish);
        assert_eq!(rpc("/grpc.health.v1.Health/Check"), "grpc.health.v1.Health/Check");
        for unknown in ["/sluice.ingest.v1.IngestService/Nothing", "/", "", "//", "/_OTHER"] {
            assert_eq!(rpc(unknown), UNKNOWN, "{unknown}");
        }
        assert_eq!(method(&Method::GET), "GET");
        assert_eq!(method(&Method::from_bytes(b"GETAWAY").unwrap()), UNKNOWN);
    }
}
