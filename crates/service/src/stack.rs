//! The whole tower stack in one function, outermost first, and the fork between
//! the two surfaces.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::Router;
use http::{Request, Response, header};
use http_body::Body as HttpBody;
use tonic::{body::Body, service::Routes};
use tower_service::Service;

use crate::{
    admission::Admission,
    answers::Answers,
    auth::{Keys, authorise},
    body::Bodies,
    budget::{Budget, Measures},
    observe::Observe,
    serve::Served,
};

/// All that a request goes through.
pub(crate) type Stack = Observe<Admission<Bodies<Surfaces>>>;

/// What answers a request, from the outside in.
pub(crate) fn stack(served: Served) -> Stack {
    let Served { routes, api, keys, requests, limits, answer_memory } = served;
    let measures =
        Measures { in_flight: requests.body_bytes.clone(), refused: requests.refusals.bodies.clone() };
    let budget = Budget::new(limits.body_bytes_in_flight_max, measures);
    // Whatever happens inside is counted, and part of one span.
    Observe::new(
        requests.clone(),
        // A request finds a place among its caller's, or is refused before anything is done
        // for it. What its answer takes is accounted for until its caller has read it.
        Admission::new(
            keys.clone(),
            &limits,
            answer_memory,
            requests.refusals.clone(),
            // Whoever reads a body, on whichever surface, the process's memory for
            // bodies is taken first, and given back when the answer is there.
            Bodies::new(
                budget,
                limits.request_bytes_max,
                // The content type decides which surface is meant, so that gRPC callers
                // get gRPC's errors and all others JSON, whatever the path.
                Surfaces {
                    keys,
                    // The deadline counts from the first byte of the headers, and
                    // nothing inside answers in tonic's words.
                    grpc: Answers::new(routes.prepare()),
                    // Every route settles its own scope first.
                    http: api.into_router(),
                },
            ),
        ),
    )
}

/// Both surfaces as one service.
#[derive(Clone, Debug)]
pub(crate) struct Surfaces {
    keys: Arc<Keys>,
    grpc: Answers<Routes>,
    http: Router,
}

/// Whether a gRPC call is meant.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let given = request.headers().get(header::CONTENT_TYPE);
    given.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Surfaces
where
    B: HttpBody<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Neither has anything to wait for: both route, and clone what they call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Answered {
        if is_grpc(&request) {
            // The token and its scope are settled before a body is read.
            if let Err(error) = authorise(&self.keys, &mut request) {
                return Box::pin(async move { Ok(error.into_answer(true)) });
            }
            return self.grpc.call(request);
        }
        let answer = self.http.call(request.map(axum::body::Body::new));
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_the_surfaces_apart() {
        let of = |value: &str| is_grpc(&Request::builder().header("content-type", value).body(()).unwrap());
        assert!(of("application/grpc") && of("application/grpc+proto"));
        assert!(!of("application/json") && !of("text/application/grpc"));
        assert!(!is_grpc(&Request::new(())));
    }
}
