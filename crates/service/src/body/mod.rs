//! Request bodies within bounds, on both surfaces, before anything is decoded: what
//! arrives is accounted for in the process's [`Budget`], and held there until the
//! handler has ended (of a stream: until the handler lets go of the message). What a
//! message takes when it is decoded is added when all of it is there. A body
//! that finds no room is refused at once. A stream may wait a moment: not reading
//! is what tells its publisher to slow down, and its earlier messages are about to
//! make room.

mod cost;
mod frames;
mod grpc;
mod http;
mod inflate;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Request, Response, header::HeaderName};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::Either;
use sluice_proto::{limits::INTAKE_MESSAGE_BYTES_MAX, rpc};
use tonic::body::Body;
use tower_service::Service;

use crate::{
    auth::INTAKE_SCOPE,
    budget::{Account, Budget, Measures},
    no_token::NoToken,
    shares::Owner,
    stack::is_grpc,
};
use cost::Meter;
use frames::Frames;
use grpc::Grpc;
use http::Http;
use inflate::Encoding;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A body whose bytes are accounted for.
pub(crate) type Bounded<B> = Either<Http<B>, Grpc<B>>;

/// Puts bounds on the bodies of all requests to a service.
#[derive(Clone, Debug)]
pub(crate) struct Bodies<S> {
    /// What all bodies share.
    budget: Arc<Budget>,
    /// That of health and reflection, which find room whoever has taken the other.
    no_token_budget: Arc<Budget>,
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
        let no_token = NoToken::of(&request);
        let budget = if no_token.is_some() { &self.no_token_budget } else { &self.budget };
        let account = Account::open(budget.clone(), owner);
        let frames = is_grpc(&request).then(|| self.frames(&mut request, no_token));
        let streaming = frames.as_ref().is_some_and(|frames| !frames.is_single());
        if streaming {
            request.extensions_mut().insert(account.clone());
        }
        let answer = self.inner.call(request.map(|body| match frames {
            None => Either::Left(Http::new(body, account.clone(), self.request_bytes_max)),
            Some(frames) => Either::Right(Grpc::new(body, account.clone(), frames)),
        }));
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
        let no_token_budget = Budget::new(NoToken::BODY_BYTES_MAX, Measures::default());
        Self { budget, no_token_budget, request_bytes_max, inner }
    }

    /// How the messages of a gRPC call are looked at.
    fn frames<B>(&self, request: &mut Request<B>, no_token: Option<NoToken>) -> Frames {
        // Decompressed here, so that what is behind never meets a compressed one.
        let encoding = request.headers().get(GRPC_ENCODING).and_then(Encoding::named);
        if encoding.is_some() {
            request.headers_mut().remove(GRPC_ENCODING);
        }
        let rpc = rpc(request.uri().path());
        let bytes_max = match rpc.map(|rpc| rpc.scope) {
            Some(INTAKE_SCOPE) => INTAKE_MESSAGE_BYTES_MAX,
            Some(_) => self.request_bytes_max,
            None => NoToken::MESSAGE_BYTES_MAX.min(self.request_bytes_max),
        };
        let meter = rpc.map(|rpc| Meter::new(rpc.message));
        let single = match rpc {
            Some(rpc) => !rpc.streaming,
            None => no_token == Some(NoToken::Health),
        };
        Frames::new(encoding, meter, bytes_max, single)
    }
}

#[cfg(test)]
mod tests;
