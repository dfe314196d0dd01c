//! Request bodies within bounds, on both surfaces, before anything is decoded: what
//! arrives is accounted for in the process's [`Budget`], and held there until the
//! handler has ended (of a stream: until the handler lets go of the message). What a
//! message takes when it is decoded is added when all of it is there. A body
//! that finds no room is refused at once. A stream may wait a moment: not reading
//! is what tells its publisher to slow down, and its earlier messages are about to
//! make room.

mod cost;
mod frames;
mod inflate;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Either;
use sluice_proto::{limits::INTAKE_MESSAGE_BYTES_MAX, rpc};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{
    Error, Kind,
    auth::INTAKE_SCOPE,
    budget::{Account, Budget, Measures},
    open::Open,
    shares::Owner,
    stack::is_grpc,
    whole::Whole,
};
use cost::Meter;
use frames::{Frames, Stop};
use inflate::Encoding;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// How long a caller may pause within a gRPC message.
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// How long a gRPC message may take, once it is waited for.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a stream waits for room before it is refused.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(2);

/// A body of HTTP is there twice while it is put together.
const HTTP_FOLD: usize = 2;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Puts bounds on the bodies of all requests to a service.
#[derive(Clone, Debug)]
pub(crate) struct Bodies<S> {
    /// What all bodies share.
    budget: Arc<Budget>,
    /// That of health and reflection, which find room whoever has taken the other.
    open_budget: Arc<Budget>,
    /// Largest request, or message of a stream.
    request_bytes_max: usize,
    inner: S,
}

impl<S, B> Service<Request<B>> for Bodies<S>
where
    S: Service<Request<Bounded<B>>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let owner = request.extensions().get().cloned().unwrap_or(Owner::Nobody);
        let open = Open::of(&request);
        let budget = if open.is_some() { &self.open_budget } else { &self.budget }.clone();
        let account = Account::open(budget.clone(), owner);
        let surface = self.surface(&mut request, open);
        let streaming = matches!(&surface, Surface::Grpc(frames) if !frames.is_single());
        if streaming {
            request.extensions_mut().insert(account.clone());
        }
        let body = |body| Bounded::new(body, budget, account.clone(), surface);
        let answer = self.inner.call(request.map(body));
        // What a stream holds, its body and its handler hold.
        let held = (!streaming).then_some(account);
        Box::pin(async move {
            let answer = answer.await;
            drop(held);
            answer
        })
    }
}

impl<S> Bodies<S> {
    pub(crate) fn new(budget: Arc<Budget>, request_bytes_max: usize, inner: S) -> Self {
        let open_budget = Budget::new(Open::BODY_BYTES_MAX, Measures::default());
        Self { budget, open_budget, request_bytes_max, inner }
    }

    fn surface<B>(&self, request: &mut Request<B>, open: Option<Open>) -> Surface {
        if !is_grpc(request) {
            return Surface::Http { seen: 0, bytes_max: self.request_bytes_max };
        }
        // Decompressed here, so that what is behind never meets a compressed one.
        let encoding = request.headers().get(GRPC_ENCODING).and_then(Encoding::named);
        if encoding.is_some() {
            request.headers_mut().remove(GRPC_ENCODING);
        }
        let rpc = rpc(request.uri().path());
        let bytes_max = match rpc.map(|rpc| rpc.scope) {
            Some(INTAKE_SCOPE) => INTAKE_MESSAGE_BYTES_MAX,
            Some(_) => self.request_bytes_max,
            None => Open::MESSAGE_BYTES_MAX.min(self.request_bytes_max),
        };
        let meter = rpc.map(|rpc| Meter::new(rpc.message));
        let single = match rpc {
            Some(rpc) => !rpc.streaming,
            None => open == Some(Open::Health),
        };
        Surface::Grpc(Frames::new(encoding, meter, bytes_max, single))
    }
}

/// What a body holds.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the larger one is that of most requests")]
enum Surface {
    /// Whatever the route reads, up to a limit; beyond, it only counts.
    Http { seen: usize, bytes_max: usize },
    /// One gRPC message, or any number of them.
    Grpc(Frames),
}

/// A body whose bytes are accounted for.
#[derive(Debug)]
pub(crate) struct Bounded<B> {
    inner: Either<B, Whole<B>>,
    budget: Arc<Budget>,
    account: Account,
    surface: Surface,
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

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> Bounded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_inner(&mut self, context: &mut Context<'_>) -> Polled {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    /// A body of HTTP. One that finds no room says so once; what comes after, its
    /// reader discards, so that a caller that is still sending sees the answer.
    fn poll_http(&mut self, context: &mut Context<'_>) -> Polled {
        let frame = ready!(self.poll_inner(context));
        if let (Some(Ok(frame)), Surface::Http { seen, bytes_max }, false) =
            (&frame, &mut self.surface, self.ended)
        {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let counted = bytes.min(bytes_max.saturating_sub(*seen));
            *seen += bytes;
            if let Err(size) = self.account.grow(counted * HTTP_FOLD) {
                self.ended = true;
                self.account.shrink(size);
                let whose = self.account.organisation();
                return Poll::Ready(Some(Err(self.budget.refusal(size, whose.as_ref()).into())));
            }
        }
        Poll::Ready(frame)
    }

    fn frames(&mut self) -> Option<&mut Frames> {
        match &mut self.surface {
            Surface::Http { .. } => None,
            Surface::Grpc(frames) => Some(frames),
        }
    }

    fn poll_grpc(&mut self, context: &mut Context<'_>) -> Polled {
        let account = self.account.clone();
        loop {
            let Some(frames) = self.frames() else { return Poll::Ready(None) };
            let single = frames.is_single();
            if let Some(bytes) = frames.pop() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if !single {
                // Who asks for more has taken all there was.
                account.settle();
                if account.is_too_much_kept() {
                    return self.refuse(outgrown());
                }
            }
            let advanced = frames.advance(&account);
            let (has_passed, piece) = (frames.has_passed(), frames.pop());
            if has_passed {
                // What was waited for is there, and what comes next has its own time.
                (self.waiting, self.until) = (None, None);
            }
            if let Some(bytes) = piece {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match advanced {
                Ok(()) => self.waiting = None,
                Err(Stop::Refused(error)) => return self.refuse(error),
                Err(Stop::NoRoom(size)) => {
                    if single || ready!(self.poll_room(context)).is_err() {
                        let refusal = self.budget.refusal(size, account.organisation().as_ref());
                        return self.refuse(refusal);
                    }
                    continue;
                }
            }
            if self.frames().is_some_and(|frames| frames.is_whole()) {
                return Poll::Ready(None);
            }
            match self.poll_inner(context) {
                Poll::Pending => {
                    ready!(self.poll_pause(context));
                    return self.refuse(Error::too_slow());
                }
                Poll::Ready(None) => {
                    let goes_on = self.frames().is_some_and(Frames::end);
                    if !goes_on && self.frames().is_some_and(|frames| frames.is_partial()) {
                        return self.refuse(Error::malformed_request());
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.pause = None;
                    match (frame.into_data(), self.frames()) {
                        (Ok(bytes), Some(frames)) => frames.push(bytes),
                        (Ok(bytes), None) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                        // No call knows trailers of a request; they come before its end.
                        (Err(_trailers), _) => {}
                    }
                }
            }
        }
    }

    fn refuse(&mut self, error: Error) -> Polled {
        self.ended = true;
        Poll::Ready(Some(Err(Status::from(error).into())))
    }

    /// Ready when it is worth another try, an error when that took too long.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        let freed = || Box::pin(self.budget.clone().freed());
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
        if !self.frames().is_some_and(|frames| frames.is_awaited()) {
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
    Error::new(Kind::Unavailable, "STREAM_OUTGROWN", message).retry_after(Duration::ZERO)
}

impl<B> Bounded<B> {
    fn new(body: B, budget: Arc<Budget>, account: Account, surface: Surface) -> Self {
        let inner = match surface {
            Surface::Http { .. } => Either::Left(body),
            // Streams may be cut anywhere and still hold whole messages.
            Surface::Grpc(_) => Either::Right(Whole::new(body)),
        };
        Self { inner, budget, account, surface, waiting: None, pause: None, until: None, ended: false }
    }
}

impl<B> HttpBody for Bounded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match self.surface {
            Surface::Http { .. } => self.poll_http(context),
            _ if self.ended => Poll::Ready(None),
            _ => self.poll_grpc(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.surface {
            Surface::Http { .. } => self.inner.size_hint(),
            _ => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.surface, Surface::Http { .. }) && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
