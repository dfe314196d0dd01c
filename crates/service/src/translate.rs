//! Answers that tonic makes before a handler is reached, put into the contract's
//! words: see [`of_transport`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::of_transport;

/// Puts the translation in front of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TranslateLayer;

impl<S> Layer<S> for TranslateLayer {
    type Service = TranslateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TranslateService { inner }
    }
}

/// See [`TranslateLayer`].
#[derive(Clone, Debug)]
pub struct TranslateService<S> {
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for TranslateService<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // Only an answer without a body has its status in the headers.
            Ok(match Status::from_header_map(answer.headers()) {
                Some(said) => {
                    let code = said.code();
                    let status = of_transport(said);
                    if status.code() == code { answer } else { status.into_http() }
                }
                None => answer,
            })
        })
    }
}
