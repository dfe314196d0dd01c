//! The end of a connection, told to the requests on it before it comes: the service
//! stops, or the connection has grown old. Streams end then, when what they have
//! received is answered, instead of being cut off later.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{Error, Kind, error::STREAM_ENDING, stalls::Stalls};

/// Whether a request's connection is about to end. Handlers of streams find it in
/// the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Leaving(Arc<Connection>);

/// What is known of a connection.
#[derive(Debug, Default)]
struct Connection {
    ending: CancellationToken,
    stalls: Stalls,
    /// Whether it has had a request.
    asked: AtomicBool,
}

impl Leaving {
    /// Of a connection that ends when that is cancelled, if not sooner.
    pub(crate) fn before(end: &CancellationToken) -> Self {
        Self(Arc::new(Connection { ending: end.child_token(), ..Connection::default() }))
    }

    /// Of a request; one that came by no connection never has to leave.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }

    /// The answers on that connection.
    pub(crate) fn stalls(&self) -> &Stalls {
        &self.0.stalls
    }

    /// The connection ends now.
    pub(crate) fn now(&self) {
        self.0.ending.cancel();
    }

    /// Ends after that time if the connection has had no request by then.
    pub(crate) async fn never_asked(&self, within: Duration) {
        tokio::time::sleep(within).await;
        if self.0.asked.load(Relaxed) {
            std::future::pending().await
        }
    }

    /// Waits until the stream should end.
    pub async fn ending(self) -> Ending {
        self.0.ending.cancelled().await;
        Ending
    }
}

/// A stream ends since its connection is about to.
#[derive(Clone, Copy, Debug)]
pub struct Ending;

impl From<Ending> for Error {
    /// UNAVAILABLE, to be retried at once: elsewhere, or by a new connection.
    fn from(_: Ending) -> Self {
        let message = "everything received was answered; open another stream for the rest";
        Self::new(Kind::Unavailable, STREAM_ENDING, message).retry_after(Duration::ZERO)
    }
}

/// Tells every request of one connection when that is about to end.
#[derive(Clone, Debug)]
pub(crate) struct Telling<S> {
    pub(crate) inner: S,
    pub(crate) leaving: Leaving,
}

impl<S, B> Service<Request<B>> for Telling<S>
where
    S: Service<Request<B>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.leaving.0.asked.store(true, Relaxed);
        request.extensions_mut().insert(self.leaving.clone());
        self.inner.call(request)
    }
}
