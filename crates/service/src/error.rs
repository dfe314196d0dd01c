//! The one error type of both services, and the only place where it becomes a
//! `tonic::Status` or an HTTP answer. It has a kind, a stable reason, a message
//! meant for callers and a private cause that is logged and never sent
//! (https://google.aip.dev/193).

mod violations;

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use serde::Serialize;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

use crate::text::cut;
pub use violations::Violations;

/// The domain of `google.rpc.ErrorInfo`.
const ERROR_DOMAIN: &str = "sluice";
/// The reason of what needs something the operator did not set up.
const UNCONFIGURED: &str = "UNCONFIGURED";
/// The reason of a request that exceeds the size limit.
const REQUEST_TOO_LARGE: &str = "REQUEST_TOO_LARGE";
/// Reasons of an UNAVAILABLE that lies with its caller, or is no failure at all.
pub(crate) const STREAM_ENDING: &str = "STREAM_ENDING";
pub(crate) const STREAM_OUTGROWN: &str = "STREAM_OUTGROWN";
pub(crate) const TOO_SLOW: &str = "TOO_SLOW";
const NO_FAILURES: [&str; 3] = [STREAM_ENDING, STREAM_OUTGROWN, TOO_SLOW];
/// The reason of a body that is no JSON, or of the wrong shape.
const INVALID_BODY: &str = "INVALID_BODY";

/// What a status has of a message, and of all its violations together, in bytes. It
/// travels in headers, which many clients take up to 8 KiB of: the message percent-encoded,
/// up to three times as long, and once more in the details, in base64. With these a
/// status takes up to 4 KiB.
const MESSAGE_BYTES_MAX: usize = 512;
const VIOLATIONS_BYTES_MAX: usize = 1000;
/// Most violations in a status.
const VIOLATIONS_MAX: usize = 12;
/// Longest field of a violation, in bytes.
const FIELD_BYTES_MAX: usize = 64;
/// What the encoding of a violation takes beside its texts, in bytes.
const VIOLATION_BYTES: usize = 8;

/// After what time callers that can't be served now are told to retry: about as long as it
/// takes to process what is there.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What kind of failure it is; each maps to one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong in itself.
    InvalidArgument,
    /// No token, or none that is known.
    Unauthenticated,
    /// The token may not do this.
    PermissionDenied,
    /// There is no such thing for this caller.
    NotFound,
    /// The thing is not in the state the call needs.
    FailedPrecondition,
    /// A limit was exceeded.
    ResourceExhausted,
    /// Can't be done now; worth trying again.
    Unavailable,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// Kept bytes are not what they were.
    DataLoss,
    /// There is no such rpc, or it does not take this encoding.
    Unimplemented,
    /// A fault of the service.
    Internal,
}

impl Kind {
    fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::DataLoss => Code::DataLoss,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
        }
    }
}

/// One request field that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field as the contract names it.
    pub field: String,
    /// What is wrong with it, for the caller.
    pub description: String,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure as a caller may see it, with a cause that only the log sees.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    reason: &'static str,
    message: String,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Error {
    /// An error of any kind. `reason` is stable, in upper snake case.
    pub fn new(kind: Kind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), violations: Vec::new(), retry_after: None, cause: None }
    }

    /// One field of the request is wrong.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_all(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// Several fields of the request are wrong.
    #[must_use]
    pub fn invalid_all(violations: Vec<Violation>) -> Self {
        let parts: Vec<String> =
            violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        let mut error = Self::new(Kind::InvalidArgument, "INVALID_FIELD", parts.join("; "));
        error.violations = violations;
        error
    }

    /// The body is no JSON, or not of the shape that the call needs.
    pub fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, INVALID_BODY, message)
    }

    /// The request exceeds the size limit.
    #[must_use]
    pub fn request_too_large() -> Self {
        Self::new(Kind::ResourceExhausted, REQUEST_TOO_LARGE, "the request exceeds the size limit")
    }

    /// The process has no room for the request now.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::new(Kind::ResourceExhausted, "OVERLOADED", "the service is overloaded; retry later")
            .retry_after(RETRY_AFTER)
    }

    /// The request stopped coming: the network's fault as a rule, so it may be retried.
    #[must_use]
    pub(crate) fn too_slow() -> Self {
        Self::new(Kind::Unavailable, TOO_SLOW, "the request did not come in time").retry_after(RETRY_AFTER)
    }

    /// The bytes of a gRPC request are not what the contract says.
    #[must_use]
    pub fn malformed_request() -> Self {
        Self::new(Kind::InvalidArgument, "MALFORMED_REQUEST", "the request can't be decoded")
    }

    /// There is no such thing for this caller; the same for unknown and foreign ids.
    #[must_use]
    pub fn not_found(what: &'static str) -> Self {
        Self::new(Kind::NotFound, "NOT_FOUND", format!("no such {what}"))
    }

    /// The service can't answer now.
    #[must_use]
    pub fn unavailable(message: &'static str) -> Self {
        Self::new(Kind::Unavailable, "UNAVAILABLE", message).retry_after(RETRY_AFTER)
    }

    /// The database can't answer now.
    #[must_use]
    pub fn database_busy() -> Self {
        Self::unavailable("the database can't answer now")
    }

    /// A fault of the service itself; callers learn no more than that.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::new(Kind::Internal, "INTERNAL", "internal error").because(cause)
    }

    /// Adds the private cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Names a field of the request that is at fault.
    #[must_use]
    pub fn violating(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        self.violations.push(Violation { field: field.into(), description: description.into() });
        self
    }

    /// Says when to retry.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Calls the fields as another surface does.
    #[must_use]
    pub fn with_fields_named(self, name: impl Fn(&str) -> String) -> Self {
        if self.violations.is_empty() {
            return self;
        }
        let renamed = self.violations.into_iter().map(|v| Violation { field: name(&v.field), ..v }).collect();
        let Self { message, violations, .. } = Self::invalid_all(renamed);
        Self { message, violations, ..self }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The stable, machine-readable reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

impl Error {
    /// Logs the cause; callers never see it.
    fn log(&self) {
        let Some(cause) = &self.cause else { return };
        let chain = chain(&**cause);
        match self.kind {
            Kind::Internal | Kind::DataLoss => tracing::error!(reason = self.reason, cause = %chain),
            _ => tracing::warn!(reason = self.reason, cause = %chain),
        }
    }

    /// The status and code of the HTTP surface: the contract's table.
    fn http(&self) -> (StatusCode, &'static str) {
        match self.kind {
            Kind::InvalidArgument if self.reason == INVALID_BODY => (StatusCode::BAD_REQUEST, "invalid-body"),
            Kind::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid-parameter"),
            Kind::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Kind::PermissionDenied => (StatusCode::FORBIDDEN, "missing-scope"),
            Kind::NotFound | Kind::Unimplemented => (StatusCode::NOT_FOUND, "not-found"),
            Kind::FailedPrecondition if self.reason == UNCONFIGURED => (StatusCode::CONFLICT, "unconfigured"),
            Kind::FailedPrecondition => (StatusCode::CONFLICT, "conflict"),
            Kind::ResourceExhausted if self.reason == REQUEST_TOO_LARGE => {
                (StatusCode::PAYLOAD_TOO_LARGE, "limit-exceeded")
            }
            Kind::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "limit-exceeded"),
            Kind::Unavailable | Kind::DeadlineExceeded => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Kind::DataLoss | Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

/// The body of an HTTP error.
#[derive(Serialize)]
struct HttpError<'a> {
    error: &'static str,
    message: &'a str,
    params: BTreeMap<&'a str, Vec<&'a str>>,
}

/// An answer over HTTP that has the status of a failure, and is none; as what it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoFailure(pub(crate) &'static str);

/// The reason of a status that has the code of a failure, and is none.
pub(crate) fn no_failure(status: &Status) -> Option<&'static str> {
    if status.code() != Code::Unavailable {
        return None;
    }
    let reason = status.get_details_error_info()?.reason;
    NO_FAILURES.into_iter().find(|known| *known == reason)
}

impl Error {
    /// The answer on the surface that was called.
    pub(crate) fn into_answer(self, grpc: bool) -> http::Response<Body> {
        if grpc { Status::from(self).into_http() } else { self.into_response().map(Body::new) }
    }

    /// The end of an answer of gRPC that has begun.
    pub(crate) fn into_trailers(self) -> Result<Frame<Bytes>, Status> {
        let mut trailers = HeaderMap::new();
        Status::from(self).add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let (status, code) = self.http();
        let mut params = BTreeMap::<_, Vec<_>>::new();
        for violation in &self.violations {
            params.entry(&*violation.field).or_default().push(&*violation.description);
        }
        let body = HttpError { error: code, message: &self.message, params };
        let mut answer = crate::http::json(status, &body);
        if self.kind == Kind::DeadlineExceeded {
            answer.extensions_mut().insert(NoFailure("DEADLINE_EXCEEDED"));
        } else if NO_FAILURES.contains(&self.reason) {
            answer.extensions_mut().insert(NoFailure(self.reason));
        }
        let headers = answer.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sluice\""));
        }
        let retry_after = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some(self.retry_after.unwrap_or(RETRY_AFTER)),
            _ => self.retry_after,
        };
        if let Some(delay) = retry_after {
            headers.insert(header::RETRY_AFTER, delay.as_secs().max(1).into());
        }
        answer
    }
}

/// Violations as a status has them: the first ones, each with its share of the room.
fn shared_out(violations: Vec<Violation>) -> impl Iterator<Item = Violation> {
    let (mut room, mut others) = (VIOLATIONS_BYTES_MAX, violations.len().min(VIOLATIONS_MAX));
    violations.into_iter().take(VIOLATIONS_MAX).map(move |Violation { field, description }| {
        let share = room / others - VIOLATION_BYTES;
        let field = cut(field, FIELD_BYTES_MAX.min(share));
        let description = cut(description, share - field.len());
        room -= field.len() + description.len() + VIOLATION_BYTES;
        others -= 1;
        Violation { field, description }
    })
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.log();
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason, ERROR_DOMAIN, std::collections::HashMap::new());
        for violation in shared_out(error.violations) {
            details.add_bad_request_violation(violation.field, violation.description);
        }
        if let Some(delay) = error.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(error.kind.code(), cut(error.message, MESSAGE_BYTES_MAX), details)
    }
}

/// The messages of an error and of all its sources, for logs and operators.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

#[cfg(test)]
mod tests;
