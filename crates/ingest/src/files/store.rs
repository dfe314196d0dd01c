//! `StoreFile` on the results service, where a file's bytes go. A connection of
//! its own for each file: on a shared one the bytes that a stuck bucket leaves
//! unread would fill the connection's flow-control window, and neither another
//! organisation's file nor a `RecordResults` would get through.

use std::future::Future;

use bytes::Bytes;
use futures_util::{Stream, stream};
use sluice_proto::results::v1::{
    FileUpload, StoreFileRequest, StoreFileResponse,
    results_intake_service_client::ResultsIntakeServiceClient, store_file_request::Part,
};
use sluice_service::{Error, client::TokenInterceptor, peer::Peer, trace};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tracing::Instrument as _;

use crate::outcome::{Cause, Fault, Retry};

/// Chunks that wait between publisher and store: enough to keep both busy.
const WAITING_CHUNKS_MAX: usize = 2;
/// Largest chunk that is handed over, in bytes: small enough that results need not count
/// what its end of a stream keeps for it.
const PIECE_BYTES_MAX: usize = 128 * 1024;
const STORE_FILE: &str = "sluice.results.v1.ResultsIntakeService/StoreFile";

/// Where files are stored.
#[derive(Clone, Debug)]
pub struct Store {
    results: Peer,
    token: TokenInterceptor,
}

/// The way in for a file's chunks. Unless [`Self::end`] is called, the file is not
/// complete and will not be sealed.
#[derive(Debug)]
pub struct Chunks(mpsc::Sender<Option<Bytes>>);

/// The store takes no more: its answer says why.
#[derive(Debug)]
pub struct Gone;

/// Why a file was not stored.
#[derive(Debug)]
pub enum NotStored {
    /// The caller's fault.
    Fault(Fault),
    /// Not now.
    Retry(Retry),
    /// A fault of one of the services.
    Failed(Error),
}

impl Store {
    /// The store of the results service.
    #[must_use]
    pub fn new(results: Peer, token: TokenInterceptor) -> Self {
        Self { results, token }
    }

    /// Begins to store a file: the way in for its chunks, and the answer, which
    /// has to be polled for anything to go on. Dropping the answer breaks the
    /// stream off.
    pub fn begin(
        &self,
        upload: FileUpload,
    ) -> (Chunks, impl Future<Output = Result<StoreFileResponse, NotStored>> + Send + use<>) {
        let (chunks, waiting) = mpsc::channel(WAITING_CHUNKS_MAX);
        let (results, token) = (self.results.clone(), self.token.clone());
        let answer = async move {
            let picked = results.pick().await.ok_or_else(|| {
                NotStored::Retry(Retry::not_kept(Cause::Storage, "the results service has no address"))
            })?;
            let mut client = ResultsIntakeServiceClient::with_interceptor(picked.own_channel(), token);
            let mut request = Request::new(requests(upload, waiting));
            trace::inject(request.metadata_mut());
            let answer = client.store_file(request).await;
            let _lost = picked.ended(answer.as_ref().err());
            trace::called(answer.as_ref().err().map_or(Code::Ok, Status::code));
            match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(NotStored::of(status)),
            }
        };
        let answer = answer.instrument(trace::call_span(STORE_FILE));
        (Chunks(chunks), answer)
    }
}

impl Chunks {
    /// Hands over the next bytes; waits while too many wait already.
    ///
    /// # Errors
    /// If no more are taken.
    pub async fn send(&self, mut chunk: Bytes) -> Result<(), Gone> {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(PIECE_BYTES_MAX));
            self.0.send(Some(piece)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Says that the file is complete.
    ///
    /// # Errors
    /// If that is not taken any more.
    pub async fn end(self) -> Result<(), Gone> {
        self.0.send(None).await.map_err(|_| Gone)
    }
}

/// The messages of one call. A file that was not ended must not look as if it
/// were: its last message is one that no store takes for anything.
fn requests(
    upload: FileUpload,
    waiting: mpsc::Receiver<Option<Bytes>>,
) -> impl Stream<Item = StoreFileRequest> {
    let first = StoreFileRequest { part: Some(Part::Upload(upload)) };
    let chunks = stream::unfold(Some(waiting), |waiting| async {
        let mut waiting = waiting?;
        match waiting.recv().await {
            Some(Some(chunk)) => Some((StoreFileRequest { part: Some(Part::Chunk(chunk)) }, Some(waiting))),
            Some(None) => None,
            None => Some((StoreFileRequest { part: None }, None)),
        }
    });
    futures_util::StreamExt::chain(stream::iter([first]), chunks)
}

impl NotStored {
    fn of(status: Status) -> Self {
        let fault = |reason, details| {
            Self::Fault(Fault { reason, details: String::from(details), depends_on_definition: false })
        };
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str());
        match (status.code(), reason) {
            (Code::InvalidArgument, Some("CHECKSUM_MISMATCH")) => {
                fault("CHECKSUM_MISMATCH", "checksum: is not the MD5 of the bytes received")
            }
            (Code::ResourceExhausted, Some("FILE_TOO_LARGE")) => {
                fault("TOO_LARGE", "the file has more bytes than its storage takes")
            }
            // Somebody thought this instance dead.
            (Code::FailedPrecondition, Some("UPLOAD_EXISTS")) => {
                Self::Retry(Retry::not_kept(Cause::Publisher, "the file was given up while it was stored"))
            }
            (Code::Unavailable | Code::ResourceExhausted, _) => {
                tracing::warn!(message = status.message(), "a file is not stored now");
                Self::Retry(Retry::not_kept(Cause::Storage, "the file can't be stored now"))
            }
            (Code::DeadlineExceeded, _) => {
                tracing::warn!(message = status.message(), "a file took too long to be stored");
                Self::Retry(Retry::not_kept(Cause::Publisher, "the bytes of the file came too slowly"))
            }
            // What the service itself says has a reason; these are the
            // connection's words.
            (Code::Unknown | Code::Internal | Code::Cancelled, None) => {
                tracing::warn!(%status, "the connection broke while a file was stored");
                Self::Retry(Retry::not_kept(Cause::Storage, "the connection to the storage broke"))
            }
            _ => Self::Failed(Error::internal(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use sluice_service::Kind;

    use super::*;

    fn of(kind: Kind, reason: &'static str) -> NotStored {
        NotStored::of(Error::new(kind, reason, "").into())
    }

    #[test]
    fn answers_of_the_store_become_outcomes() {
        for (kind, reason, told) in [
            (Kind::InvalidArgument, "CHECKSUM_MISMATCH", "CHECKSUM_MISMATCH"),
            (Kind::ResourceExhausted, "FILE_TOO_LARGE", "TOO_LARGE"),
        ] {
            assert!(matches!(of(kind, reason), NotStored::Fault(fault) if fault.reason == told));
        }
        assert!(matches!(of(Kind::Unavailable, "UNAVAILABLE"), NotStored::Retry(_)));
        assert!(matches!(of(Kind::ResourceExhausted, "OVERLOADED"), NotStored::Retry(_)));
        assert!(matches!(of(Kind::FailedPrecondition, "UPLOAD_EXISTS"), NotStored::Retry(_)));
        assert!(matches!(of(Kind::DeadlineExceeded, "IDLE"), NotStored::Retry(_)));
        for status in [Status::unknown("h2"), Status::internal("h2"), Status::cancelled("h2")] {
            assert!(matches!(NotStored::of(status), NotStored::Retry(_)));
        }
        assert!(matches!(of(Kind::Internal, "INTERNAL"), NotStored::Failed(_)));
        assert!(matches!(of(Kind::InvalidArgument, "INVALID_FIELD"), NotStored::Failed(_)));
        assert!(matches!(of(Kind::Unauthenticated, "UNAUTHENTICATED"), NotStored::Failed(_)));
    }

    #[tokio::test]
    async fn large_chunks_are_handed_over_in_pieces() {
        let (sender, mut waiting) = mpsc::channel(WAITING_CHUNKS_MAX);
        for (bytes, pieces) in [
            (0, vec![]),
            (PIECE_BYTES_MAX, vec![PIECE_BYTES_MAX]),
            (PIECE_BYTES_MAX + 1, vec![PIECE_BYTES_MAX, 1]),
        ] {
            Chunks(sender.clone()).send(vec![7; bytes].into()).await.unwrap();
            let sent: Vec<_> = std::iter::from_fn(|| waiting.try_recv().ok().flatten()).collect();
            assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), pieces);
        }
    }

    #[tokio::test]
    async fn only_a_file_that_was_ended_looks_complete() {
        for complete in [true, false] {
            let (sender, waiting) = mpsc::channel(WAITING_CHUNKS_MAX);
            let chunks = Chunks(sender);
            chunks.send("a".into()).await.unwrap();
            if complete {
                chunks.end().await.unwrap();
            } else {
                drop(chunks);
            }
            let sent: Vec<_> = requests(FileUpload::default(), waiting).map(|sent| sent.part).collect().await;
            assert!(matches!(sent[..2], [Some(Part::Upload(_)), Some(Part::Chunk(_))]));
            assert_eq!(sent.len(), if complete { 2 } else { 3 });
            assert!(complete || sent[2].is_none());
        }
    }
}
