//! One HTTP request as a handler gets it: who calls, the parts of the path, the
//! query, and the body, which is read within bounds of size and time.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    extract::{RawPathParams, rejection::RawPathParamsRejection},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Error, Violations, auth::Access, text::shown};

/// How long a caller may pause within a body.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long a whole body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// Of a body that is too large, this many times the limit is still read: a
/// caller that is cut off while it sends does not see the answer.
const DISCARDED_FOLD: usize = 2;
/// Most parameters in a query.
const PARAMETERS_MAX: usize = 100;

/// A request without its body.
#[derive(Debug)]
pub struct Head {
    params: Vec<(String, String)>,
    query: String,
    headers: HeaderMap,
}

impl Head {
    pub(super) fn new(
        params: Result<RawPathParams, RawPathParamsRejection>,
        request: Request<Body>,
    ) -> Result<(Self, Body), Error> {
        let params = params.map_err(|_| Error::invalid("path", "must be percent-encoded UTF-8"))?;
        let params = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default().to_owned();
        Ok((Self { params, query, headers: head.headers }, body))
    }

    /// A part of the path, decoded. Empty if the template has none of that name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.maybe_param(name).unwrap_or_default()
    }

    /// A part of the path, for handlers of several templates.
    #[must_use]
    pub fn maybe_param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A header's text; empty if it is absent.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it is not printable ASCII.
    pub fn header(&self, name: &'static str) -> Result<&str, Error> {
        match self.headers.get(name).map(|value| value.to_str()) {
            None => Ok(""),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(Error::invalid(name, "must be printable ASCII")),
        }
    }

    /// The parameters of the query.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, naming those that are not in `known`.
    pub fn query(&self, known: &[&str]) -> Result<Query, Error> {
        Query::parse(&self.query, known)
    }
}

/// A request whose token holds the scope of its route.
#[derive(Debug)]
pub struct Call {
    /// Who calls.
    pub access: Access,
    head: Head,
    body: Body,
}

impl std::ops::Deref for Call {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Call {
    pub(super) fn new(
        access: Access,
        params: Result<RawPathParams, RawPathParamsRejection>,
        request: Request<Body>,
    ) -> Result<Self, Error> {
        let (head, body) = Head::new(params, request)?;
        Ok(Self { access, head, body })
    }

    /// The whole body, which may be anything.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if it is larger than `bytes_max`, or the process has no
    /// room for it now; INVALID_ARGUMENT if it breaks off; UNAVAILABLE
    /// if it comes too slowly.
    pub async fn body(self, bytes_max: usize) -> Result<Bytes, Error> {
        read(self.body, bytes_max).await
    }

    /// The whole body, which the caller says is JSON.
    ///
    /// # Errors
    /// As [`Self::body`]; INVALID_ARGUMENT for another content type or encoding.
    pub async fn json_body(self, bytes_max: usize) -> Result<Bytes, Error> {
        is_json(&self.head.headers)?;
        read(self.body, bytes_max).await
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Error> {
    let wrong = |name: &'static str, text: &'static str| {
        Err(Error::invalid_body(format!("{name}: {text}")).violating(name, text))
    };
    if let Some(given) = headers.get(header::CONTENT_TYPE) {
        let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return wrong("content-type", "must be application/json");
        }
    }
    match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(_) => wrong("content-encoding", "must be absent or identity"),
    }
}

async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    let deadline = Instant::now() + BODY_TIME_MAX;
    let mut read = Ok(BytesMut::new());
    let mut seen = 0_usize;
    while seen <= bytes_max.saturating_mul(DISCARDED_FOLD) {
        let next = timeout(BODY_PAUSE_MAX, timeout_at(deadline, body.frame())).await;
        let Ok(Ok(frame)) = next else {
            return Err(Error::too_slow());
        };
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                read = Err(refusal(error)?);
                continue;
            }
        };
        seen = seen.saturating_add(data.len());
        match &mut read {
            Ok(_) if seen > bytes_max => read = Err(Error::request_too_large()),
            Ok(read) => read.extend_from_slice(&data),
            Err(_) => {}
        }
    }
    read.map(BytesMut::freeze)
}

/// What the body's own bounds say; after that it can still be read to its end.
///
/// # Errors
/// If it is the body that broke off.
fn refusal(error: axum::Error) -> Result<Error, Error> {
    let broke_off = |_| Error::invalid_body("the body broke off");
    error.into_inner().downcast::<Error>().map(|refusal| *refusal).map_err(broke_off)
}

/// The parameters of a query, decoded, every one of them known.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(text: &str, known: &[&str]) -> Result<Self, Error> {
        let mut parsed = Self::default();
        let mut faults = Violations::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()).take(PARAMETERS_MAX + 1) {
            if known.contains(&&*name) {
                parsed.0.entry(name.into_owned()).or_default().push(value.into_owned());
            } else {
                faults.add(shown(&name), "unknown parameter");
            }
        }
        if form_urlencoded::parse(text.as_bytes()).nth(PARAMETERS_MAX).is_some() {
            return Err(Error::invalid("query", format!("must be up to {PARAMETERS_MAX} parameters")));
        }
        faults.none_or(parsed)
    }

    /// The value of a parameter that is given at most once.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it is given again.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.all(name) {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(Error::invalid(name, "must be given once")),
        }
    }

    /// All values of a parameter, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[test]
    fn unknown_parameters_are_named() {
        let error = Query::parse("poll=a&color=red&%6cimit=2&x", &["poll", "limit"]).unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["color", "x"]);
        let query = Query::parse("poll=a%20b&%6cimit=2&limit=3", &["poll", "limit"]).unwrap();
        assert_eq!(query.one("poll").unwrap(), Some("a b"));
        assert_eq!(query.all("limit"), ["2", "3"]);
        assert!(query.one("limit").is_err());
        assert_eq!(Query::parse(&"a&".repeat(100), &["a"]).unwrap().all("a").len(), 100);
        assert!(Query::parse(&"a&".repeat(101), &["a"]).is_err());
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_the_limit() {
        let body = |size: usize| Body::from(vec![b'x'; size]);
        assert_eq!(read(body(8), 8).await.unwrap().len(), 8);
        assert_eq!(read(body(9), 8).await.unwrap_err().reason(), "REQUEST_TOO_LARGE");
        assert_eq!(read(body(99), 8).await.unwrap_err().reason(), "REQUEST_TOO_LARGE");
        assert_eq!(read(Body::empty(), 8).await.unwrap().len(), 0);
    }

    /// How a body is read that comes in so many pieces, with a pause before each.
    async fn read_slowly(pieces: u64, pause_millis: u64) -> Result<usize, &'static str> {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(pause_millis)).await;
            Ok::<_, std::convert::Infallible>("x")
        });
        read(Body::from_stream(pieces), 99).await.map(|read| read.len()).map_err(|error| error.reason())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_pause_for_four_seconds_and_take_a_minute() {
        assert_eq!(read_slowly(3, 3_990).await, Ok(3));
        assert_eq!(read_slowly(3, 4_010).await, Err("TOO_SLOW"));
        assert_eq!(read_slowly(20, 2_990).await, Ok(20));
        assert_eq!(read_slowly(20, 3_010).await, Err("TOO_SLOW"));
    }

    #[test]
    fn other_content_types_are_refused() {
        let with = |name, value: &str| is_json(&HeaderMap::from_iter([(name, value.parse().unwrap())]));
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(with(header::CONTENT_TYPE, good).is_ok(), "{good}");
        }
        for bad in ["", "text/plain", "application/x-www-form-urlencoded", "json"] {
            assert_eq!(with(header::CONTENT_TYPE, bad).unwrap_err().reason(), "INVALID_BODY", "{bad}");
        }
        assert!(with(header::CONTENT_ENCODING, "gzip").is_err());
        assert!(is_json(&HeaderMap::new()).is_ok());
    }
}
