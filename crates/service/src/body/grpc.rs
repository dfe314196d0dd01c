//! The body of a gRPC call: one message, or any number of them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::{
    BoxError, Polled,
    frames::{Frames, Stop},
};
use crate::{Error, Kind, budget::Account, error::STREAM_OUTGROWN, whole::Whole};

/// How long a caller may pause within a message.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How long a message may take, once it is waited for.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a stream waits for room before it is refused.
pub(super) const ROOM_WAIT_MAX: Duration = Duration::from_secs(2);

/// Passes messages on for which there is room.
pub(crate) struct Grpc<B> {
    /// Streams may be cut anywhere and still hold whole messages.
    inner: Whole<B>,
    account: Account,
    frames: Frames,
    /// While a stream waits for room.
    waiting: Option<Waiting>,
    /// While a caller pauses within a message.
    pause: Option<Pin<Box<Sleep>>>,
    /// Until when the message that is waited for has to be there.
    until: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

struct Waiting {
    freed: Pin<Box<dyn Future<Output = ()> + Send>>,
    until: Pin<Box<Sleep>>,
}

impl<B> Grpc<B> {
    pub(super) fn new(body: B, account: Account, frames: Frames) -> Self {
        let inner = Whole::new(body);
        Self { inner, account, frames, waiting: None, pause: None, until: None, ended: false }
    }

    fn refuse(&mut self, error: Error) -> Polled {
        self.ended = true;
        Poll::Ready(Some(Err(Status::from(error).into())))
    }

    /// Ready when it is worth another try, an error when that took too long.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let freed = || Box::pin(self.account.freed());
        let waiting = match &mut self.waiting {
            None => self.waiting.insert(Waiting { freed: freed(), until: Box::pin(sleep(ROOM_WAIT_MAX)) }),
            Some(waiting) => {
                if waiting.until.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(()));
                }
                ready!(waiting.freed.as_mut().poll(context));
                waiting.freed = freed();
                waiting
            }
        };
        // From here on it hears of everything that is given back; what was given
        // back since the last try, the next one finds.
        let _listening = waiting.until.as_mut().poll(context).is_pending()
            && waiting.freed.as_mut().poll(context).is_pending();
        Poll::Ready(Ok(()))
    }

    /// Ready when the caller has paused for too long, or takes too long altogether.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.frames.is_awaited() {
            self.until = None;
            return Poll::Pending;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(MESSAGE_TIME_MAX)));
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE_MAX))).as_mut().poll(context)
    }
}

/// A stream keeps the buffer of its largest message for as long as it lives.
fn outgrown() -> Error {
    let message = "the organisation's open streams keep too much memory; open another one";
    Error::new(Kind::Unavailable, STREAM_OUTGROWN, message).retry_after(Duration::ZERO)
}

impl<B> Body for Grpc<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            let single = this.frames.is_single();
            if let Some(bytes) = this.frames.pop() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if !single {
                // Who asks for more has taken all there was.
                this.account.settle();
                if this.account.is_too_much_kept() {
                    return this.refuse(outgrown());
                }
            }
            let advanced = this.frames.advance(&this.account);
            if this.frames.has_passed() {
                // What was waited for is there, and what comes next has its own time.
                (this.waiting, this.until) = (None, None);
            }
            if let Some(bytes) = this.frames.pop() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match advanced {
                Ok(()) => this.waiting = None,
                Err(Stop::Refused(error)) => return this.refuse(error),
                Err(Stop::NoRoom(size)) => {
                    if single || ready!(this.poll_room(context)).is_err() {
                        let refusal = this.account.refusal(size);
                        return this.refuse(refusal);
                    }
                    continue;
                }
            }
            if this.frames.is_whole() {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.inner).poll_frame(context) {
                Poll::Pending => {
                    ready!(this.poll_pause(context));
                    return this.refuse(Error::too_slow());
                }
                Poll::Ready(None) => {
                    let goes_on = this.frames.end();
                    if !goes_on && this.frames.is_partial() {
                        return this.refuse(Error::malformed_request());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    this.pause = None;
                    // No call knows trailers of a request; they come before its end.
                    if let Ok(bytes) = frame.into_data() {
                        this.frames.push(bytes);
                    }
                }
            }
        }
    }
}
