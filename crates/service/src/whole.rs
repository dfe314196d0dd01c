//! A request body that never ends early without saying so. A stream that its
//! caller resets, because it went away or changed its mind, would look complete:
//! hyper ends a body at the reason NO_ERROR, tonic at CANCEL. Half a file must not
//! be taken for a whole one.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::{Error, Kind};

/// A body that is read to the end its sender meant, or fails.
#[derive(Clone, Debug)]
pub struct Whole<B>(B);

impl<B> Whole<B> {
    /// Guards a body.
    #[must_use]
    pub fn new(body: B) -> Self {
        Self(body)
    }
}

fn broken_off() -> Error {
    Error::new(Kind::InvalidArgument, "BROKEN_OFF", "the request was broken off before its end")
}

impl<B> Body for Whole<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.0).poll_frame(context)) {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                let error: Box<dyn std::error::Error + Send + Sync> = error.into();
                tracing::debug!(%error, "a request broke off");
                Some(Err(broken_off().into()))
            }
            None if self.0.is_end_stream() => None,
            None => Some(Err(broken_off().into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::future::poll_fn;

    use super::*;

    /// Frames, and whether the sender meant their end.
    struct Sent(VecDeque<Result<&'static str, &'static str>>, bool);

    impl Body for Sent {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(|frame| frame.map(|bytes| Frame::data(bytes.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty() && self.1
        }
    }

    /// How many frames were read, and whether the end was a failure.
    async fn read(frames: &[Result<&'static str, &'static str>], meant: bool) -> (usize, bool) {
        let mut body = Whole::new(Sent(frames.iter().copied().collect(), meant));
        let mut count = 0;
        loop {
            match poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                Some(Ok(_)) => count += 1,
                Some(Err(status)) => {
                    assert_eq!(status.code(), tonic::Code::InvalidArgument);
                    return (count, true);
                }
                None => return (count, false),
            }
        }
    }

    #[tokio::test]
    async fn an_end_that_was_not_meant_is_a_failure() {
        assert_eq!(read(&[Ok("a"), Ok("b")], true).await, (2, false));
        assert_eq!(read(&[Ok("a"), Ok("b")], false).await, (2, true));
        assert_eq!(read(&[Ok("a"), Err("reset")], true).await, (1, true));
        assert_eq!(read(&[], false).await, (0, true));
    }
}
