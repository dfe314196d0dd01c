//! The framing of gRPC within a request's body: finds where messages begin and
//! end, measures them, decompresses them, and passes them on; those that are not
//! compressed without a copy.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::{
    cost::{Malformed, Meter},
    inflate::Encoding,
};
use crate::{Error, budget::Account};

/// A flag, and a length of four bytes.
const HEADER_BYTES: usize = 5;

/// Why it does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The budget has no room for a message of so many bytes now.
    NoRoom(usize),
    /// The request is refused.
    Refused(Error),
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Refused(Error::malformed_request())
    }
}

/// What arrives in frames.
#[derive(Debug)]
pub(super) struct Frames {
    encoding: Option<Encoding>,
    meter: Option<Meter>,
    bytes_max: usize,
    /// Whether there is but one message.
    single: bool,
    state: State,
    /// What has arrived and is not passed on: first what may be, up to `free`, then the
    /// header that is being read or a message's end that is held back, up to `at`, then the
    /// rest. `free <= at <= chunk.len()`; while a compressed message is read both are 0.
    chunk: Bytes,
    free: usize,
    at: usize,
    /// Room that a compressed message needs, once it was measured.
    needed: Option<usize>,
    /// Whether there comes no more.
    whole: bool,
    /// Whether a message may be passed on that could not when this was asked last.
    has_passed: bool,
    out: VecDeque<Bytes>,
    /// Why the request is refused, once what came before is passed on.
    refused: Option<Error>,
}

#[derive(Debug)]
enum State {
    Header {
        bytes: [u8; HEADER_BYTES],
        have: usize,
    },
    /// Of so many bytes; what of it has arrived costs so much when it is decoded.
    Plain {
        left: usize,
        bytes: usize,
        cost: usize,
    },
    Compressed {
        left: usize,
        gathered: BytesMut,
        encoding: Encoding,
    },
    Complete,
}

impl State {
    fn header() -> Self {
        Self::Header { bytes: [0; HEADER_BYTES], have: 0 }
    }
}

/// Refuses what never finds room.
fn may_fit(account: &Account, bytes: usize) -> Result<(), Stop> {
    account.may_fit(bytes).then_some(()).ok_or_else(|| Stop::Refused(Error::request_too_large()))
}

impl Frames {
    /// For messages of up to so many bytes; one, if `single`.
    pub(super) fn new(
        encoding: Option<Encoding>,
        meter: Option<Meter>,
        bytes_max: usize,
        single: bool,
    ) -> Self {
        Self {
            encoding,
            meter,
            bytes_max,
            single,
            state: State::header(),
            chunk: Bytes::new(),
            free: 0,
            at: 0,
            needed: None,
            whole: false,
            has_passed: false,
            out: VecDeque::new(),
            refused: None,
        }
    }

    /// Whether there is but one message.
    pub(super) fn is_single(&self) -> bool {
        self.single
    }

    /// Whether a caller is in the middle of a message.
    pub(super) fn is_partial(&self) -> bool {
        match &self.state {
            State::Header { have, .. } => *have > 0,
            State::Plain { .. } | State::Compressed { .. } => true,
            State::Complete => false,
        }
    }

    /// Whether a caller that sends nothing keeps a handler waiting: for the rest of
    /// a message, or for the end of the only one.
    pub(super) fn is_awaited(&self) -> bool {
        self.single || self.is_partial()
    }

    /// What may be passed on.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// Whether all of a message has arrived, and it is not passed on yet.
    fn is_held_back(&self) -> bool {
        matches!(self.state, State::Plain { left: 0, .. } | State::Compressed { left: 0, .. })
    }

    /// Whether one more message may be passed on.
    pub(super) fn has_passed(&mut self) -> bool {
        std::mem::take(&mut self.has_passed)
    }

    /// More has arrived. All that came before must have been processed.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.is_held_back() {
            // It was the only one: this is too much.
            self.state = State::Complete;
        }
        self.chunk = chunk;
        (self.free, self.at) = (0, 0);
    }

    /// There comes no more. Says whether that lets go on what has arrived.
    pub(super) fn end(&mut self) -> bool {
        self.whole = true;
        self.is_held_back()
    }

    /// Whether there comes no more.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Processes what has arrived. What may be passed on is there in any case; a refusal
    /// comes after it.
    pub(super) fn advance(&mut self, account: &Account) -> Result<(), Stop> {
        if let Some(error) = self.refused.take() {
            return Err(Stop::Refused(error));
        }
        let advanced = self.work(account);
        self.release();
        match advanced {
            Err(Stop::Refused(error)) if !self.out.is_empty() => {
                self.refused = Some(error);
                Ok(())
            }
            advanced => advanced,
        }
    }

    /// Lets go what may be passed on.
    fn release(&mut self) {
        let free = self.chunk.split_to(self.free);
        self.at -= self.free;
        self.free = 0;
        if !free.is_empty() {
            self.out.push_back(free);
        }
    }

    fn work(&mut self, account: &Account) -> Result<(), Stop> {
        loop {
            debug_assert!(self.free <= self.at && self.at <= self.chunk.len());
            let rest = self.chunk.len() - self.at;
            match &mut self.state {
                // Its handler waits for the end, too.
                State::Plain { left: 0, .. } | State::Compressed { left: 0, .. }
                    if self.single && !self.whole =>
                {
                    return if rest == 0 { Ok(()) } else { Err(Malformed.into()) };
                }
                State::Plain { left: 0, bytes, cost } => {
                    account.grow(*cost).map_err(Stop::NoRoom)?;
                    let bytes = *bytes;
                    self.free = self.at;
                    self.ended(account, bytes);
                }
                State::Compressed { left: 0, .. } => self.inflate(account)?,
                _ if rest == 0 => return Ok(()),
                State::Header { bytes, have } => {
                    let more = rest.min(HEADER_BYTES - *have);
                    bytes[*have..*have + more].copy_from_slice(&self.chunk[self.at..self.at + more]);
                    *have += more;
                    self.at += more;
                    if *have == HEADER_BYTES {
                        let bytes = *bytes;
                        self.begin(bytes)?;
                    } else {
                        self.hold_back();
                    }
                }
                State::Plain { left, bytes, cost } => {
                    let more = rest.min(*left);
                    account.grow(more).map_err(Stop::NoRoom)?;
                    if let Some(meter) = &mut self.meter {
                        *cost += meter.feed(&self.chunk[self.at..self.at + more])?;
                        may_fit(account, *bytes + *cost)?;
                    }
                    *left -= more;
                    self.at += more;
                    // It is decoded once its last piece is passed on, and room for that is
                    // taken then: who keeps its end back holds no more than what was sent.
                    if *left > 0 {
                        self.free = self.at;
                    }
                }
                State::Compressed { left, gathered, .. } => {
                    let more = rest.min(*left);
                    account.grow(more).map_err(Stop::NoRoom)?;
                    gathered.extend_from_slice(&self.chunk.split_to(more));
                    *left -= more;
                }
                State::Complete => return Err(Malformed.into()),
            }
        }
    }

    /// A header that goes on in the next chunk is no longer needed in this one.
    fn hold_back(&mut self) {
        self.release();
        self.chunk.clear();
        self.at = 0;
    }

    /// A header is complete.
    fn begin(&mut self, header: [u8; HEADER_BYTES]) -> Result<(), Stop> {
        let [flag, length @ ..] = header;
        let left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let encoding = match (flag, self.encoding) {
            (0, _) => None,
            (1, Some(encoding)) => Some(encoding),
            _ => return Err(Malformed.into()),
        };
        if left > self.bytes_max {
            return Err(Stop::Refused(Error::request_too_large()));
        }
        match encoding {
            None => {
                if let Some(meter) = &mut self.meter {
                    meter.begin(left as u64);
                }
                if self.at - self.free < HEADER_BYTES {
                    // It began in an earlier chunk.
                    self.out.push_back(Bytes::copy_from_slice(&header));
                    self.chunk.advance(self.at);
                    self.at = 0;
                }
                self.free = self.at;
                self.state = State::Plain { left, bytes: left, cost: 0 };
            }
            Some(encoding) => {
                self.release();
                self.chunk.advance(self.at);
                self.at = 0;
                self.state = State::Compressed { left, gathered: BytesMut::new(), encoding };
            }
        }
        Ok(())
    }

    /// All of a compressed message is there. One that finds no room is measured to its end
    /// and let go; from then on it takes all that it needs at once, or nothing. So it
    /// gives nothing back while it waits, which would wake it again.
    fn inflate(&mut self, account: &Account) -> Result<(), Stop> {
        let State::Compressed { gathered, encoding, .. } = &self.state else { return Ok(()) };
        let is_measured = self.needed.is_some();
        let mut taken = self.needed.unwrap_or_default();
        account.grow(taken).map_err(Stop::NoRoom)?;
        let (mut bytes, mut cost) = (0, 0);
        let mut inflated = Some(BytesMut::new());
        if let Some(meter) = &mut self.meter {
            // How long it is, it does not say before its end. No message is longer.
            meter.begin(u32::MAX.into());
        }
        let take = |piece: &[u8]| {
            bytes += piece.len();
            if bytes > self.bytes_max {
                return Err(Stop::Refused(Error::request_too_large()));
            }
            if let Some(meter) = &mut self.meter {
                cost += meter.feed(piece)?;
            }
            may_fit(account, gathered.len() + bytes + cost)?;
            if !is_measured && inflated.is_some() {
                match account.grow(piece.len()) {
                    Ok(()) => taken += piece.len(),
                    // It does not wait.
                    Err(size) if self.single => return Err(Stop::NoRoom(size)),
                    Err(_) => inflated = None,
                }
            }
            if let Some(inflated) = &mut inflated {
                inflated.extend_from_slice(piece);
            }
            Ok(())
        };
        let mut ended = encoding.inflate(gathered, take, || Malformed.into());
        if self.meter.as_ref().is_some_and(|meter| !meter.is_whole()) {
            ended = ended.and(Err(Malformed.into()));
        }
        let inflated = inflated.filter(|_| ended.is_ok() && (is_measured || account.grow(cost).is_ok()));
        let Some(inflated) = inflated else {
            account.shrink(taken);
            self.needed = Some(bytes + cost);
            return ended;
        };
        self.needed = None;
        let length = u32::try_from(bytes).map_err(|_| Malformed)?;
        let mut header = [0; HEADER_BYTES];
        header[1..].copy_from_slice(&length.to_be_bytes());
        account.shrink(gathered.len());
        self.out.extend([Bytes::copy_from_slice(&header), inflated.freeze()]);
        self.ended(account, bytes);
        Ok(())
    }

    /// A message of so many bytes may be passed on.
    fn ended(&mut self, account: &Account, bytes: usize) {
        account.arrived();
        self.has_passed = true;
        self.state = if self.single {
            State::Complete
        } else {
            account.keep(bytes);
            State::header()
        };
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
pub(super) mod tests;
