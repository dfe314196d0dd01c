//! Answers that their callers have not read yet, within bounds, on both surfaces. An
//! answer of one message is put together at once, and its bytes are accounted for in
//! the process's [`AnswerMemory`] until the last of them was sent or dropped,
//! wherever they wait for a caller that does not read. What was only read and finds no
//! room is refused; of what changed something the caller is told all the same, and the
//! next ones find less room. Streams go in pieces, one after the other, and are not looked
//! at: whoever makes one of what is in memory as a whole takes the room for it.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use sluice_proto::rpc;
use tonic::{Status, body::Body};

use crate::{
    Error,
    answer_memory::{AnswerMemory, SMALL_BYTES_MAX},
    http::OPENAPI_PATH,
    shares::Owner,
    stack::is_grpc,
};

/// What is known of an answer before it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    grpc: bool,
    /// Whether it is one message, and made for its caller.
    whole: bool,
    /// Whether nothing was changed for it.
    only_read: bool,
}

impl Asked {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        if !is_grpc(request) {
            return Self { grpc: false, whole: path != OPENAPI_PATH, only_read: request.method().is_safe() };
        }
        let rpc = rpc(path);
        Self {
            grpc: true,
            whole: rpc.is_some_and(|rpc| !rpc.answered_by_stream),
            only_read: rpc.is_some_and(|rpc| rpc.scope.ends_with(".read")),
        }
    }

    /// An answer to that owner, accounted for; or a refusal in its place.
    pub(crate) async fn account(
        self,
        answer: Response<Body>,
        owner: &Owner,
        memory: &AnswerMemory,
    ) -> Response<Body> {
        // A route of HTTP that answers by a stream doesn't know how long it will be.
        if !self.whole || !self.grpc && answer.body().size_hint().exact().is_none() {
            return answer;
        }
        let (head, mut rest) = answer.into_parts();
        // One message is there at once.
        let first = poll_fn(|context| match Pin::new(&mut rest).poll_frame(context) {
            Poll::Ready(first) => Poll::Ready(first),
            Poll::Pending => Poll::Ready(None),
        });
        let first = match first.await.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(bytes))) if bytes.len() <= SMALL_BYTES_MAX => Some(Ok(Frame::data(bytes))),
            Some(Ok(Ok(bytes))) => {
                let room = match memory.room_of(owner, bytes.len()) {
                    None if self.only_read => return Error::overloaded().into_answer(self.grpc),
                    None => memory.room_anyway(owner, bytes.len()),
                    Some(room) => room,
                };
                Some(Ok(Frame::data(room.hold(bytes))))
            }
            Some(Ok(Err(other))) => Some(Ok(other)),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        Response::from_parts(head, Body::new(Begun { first, rest }))
    }
}

/// An answer of which the first frame is there already.
struct Begun {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.rest.size_hint();
        let first = self.first.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        let bytes = first.map_or(0, Bytes::len) as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(bytes));
        }
        hint.set_lower(hint.lower().saturating_add(bytes));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, StatusCode};
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::metrics::{Registry, Requests};

    fn memory(bytes_max: usize) -> Arc<AnswerMemory> {
        let requests = Requests::register(&mut Registry::new("sluice-test", "0"));
        AnswerMemory::new(bytes_max, &requests)
    }

    const LIST: &str = "/sluice.results.v1.ResultsService/ListResults";
    const DOWNLOAD: &str = "/sluice.results.v1.ResultsService/DownloadResult";
    const PUBLISH: &str = "/sluice.ingest.v1.IngestService/PublishObservations";
    const MESSAGE: usize = SMALL_BYTES_MAX + 1;

    /// An answer of so many bytes to a gRPC call of this path, or to a request of HTTP: of
    /// gRPC in a body that doesn't know its length, as tonic's don't.
    async fn asked(memory: &AnswerMemory, method: Method, path: &str, bytes: usize) -> Response<Body> {
        let mut request = Request::builder().method(&method).uri(path);
        if path.starts_with("/sluice") {
            request = request.header("content-type", "application/grpc");
        }
        let asked = Asked::of(&request.body(()).unwrap());
        let bytes = Bytes::from(vec![b'x'; bytes]);
        let body = if asked.grpc {
            let frames = [Ok::<_, Status>(Frame::data(bytes)), Ok(Frame::trailers(Default::default()))];
            Body::new(StreamBody::new(futures_util::stream::iter(frames)))
        } else {
            Body::new(Full::new(bytes).map_err(|never| match never {}))
        };
        asked.account(Response::new(body), &Owner::Operator, memory).await
    }

    fn reason(answer: &Response<Body>) -> Option<String> {
        let status = Status::from_header_map(answer.headers())?;
        status.get_error_details().error_info().map(|info| info.reason.clone())
    }

    #[tokio::test]
    async fn answers_find_room_up_to_the_limit_until_they_are_sent_or_dropped() {
        let memory = memory(2 * MESSAGE);
        let first = asked(&memory, Method::POST, LIST, MESSAGE).await;
        let second = asked(&memory, Method::GET, "/results", MESSAGE).await;
        assert_eq!((reason(&first), second.status()), (None, StatusCode::OK));
        assert_eq!(second.body().size_hint().exact(), Some(MESSAGE as u64));
        assert_eq!(memory.used(), 2 * MESSAGE);

        let refused = asked(&memory, Method::POST, LIST, MESSAGE).await;
        assert_eq!(reason(&refused).as_deref(), Some("OVERLOADED"));
        let refused = asked(&memory, Method::GET, "/results", MESSAGE).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);

        drop(first);
        assert_eq!(memory.used(), MESSAGE);
        let mut body = asked(&memory, Method::POST, LIST, MESSAGE).await.into_body();
        // On its way to the caller it is in memory still.
        let mut bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        drop(body);
        let sent = bytes.split_to(MESSAGE / 2);
        drop(sent);
        assert_eq!(memory.used(), 2 * MESSAGE);
        drop(bytes);
        let read = second.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((read.len(), memory.used()), (MESSAGE, MESSAGE));
        drop(read);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_is_small_or_a_stream_or_told_of_a_change_is_not_refused() {
        let memory = memory(MESSAGE);
        let _full = memory.room_of(&Owner::Operator, MESSAGE).unwrap();
        for (method, path, bytes, counted) in [
            (Method::POST, LIST, SMALL_BYTES_MAX, 0),
            (Method::GET, "/results", SMALL_BYTES_MAX, 0),
            (Method::GET, OPENAPI_PATH, MESSAGE, 0),
            (Method::POST, DOWNLOAD, MESSAGE, 0),
            (Method::POST, PUBLISH, MESSAGE, MESSAGE),
            (Method::POST, "/results/ack", MESSAGE, MESSAGE),
        ] {
            let answer = asked(&memory, method, path, bytes).await;
            assert_eq!((reason(&answer), answer.status()), (None, StatusCode::OK), "{path}");
            assert_eq!(memory.used(), MESSAGE + counted, "{path}");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), bytes, "{path}");
        }
    }
}
