//! What a request holds of the budget, from its first byte to its handler's end.

use std::{convert::Infallible, sync::Mutex, task::ready};

use futures_util::FutureExt as _;
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{
    frames::tests::{frame, gzip},
    *,
};
use crate::{Error, Kind};

mod time;

const PUBLISH: &str = "/sluice.ingest.v1.IngestService/PublishObservations";
const STREAM: &str = "/sluice.ingest.v1.IngestService/StreamObservations";
const KIB: usize = 1024;
/// Room for one message of 100 KiB, and a little more.
const BUDGET: usize = 150 * KIB;

/// What a caller sends; nothing is the end that it did not mean.
struct Sent(mpsc::Receiver<Option<Bytes>>, bool);

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match ready!(self.0.poll_recv(context)) {
            Some(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(None) => Poll::Ready(None),
            None => {
                self.1 = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.1
    }
}

/// What reached the service behind the layer, and what makes it answer.
type Given = (Request<Bounded<Sent>>, oneshot::Sender<()>);

/// Gives the body to the test, and answers when the test says so.
#[derive(Clone, Default)]
struct Inner {
    given: Arc<Mutex<Option<Given>>>,
}

impl Service<Request<Bounded<Sent>>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bounded<Sent>>) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        *self.given.lock().unwrap() = Some((request, answer));
        Box::pin(async move {
            let _gone = answered.await;
            Ok(Response::new(Body::empty()))
        })
    }
}

/// One request on its way through the layer.
struct Call {
    sender: Option<mpsc::Sender<Option<Bytes>>>,
    body: Bounded<Sent>,
    account: Option<Account>,
    answer: oneshot::Sender<()>,
    answered: Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>,
}

fn call(budget: &Arc<Budget>, path: &str, content_type: &str) -> Call {
    call_with(budget, Request::builder().uri(path).header("content-type", content_type))
}

/// A stream of compressed messages.
fn compressed_stream(budget: &Arc<Budget>) -> Call {
    let request = Request::builder().uri(STREAM).header("content-type", "application/grpc");
    call_with(budget, request.header("grpc-encoding", "gzip"))
}

fn call_with(budget: &Arc<Budget>, request: ::http::request::Builder) -> Call {
    let (sender, receiver) = mpsc::channel(1000);
    // Who may have all there is.
    let request = request.extension(Owner::Operator);
    let request = request.body(Sent(receiver, false)).unwrap();
    let inner = Inner::default();
    let answered = Bodies::new(budget.clone(), 100 * KIB, inner.clone()).call(request);
    let (request, answer) = inner.given.lock().unwrap().take().unwrap();
    let (head, body) = request.into_parts();
    Call { sender: Some(sender), body, account: head.extensions.get().cloned(), answer, answered }
}

impl Call {
    async fn send(&self, bytes: impl Into<Bytes>) {
        self.sender.as_ref().unwrap().send(Some(bytes.into())).await.unwrap();
    }

    /// A message whose one field is as long as needed.
    async fn send_message(&self, size: usize) {
        self.send(message(size)).await;
    }

    async fn next(&mut self) -> Option<Result<usize, BoxError>> {
        let frame = self.body.frame().await?;
        Some(frame.map(|frame| frame.into_data().unwrap().len()))
    }

    /// Ends it; how many bytes still come.
    async fn rest(&mut self) -> usize {
        self.sender = None;
        let mut bytes = 0;
        while let Some(more) = self.next().await {
            bytes += more.unwrap();
        }
        bytes
    }

    async fn refusal(&mut self) -> Status {
        loop {
            match self.next().await.expect("a refusal, not the end") {
                Ok(_) => {}
                Err(error) => return *error.downcast().unwrap(),
            }
        }
    }
}

/// A frame with a message of `size` bytes: `request_id`, and no more.
fn message(size: usize) -> Vec<u8> {
    let mut varint = Vec::new();
    let mut length = size - 4;
    while length >= 0x80 {
        varint.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    varint.push(u8::try_from(length).unwrap());
    assert_eq!(varint.len(), 3);
    let header = [&[0][..], &u32::try_from(size).unwrap().to_be_bytes(), &[0x12]].concat();
    [header, varint, vec![b'x'; size - 4]].concat()
}

/// A frame with so many empty observations, and what they take when they are decoded.
fn observations(count: usize) -> (Vec<u8>, usize) {
    let message = [0x1a, 0].repeat(count);
    (frame(0, &message), message.len() + count * (cost::MESSAGE_COST + cost::FIELD_COST))
}

/// The same, compressed.
fn compressed_observations(count: usize) -> (Vec<u8>, usize) {
    let (framed, bytes) = observations(count);
    (frame(1, &gzip(&framed[5..])), bytes)
}

fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn a_single_message_is_held_until_its_handler_has_ended() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut first = call(&budget, PUBLISH, "application/grpc");
    first.send_message(100 * KIB).await;
    assert_eq!(budget.used(), 0, "nothing is taken before it is read");
    assert_eq!(first.rest().await, 100 * KIB + 5);
    assert!(budget.used() >= 100 * KIB);

    let mut second = call(&budget, PUBLISH, "application/grpc+proto");
    second.send_message(100 * KIB).await;
    let refused = second.refusal().await;
    assert_eq!((refused.code(), reason(&refused)), (tonic::Code::ResourceExhausted, "OVERLOADED".into()));
    drop(second);

    first.answer.send(()).unwrap();
    first.answered.await.unwrap();
    drop(first.body);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_call_that_is_given_up_gives_all_back() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut call = call(&budget, PUBLISH, "application/grpc");
    call.send(message(100 * KIB)[..50 * KIB].to_vec()).await;
    call.next().await.unwrap().unwrap();
    assert!(budget.used() > 40 * KIB);
    drop(call);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn an_end_that_was_not_meant_is_a_failure() {
    for path in [PUBLISH, STREAM] {
        let mut call = call(&Budget::new(BUDGET, Measures::default()), path, "application/grpc");
        call.send_message(20 * KIB).await;
        call.sender.as_ref().unwrap().send(None).await.unwrap();
        assert_eq!(reason(&call.refusal().await), "BROKEN_OFF");
    }
}

#[tokio::test]
async fn a_message_of_a_stream_is_held_by_who_takes_it_and_an_idle_stream_holds_nothing() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut stream = call(&budget, STREAM, "application/grpc");
    let account = stream.account.clone().unwrap();
    stream.send_message(100 * KIB).await;
    stream.next().await.unwrap().unwrap();
    let share = account.of_message().unwrap();
    assert!(stream.next().now_or_never().is_none(), "idle");
    assert!(budget.used() >= 100 * KIB);
    drop(share);
    assert_eq!(budget.used(), 0);
    // Left alone, it is given back when more is asked for.
    stream.send_message(100 * KIB).await;
    stream.next().await.unwrap().unwrap();
    assert!(budget.used() > 0);
    assert!(stream.next().now_or_never().is_none(), "idle");
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_small_message_that_decodes_to_a_large_one_is_too_large() {
    let budget = Budget::new(BUDGET, Measures::default());
    let (message, bytes) = observations(500);
    assert!(bytes > BUDGET);
    for path in [PUBLISH, STREAM] {
        let mut bomb = call(&budget, path, "application/grpc");
        bomb.send(message[..message.len() - 1].to_vec()).await;
        let refused = bomb.refusal().now_or_never().expect("a refusal at once, before its end");
        assert_eq!(reason(&refused), "REQUEST_TOO_LARGE", "{refused:?}");
    }
    let mut bomb = compressed_stream(&budget);
    bomb.send(compressed_observations(500).0).await;
    let refused = bomb.refusal().now_or_never().expect("a refusal at once");
    assert_eq!(reason(&refused), "REQUEST_TOO_LARGE", "{refused:?}");
}

#[tokio::test]
async fn a_compressed_message_is_refused_for_what_it_is() {
    let budget = Budget::new(BUDGET, Measures::default());
    let large = message(100 * KIB + 1);
    for (content, why) in [(&large[5..], "REQUEST_TOO_LARGE"), (&large[5..1000], "MALFORMED_REQUEST")] {
        let mut stream = compressed_stream(&budget);
        stream.send(frame(1, &gzip(content))).await;
        assert_eq!(reason(&stream.refusal().await), why);
    }
    let mut fits = compressed_stream(&budget);
    fits.send(frame(1, &gzip(&message(100 * KIB)[5..]))).await;
    assert_eq!(fits.rest().await, 100 * KIB + 5);
}

#[tokio::test]
async fn a_message_takes_room_to_be_decoded_only_when_all_of_it_is_there() {
    let budget = Budget::new(BUDGET, Measures::default());
    let (message, bytes) = observations(200);
    assert!(bytes < BUDGET && bytes + 100 * KIB > BUDGET);
    // That it is the only one its end says.
    for (path, sent) in [(PUBLISH, message.len()), (PUBLISH, message.len() - 1), (STREAM, message.len() - 1)]
    {
        let mut slow = call(&budget, path, "application/grpc");
        slow.send(message[..sent].to_vec()).await;
        let before = slow.next().await.unwrap().unwrap();
        assert!(slow.next().now_or_never().is_none(), "the rest is waited for");
        assert_eq!(budget.used(), sent - 5, "no more than its bytes");
        let mut other = call(&budget, PUBLISH, "application/grpc");
        other.send_message(100 * KIB).await;
        assert_eq!(other.rest().await, 100 * KIB + 5);
        drop(other);
        slow.send(message[sent..].to_vec()).await;
        slow.sender = None;
        assert_eq!(before + slow.next().await.unwrap().unwrap(), message.len());
        assert_eq!(budget.used(), bytes);
        drop(slow);
        assert_eq!(budget.used(), 0);
    }
}

#[tokio::test]
async fn a_body_of_http_is_refused_once_and_can_be_read_to_its_end() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut first = call(&budget, "/x", "application/json");
    first.send(vec![7; 50 * KIB]).await;
    assert_eq!(first.next().await.unwrap().unwrap(), 50 * KIB);
    assert_eq!(budget.used(), http::FOLD * 50 * KIB);
    let mut second = call(&budget, "/x", "application/json");
    for _ in 0..3 {
        second.send(vec![7; 20 * KIB]).await;
    }
    second.sender = None;
    assert_eq!(second.next().await.unwrap().unwrap(), 20 * KIB);
    let refusal = second.next().await.unwrap().unwrap_err().downcast::<Error>().unwrap();
    assert_eq!((refusal.kind(), refusal.reason()), (Kind::ResourceExhausted, "OVERLOADED"));
    assert_eq!(budget.used(), http::FOLD * 50 * KIB, "what was refused holds nothing");
    assert_eq!(second.next().await.unwrap().unwrap(), 20 * KIB);
    assert!(second.next().await.is_none());
    drop(second);
    drop(first);
    assert_eq!(budget.used(), 0);
}
