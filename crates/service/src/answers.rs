//! What tonic itself answers, put into the contract's words and given details: a
//! request over the limit is RESOURCE_EXHAUSTED (tonic says OUT_OF_RANGE), one that
//! can't be decoded is INVALID_ARGUMENT (tonic says INTERNAL). It also keeps callers'
//! deadlines (`grpc-timeout`): one that passes is DEADLINE_EXCEEDED. Then the
//! handler is dropped: work not yet sealed is never done, work that is sealed
//! goes on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Error, Kind};

/// An error of tonic's own about a request, in the contract's words. What the
/// handlers said themselves carries details and passes as it is.
#[must_use]
pub fn in_contract_words(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    match status.code() {
        // The latter for one that grows over the limit when it is decompressed.
        Code::OutOfRange | Code::ResourceExhausted => Error::request_too_large().into(),
        Code::Internal => Error::malformed_request().into(),
        Code::Unimplemented => Error::new(
            Kind::Unimplemented,
            "NOT_SUPPORTED",
            "there is no such call, or its encoding is not supported (gzip and zstd are)",
        )
        .into(),
        _ => status,
    }
}

/// The time a caller gives a call (`grpc-timeout`), as the gRPC protocol writes
/// it: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// Puts the translation around a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswersLayer;

impl<S> Layer<S> for AnswersLayer {
    type Service = Answers<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Answers { inner }
    }
}

/// See [`AnswersLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Answers<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Answers<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = deadline(request.headers());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = match deadline {
                None => answer.await?,
                Some(time) => match tokio::time::timeout(time, answer).await {
                    Ok(answer) => answer?,
                    Err(_) => return Ok(Status::from(late()).into_http()),
                },
            };
            Ok(match Status::from_header_map(answer.headers()) {
                Some(status) if status.code() != Code::Ok => in_contract_words(status).into_http(),
                _ => answer,
            })
        })
    }
}

fn late() -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the deadline passed; what was sent may have been kept: resend with the same chkpt or request_id",
    )
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        deadline(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(timeout("5m"), Some(Duration::from_millis(5)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        for malformed in ["", "5", "m", "123456789m", "5x", "-5m"] {
            assert_eq!(timeout(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn only_tonics_own_answers_are_translated() {
        assert_eq!(in_contract_words(Status::out_of_range("")).code(), Code::ResourceExhausted);
        assert_eq!(in_contract_words(Status::internal("")).code(), Code::InvalidArgument);
        for (bare, reason) in [
            (Status::resource_exhausted(""), "REQUEST_TOO_LARGE"),
            (Status::unimplemented(""), "NOT_SUPPORTED"),
        ] {
            let code = bare.code();
            let told = in_contract_words(bare);
            assert_eq!(
                (told.code(), told.get_error_details().error_info().unwrap().reason.as_str()),
                (code, reason)
            );
        }
        let own = in_contract_words(Error::internal("x").into());
        assert_eq!(own.code(), Code::Internal);
        assert_eq!(own.get_error_details().error_info().unwrap().reason, "INTERNAL");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_dropped_and_says_so() {
        struct Never;
        impl Service<Request<()>> for Never {
            type Response = Response<()>;
            type Error = std::convert::Infallible;
            type Future = std::future::Pending<Result<Response<()>, Self::Error>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, _: Request<()>) -> Self::Future {
                std::future::pending()
            }
        }
        let request = Request::builder().header("grpc-timeout", "50m").body(()).unwrap();
        let answer = AnswersLayer.layer(Never).call(request).await.unwrap();
        assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::DeadlineExceeded);
    }
}
