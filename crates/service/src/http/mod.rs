//! The HTTP/JSON surface both services stand on. An [`Api`] is a table of
//! routes: each is declared with its method, its template and the scope it
//! needs, and there is no other way to declare one. Tokens, bodies and errors
//! are dealt with here, so that a handler converts, calls and converts.

mod call;
mod openapi;

use std::{collections::BTreeSet, fmt, future::Future, sync::Arc};

pub use axum::response::Response as Answer;
use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, rejection::RawPathParamsRejection},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
pub use call::{Call, Head, Query};
use http::{HeaderValue, Method, Request, StatusCode, header};
use prost_types::Timestamp;
use serde::{
    Serialize,
    de::{DeserializeOwned, Error as _, Unexpected},
};
use tower::util::MapResponseLayer;

use crate::{
    Error,
    answers::{by, deadline},
    auth::Keys,
    observe::Matched,
    program::Failure,
};

/// Where the OpenAPI document lies.
pub(crate) const OPENAPI_PATH: &str = "/openapi.json";

/// What a caller must hold to use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing: it tells nothing of any organisation.
    NoToken,
    /// A valid token with this scope.
    Scope(&'static str),
}

/// One route as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    method: Method,
    /// Its template, such as `/results/{id}`. A `{path}` at its end may hold slashes.
    path: &'static str,
    needs: Needs,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.needs {
            Needs::NoToken => "no token",
            Needs::Scope(scope) => scope,
        };
        write!(f, "{} {} ({scope})", self.method, self.path)
    }
}

/// The HTTP routes of a service.
#[derive(Clone, Debug)]
pub struct Api {
    keys: Arc<Keys>,
    routes: Vec<Route>,
    router: Router,
}

impl Api {
    /// No routes yet; tokens are looked up in `keys`.
    #[must_use]
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, routes: Vec::new(), router: Router::new() }
    }

    /// Adds a route. Its handler runs only for a caller with that scope.
    ///
    /// # Panics
    /// If the route was declared before, or its method is none of HTTP's own.
    #[must_use]
    pub fn route<S, H, F>(
        self,
        method: Method,
        path: &'static str,
        scope: &'static str,
        state: &S,
        handler: H,
    ) -> Self
    where
        S: Clone + Send + Sync + 'static,
        H: Fn(S, Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let (keys, state) = (self.keys.clone(), state.clone());
        let endpoint = move |params: Result<RawPathParams, RawPathParamsRejection>,
                             request: Request<Body>| {
            let deadline = deadline(request.headers());
            let access = keys.access(&request, scope, path);
            let called = access.and_then(|access| Call::new(access, params, request));
            let answer = called.map(|call| handler(state.clone(), call));
            async move {
                match answer {
                    Ok(answer) => by(deadline, answer).await.flatten().unwrap_or_else(Error::into_response),
                    Err(refused) => refused.into_response(),
                }
            }
        };
        self.declare(Route { method, path, needs: Needs::Scope(scope) }, endpoint)
    }

    /// Adds a route that needs no token: its handler finds in the request itself
    /// what it is allowed to tell.
    ///
    /// # Panics
    /// As [`Self::route`].
    #[must_use]
    pub fn open_route<S, H, F>(self, method: Method, path: &'static str, state: &S, handler: H) -> Self
    where
        S: Clone + Send + Sync + 'static,
        H: Fn(S, Head) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let state = state.clone();
        let endpoint = move |params: Result<RawPathParams, RawPathParamsRejection>,
                             request: Request<Body>| {
            let head = Head::new(params, request).map(|(head, _)| handler(state.clone(), head));
            async move {
                match head {
                    Ok(answer) => answer.await.unwrap_or_else(Error::into_response),
                    Err(refused) => refused.into_response(),
                }
            }
        };
        self.declare(Route { method, path, needs: Needs::NoToken }, endpoint)
    }

    /// Adds the OpenAPI document that describes the routes. It needs no token.
    ///
    /// # Errors
    /// If it and the routes that were declared are not the same, scopes included:
    /// then the service does not start, and no test passes.
    pub fn documented_by(self, document: &'static str) -> Result<Self, Failure> {
        let endpoint = move || async move { json_text(StatusCode::OK, document) };
        let route = Route { method: Method::GET, path: OPENAPI_PATH, needs: Needs::NoToken };
        let api = self.declare(route, endpoint);
        let declared: BTreeSet<String> = api.routes.iter().map(ToString::to_string).collect();
        let documented = openapi::routes(document)?;
        let differences: Vec<_> = declared.symmetric_difference(&documented).cloned().collect();
        if differences.is_empty() {
            return Ok(api);
        }
        Err(format!("the OpenAPI document and the routes differ in: {}", differences.join(", ")).into())
    }

    fn declare<H, T>(mut self, route: Route, endpoint: H) -> Self
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        let method = MethodFilter::try_from(route.method.clone()).expect("one of HTTP's own methods");
        let named = MapResponseLayer::new(move |mut answer: Response| {
            answer.extensions_mut().insert(Matched(route.path));
            answer
        });
        // As axum writes it. Alert Logic's SDK leaves a path's slashes as they are.
        let path = match route.path.strip_suffix("{path}") {
            Some(before) => format!("{before}{{*path}}"),
            None => route.path.to_owned(),
        };
        self.router = self.router.route(&path, on(method, endpoint).layer(named));
        self.routes.push(route);
        self
    }

    /// The router: what no route answers is answered like an unknown thing. A
    /// wrong method is, too, and the answer says which are allowed.
    pub(crate) fn into_router(self) -> Router {
        let unknown = || async { Error::not_found("route").into_response() };
        self.router.method_not_allowed_fallback(unknown).fallback(unknown)
    }
}

/// What a JSON object says. A list is none: of one, serde would take a struct's fields in
/// their order.
///
/// # Errors
/// Why it is none, or not of this shape.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(serde_json::Error::invalid_type(Unexpected::Seq, &"an object")),
        _ => serde_json::from_slice(body),
    }
}

/// An answer in JSON.
#[must_use]
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => json_text(status, text),
        Err(error) => Error::internal(error).into_response(),
    }
}

/// An answer that is JSON already.
#[must_use]
pub fn json_text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut answer = Response::new(text.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A moment as the HTTP surface writes it: ISO 8601, UTC, always microseconds.
#[must_use]
pub fn datetime(moment: &Timestamp) -> String {
    let seconds = Timestamp { seconds: moment.seconds, nanos: 0 }.to_string();
    let micros = moment.nanos.clamp(0, 999_999_999) / 1000;
    format!("{}.{micros:06}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_no_object() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Point {
            x: Vec<u8>,
        }
        assert_eq!(object::<Point>(b"\n {\"x\":[1]}").unwrap(), Point { x: vec![1] });
        for bad in ["[[1]]", "\t\r\n [[1]]", "[]", "", "null", "1", "{}", "{\"x\":[1]} [", "\x0c{\"x\":[1]}"]
        {
            assert!(object::<Point>(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(
            object::<Point>(b"[[1]]").unwrap_err().to_string(),
            "invalid type: sequence, expected an object"
        );
    }

    #[test]
    fn datetimes_always_have_six_digits() {
        for (nanos, text) in [
            (110_451_000, "2020-02-29T11:59:15.110451Z"),
            (110_000_000, "2020-02-29T11:59:15.110000Z"),
            (999, "2020-02-29T11:59:15.000000Z"),
            (0, "2020-02-29T11:59:15.000000Z"),
        ] {
            assert_eq!(datetime(&Timestamp { seconds: 1_582_977_555, nanos }), text);
        }
    }
}
