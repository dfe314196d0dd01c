//! Answers that end with an error when something comes to pass, if they have not before.
//! What made the answer is dropped then.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::Error;

/// The body of such an answer.
pub(crate) struct Until {
    /// Until it has ended.
    body: Option<Body>,
    end: Pin<Box<dyn Future<Output = Error> + Send>>,
    body_first: bool,
}

impl Until {
    /// Ends at that moment, also if there is always more to send.
    pub(crate) fn at_once(body: Body, end: impl Future<Output = Error> + Send + 'static) -> Self {
        Self { body: Some(body), end: Box::pin(end), body_first: false }
    }

    /// Ends once what there is of it at that moment has been sent: whoever stops on purpose
    /// keeps back nothing that is ready.
    pub(crate) fn once_sent(body: Body, end: impl Future<Output = Error> + Send + 'static) -> Self {
        Self { body: Some(body), end: Box::pin(end), body_first: true }
    }
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.body_first
            && let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context)
        {
            return Poll::Ready(frame);
        }
        match this.end.as_mut().poll(context) {
            Poll::Ready(error) => {
                this.body = None;
                Poll::Ready(Some(error.into_trailers()))
            }
            Poll::Pending if this.body_first => Poll::Pending,
            Poll::Pending => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// How many frames of two that are there come before the error, and what comes after it.
    async fn sent(until: fn(Body, std::future::Ready<Error>) -> Until) -> (usize, bool) {
        let frames = ["a", "b"].map(|bytes| Ok::<_, Status>(Frame::data(bytes.into())));
        let body = futures_util::StreamExt::chain(
            futures_util::stream::iter(frames),
            futures_util::stream::pending(),
        );
        let mut until = until(Body::new(StreamBody::new(body)), ready(Error::too_slow()));
        let mut sent = 0;
        while until.frame().await.unwrap().unwrap().is_data() {
            sent += 1;
        }
        (sent, until.frame().await.is_none())
    }

    #[tokio::test]
    async fn what_is_ready_is_sent_first_or_not_at_all() {
        assert_eq!(sent(Until::at_once).await, (0, true));
        assert_eq!(sent(Until::once_sent).await, (2, true));
    }
}
