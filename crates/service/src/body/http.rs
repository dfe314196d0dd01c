//! A body of HTTP: whatever its route reads, up to a limit.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, SizeHint};

use super::{BoxError, Polled};
use crate::budget::Account;

/// A body of HTTP is there twice while it is put together.
pub(super) const FOLD: usize = 2;

/// Counts what is read, and takes room for it up to a limit; beyond, its reader refuses it.
pub(crate) struct Http<B> {
    inner: B,
    account: Account,
    seen: usize,
    bytes_max: usize,
    refused: bool,
}

impl<B> Http<B> {
    pub(super) fn new(inner: B, account: Account, bytes_max: usize) -> Self {
        Self { inner, account, seen: 0, bytes_max, refused: false }
    }
}

impl<B> Body for Http<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    /// One that finds no room says so once; what comes after, its reader discards, so that a
    /// caller that is still sending sees the answer.
    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let (Some(Ok(frame)), false) = (&frame, this.refused) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let counted = bytes.min(this.bytes_max.saturating_sub(this.seen));
            this.seen += bytes;
            if let Err(size) = this.account.grow(counted * FOLD) {
                this.refused = true;
                this.account.shrink(size);
                return Poll::Ready(Some(Err(this.account.refusal(size).into())));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
