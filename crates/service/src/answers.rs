//! What tonic itself answers, put into the contract's words and given details: a
//! request over the limit is RESOURCE_EXHAUSTED (tonic says OUT_OF_RANGE), one that
//! can't be decoded is INVALID_ARGUMENT (tonic says INTERNAL). It also keeps callers'
//! deadlines (`grpc-timeout`): one that passes is DEADLINE_EXCEEDED. Then the
//! handler, or the stream it answers with, is dropped: work not yet sealed is never
//! done, work that is sealed goes on. (A stream whose caller reads no further is asked
//! for more, and so dropped, when the caller reads on or goes.)

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Status, body::Body};
use tower_service::Service;

use crate::{Error, Kind, until::Until};

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

/// Until when a caller waits for the answer to a call that came just now.
pub(crate) fn deadline(headers: &HeaderMap) -> Option<Instant> {
    given_time(headers).map(|time| Instant::now() + time)
}

/// What becomes of work for a caller, if that is before the caller's deadline; else
/// the work is dropped.
///
/// # Errors
/// DEADLINE_EXCEEDED.
pub(crate) async fn by<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => timeout_at(deadline, work).await.map_err(|_| late()),
    }
}

/// The time a caller gives a call (`grpc-timeout`), as the gRPC protocol writes
/// it: up to eight digits and a unit.
fn given_time(headers: &HeaderMap) -> Option<Duration> {
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
#[derive(Clone, Debug)]
pub(crate) struct Answers<S> {
    inner: S,
}

impl<S> Answers<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for Answers<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
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
            let answer = match by(deadline, answer).await {
                Ok(answer) => answer?,
                Err(late) => return Ok(late.into_answer(true)),
            };
            let answer = match deadline {
                None => answer,
                Some(deadline) => {
                    let passed = async move {
                        sleep_until(deadline).await;
                        late()
                    };
                    answer.map(|body| Body::new(Until::at_once(body, passed)))
                }
            };
            Ok(match Status::from_header_map(answer.headers()) {
                Some(status) if status.code() != Code::Ok => in_contract_words(status).into_http(),
                _ => answer,
            })
        })
    }
}

/// What a caller is told whose deadline passed.
fn late() -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the deadline passed before the answer was ready; the call may still take effect",
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;
    use http_body::Frame;
    use http_body_util::BodyExt as _;
    use tonic_types::StatusExt;

    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        given_time(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
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

    /// Answers at once with a body, or not at all.
    struct Handler(Option<Body>);

    impl Service<Request<()>> for Handler {
        type Response = Response<Body>;
        type Error = std::convert::Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<()>) -> Self::Future {
            let body = self.0.take();
            Box::pin(async move {
                match body {
                    Some(body) => Ok(Response::new(body)),
                    None => std::future::pending().await,
                }
            })
        }
    }

    async fn called(handler: Handler, timeout: Option<&str>) -> Response<Body> {
        let mut request = Request::builder();
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        Answers::new(handler).call(request.body(()).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_past_its_deadline_is_dropped_and_says_so() {
        let answer = called(Handler(None), Some("50m")).await;
        assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_at_its_deadline_and_is_dropped() {
        let (frames, sent) = tokio::sync::mpsc::channel::<Result<Bytes, Status>>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(sent);
        let body = Body::new(http_body_util::StreamBody::new(stream.map(|sent| sent.map(Frame::data))));
        let mut body = called(Handler(Some(body)), Some("50m")).await.into_body();
        frames.send(Ok("a".into())).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        assert!(!frames.is_closed());
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
        assert!(frames.is_closed(), "who made it was dropped");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_always_has_more_ends_at_its_deadline() {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, Status>(Frame::data("a".into())));
        let body = Body::new(http_body_util::StreamBody::new(endless));
        let mut body = called(Handler(Some(body)), Some("50m")).await.into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        tokio::time::advance(Duration::from_millis(51)).await;
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_a_stream_lasts() {
        let never = http_body_util::StreamBody::new(futures_util::stream::pending::<Result<_, Status>>());
        let mut body = called(Handler(Some(Body::new(never))), None).await.into_body();
        let long = tokio::time::timeout(Duration::from_secs(100_000), body.frame()).await;
        assert!(long.is_err());
    }
}
