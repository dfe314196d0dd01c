//! How many requests are worked on at a time in the whole process (tonic's own
//! limits act per connection), and how large their headers may be. What finds no
//! place is refused at once: nobody is served sooner by a longer queue.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{
    Error,
    answer_memory::AnswerMemory,
    auth::Keys,
    leaving::Leaving,
    limits::Limits,
    metrics::{Gauge, Refusals},
    no_token::NoToken,
    rations::{Ration, Rations},
    shares::Owner,
    stack::is_grpc,
    stalls::{Stall, Stalls},
    unread::Asked,
    until::Until,
};

/// What RFC 9113 adds to each header's name and value.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// Puts the limits around what answers.
#[derive(Clone, Debug)]
pub(crate) struct Admission<S> {
    keys: Arc<Keys>,
    places: Arc<Rations>,
    /// Those of health and reflection, which answer when all others are taken, and take
    /// none of each other's.
    of_health: Arc<Rations>,
    of_reflection: Arc<Rations>,
    answer_memory: Arc<AnswerMemory>,
    header_list_bytes_max: usize,
    refusals: Arc<Refusals>,
    inner: S,
}

impl<S> Admission<S> {
    pub(crate) fn new(
        keys: Arc<Keys>,
        limits: &Limits,
        answer_memory: Arc<AnswerMemory>,
        refusals: Arc<Refusals>,
        inner: S,
    ) -> Self {
        // Requests under way are told by the observer.
        let places = |max| Rations::new(max, Gauge::default());
        Self {
            keys,
            places: places(limits.requests_in_flight_max),
            of_health: places(NoToken::HEALTH_MAX),
            of_reflection: places(NoToken::REFLECTION_MAX),
            answer_memory,
            header_list_bytes_max: limits.header_list_bytes_max as usize,
            refusals,
            inner,
        }
    }

    /// A place for a request, and whose it is. That, and who calls, the layers behind find in
    /// its extensions.
    fn admit<B>(
        &self,
        request: &mut Request<B>,
        no_token: Option<NoToken>,
    ) -> Result<(Ration, Owner), Error> {
        // HTTP/2's own limit is the same; HTTP/1.1's knows no such sum.
        if header_list_bytes(request.headers()) > self.header_list_bytes_max {
            self.refusals.headers.met(None);
            return Err(Error::request_too_large());
        }
        let caller = self.keys.caller(request.headers());
        let owner = caller.owner();
        let places = match no_token {
            None => &self.places,
            Some(NoToken::Health) => &self.of_health,
            Some(NoToken::Reflection) => &self.of_reflection,
        };
        let Some(place) = places.take_now(&owner, 1) else {
            self.refusals.in_flight.met(owner.organisation());
            return Err(Error::overloaded());
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(owner.clone());
        Ok((place, owner))
    }
}

fn header_list_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES).sum()
}

impl<S, B> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let leaving = request.extensions().get::<Leaving>().cloned().unwrap_or_default();
        let (stalls, no_token) = (leaving.stalls().clone(), NoToken::of(&request));
        match self.admit(&mut request, no_token) {
            Ok((place, owner)) => {
                let (asked, memory) = (Asked::of(&request), self.answer_memory.clone());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    // What it takes is accounted for until its caller has read it.
                    let mut answer = asked.account(answer.await?, &owner, &memory).await;
                    // Their handlers know nothing of connections; all others do.
                    if no_token.is_some() {
                        let ending = async move { Error::from(leaving.ending().await) };
                        answer = answer.map(|body| Body::new(Until::once_sent(body, ending)));
                    }
                    Ok(placed(answer, stalls, Some(place)))
                })
            }
            Err(error) => {
                let answer = placed(error.into_answer(is_grpc(&request)), stalls, None);
                Box::pin(async move { Ok(answer) })
            }
        }
    }
}

/// An answer whose connection looks after it, and after the place of its request, until it
/// has been sent. A refusal waits for its caller to read it, too.
fn placed(answer: Response<Body>, stalls: Stalls, place: Option<Ration>) -> Response<Body> {
    let stall = Some(stalls.begin());
    answer.map(|body| Body::new(Placed { body, stalls, stall, _place: place }))
}

/// The body of an answer; the request's place is free when it has been sent.
struct Placed {
    body: Body,
    stalls: Stalls,
    /// While the connection has no room for more of it, or did not ask yet.
    stall: Option<Stall>,
    _place: Option<Ration>,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.stall = None;
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.stall = Some(self.stalls.begin());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
