//! A plain HTTP client for the tests over HTTP: one connection per request, over
//! HTTP/1.1 or h2c, and raw bytes where a client would not send them.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use sluice_tests::{Pair, Tenant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Nothing that a client does may keep it waiting for longer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body, which must be JSON and say so.
    pub fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The body's text, for snapshots.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and code of an error, which must have the contract's form.
    pub fn error(&self) -> (u16, String) {
        let body = self.json();
        let body = body.as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert_eq!(body.keys().collect::<Vec<_>>(), ["error", "message", "params"], "{self:?}");
        assert!(body["message"].is_string());
        for texts in body["params"].as_object().unwrap().values() {
            assert!(texts.as_array().unwrap().iter().all(Value::is_string));
        }
        (self.status.as_u16(), body["error"].as_str().unwrap().to_owned())
    }

    /// The fields that an error names.
    pub fn params(&self) -> Vec<String> {
        self.json()["params"].as_object().unwrap().keys().cloned().collect()
    }
}

/// Sends one request on a connection of its own.
pub async fn send(address: SocketAddr, version: Version, request: Request<Full<Bytes>>) -> Answer {
    timeout(PATIENCE, exchange(address, version, request))
        .await
        .expect("an answer in time")
        .expect("an answer")
}

/// Gets a URL on a connection of its own, with nothing along but these headers.
pub async fn get_url(url: &str, headers: &[(&str, &str)]) -> Answer {
    let uri: Uri = url.parse().unwrap();
    let address = uri.authority().unwrap().as_str().parse().unwrap();
    let path = uri.path_and_query().unwrap().as_str();
    let request = Request::builder().method(Method::GET).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(address, Version::HTTP_11, request.body(Full::new(Bytes::new())).unwrap()).await
}

/// As [`send`]; `None` if the connection was closed instead.
pub async fn exchange(
    address: SocketAddr,
    version: Version,
    mut request: Request<Full<Bytes>>,
) -> Option<Answer> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let answer = if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.ok()?;
        tokio::spawn(connection);
        let uri = format!("http://{address}{}", request.uri());
        *request.uri_mut() = uri.parse().ok()?;
        sender.send_request(request).await.ok()?
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", address.to_string().parse().unwrap());
        }
        sender.send_request(request).await.ok()?
    };
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Answer { status: head.status, headers: head.headers, body })
}

/// Sends bytes as they are, says that it was all, and reads to the end.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The service may have hung up before it has read all.
        let _cut = stream.write_all(bytes).await;
        let _cut = stream.shutdown().await;
        let mut answer = Vec::new();
        let _cut = stream.read_to_end(&mut answer).await;
        answer
    };
    timeout(PATIENCE, talk).await.expect("the connection's end in time")
}

/// Calls one service as one tenant.
pub struct Http {
    pub address: SocketAddr,
    pub token: String,
    pub version: Version,
}

impl Http {
    fn of(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.into(), version: Version::HTTP_11 }
    }

    pub fn results(pair: &Pair, tenant: Tenant) -> Self {
        Self::of(pair.results[0].address(), pair.token(tenant))
    }

    pub fn ingest(pair: &Pair, tenant: Tenant) -> Self {
        Self::of(pair.ingest[0].address(), pair.token(tenant))
    }

    /// A request with the token, to be added to.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let token = format!("Token {}", self.token);
        Request::builder().method(method).uri(path).header("authorization", token)
    }

    pub async fn send(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        send(self.address, self.version, request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path), "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path), "").await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request, body).await
    }
}

/// A snapshot's text: what differs from run to run is written as `<uuid>`,
/// `<date>` and `<etag>`.
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let hex = rest.bytes().take_while(|b| b.is_ascii_hexdigit() || *b == b'-').count();
        let (seen, name) = match rest.get(..hex) {
            Some(word) if word.len() == 36 && word.matches('-').count() == 4 => (36, "<uuid>"),
            Some(word) if word.len() == 32 && !word.contains('-') => (32, "<hex>"),
            _ if is_datetime(rest) => (27, "<date>"),
            // A word that is none of them is passed over whole.
            _ if hex > 0 => (hex, &rest[..hex]),
            _ => (character.len_utf8(), &rest[..character.len_utf8()]),
        };
        out.push_str(name);
        rest = &rest[seen..];
    }
    out
}

fn is_datetime(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000000Z";
    text.len() >= form.len()
        && form.bytes().zip(text.bytes()).all(|(f, t)| if f == b'0' { t.is_ascii_digit() } else { f == t })
}
