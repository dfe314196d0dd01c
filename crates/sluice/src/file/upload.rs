//! Sends a file until it has its final outcome, or until its time is over. What
//! may have been kept is sent again only under a marker that makes it harmless.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll, ready},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use sluice_proto::ingest::v1::{
    FileMetadata, Outcome, PublicationOutcome, PublishFileRequest, PublishFileResponse,
    ingest_service_client::IngestServiceClient, publish_file_request::Part,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::{
    kept_otherwise,
    source::{Piece, Sent, Source},
};
use crate::{
    connection::Authorised,
    failure::{Context, Failure},
    progress,
    publish::Ended,
    retry::{Backoff, NOT_KEPT, OUTCOME_UNKNOWN, is_refused, may_pass, still, undecided},
    text::{clean, proto_seconds, say},
};

/// What a file is sent with.
pub(super) struct Uploader {
    pub(super) client: IngestServiceClient<Authorised>,
    pub(super) metadata: FileMetadata,
    /// How long it is tried again after the first try.
    pub(super) retry_for: Duration,
}

/// How it ended.
pub(super) struct Uploaded {
    pub(super) ended: Ended,
    /// What was sent; nothing if the answer came before all was.
    pub(super) sent: Option<Sent>,
}

/// How one try ended.
struct Tried {
    answer: Result<PublishFileResponse, Status>,
    sent: Option<Sent>,
}

impl Uploader {
    /// Sends a source to its end.
    ///
    /// # Errors
    /// If it can't be read, the service refuses the caller, or it says that it
    /// kept other bytes than were sent.
    pub(super) async fn upload(&mut self, mut source: Source) -> Result<Uploaded, Failure> {
        let mut backoff = Backoff::new();
        let (mut deadline, mut last) = (None, PublicationOutcome::default());
        loop {
            let bar = progress::bytes(source.size(), "sending");
            let tried = self.attempt(&mut source, &bar).await;
            bar.finish_and_clear();
            let Tried { answer, sent } = tried?;
            let (outcome, wait) = match answer {
                Ok(answer) => {
                    let outcome = answer.outcome.unwrap_or_default();
                    let wait = Duration::from_secs(proto_seconds(outcome.delay.as_ref()).unwrap_or(1));
                    let ended = Ended::of(0, outcome.clone());
                    let of_sent = sent.as_ref().map(|sent| (sent.checksum.as_str(), sent.size));
                    if let Some(failure) = kept_otherwise(&ended, (&answer.checksum, answer.size), of_sent) {
                        return Err(failure);
                    }
                    (outcome, wait)
                }
                Err(status) if may_pass(&status) => {
                    // The gate decides when all is there, and not before.
                    let reason = if sent.is_none() { NOT_KEPT } else { OUTCOME_UNKNOWN };
                    (undecided(&status, reason), backoff.after(&status))
                }
                // It is over for good, but an earlier try may have been kept, or this one.
                Err(status) if last.reason == OUTCOME_UNKNOWN || (sent.is_some() && !is_refused(&status)) => {
                    return Ok(Uploaded { ended: Ended::of(0, undecided(&status, OUTCOME_UNKNOWN)), sent });
                }
                Err(status) => {
                    return Err(Failure::unusable(format!("{:?}: {}", status.code(), status.message())));
                }
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.retry_for);
            let safe = outcome.reason == NOT_KEPT || !self.metadata.chkpt.is_empty();
            let again = outcome.outcome() == Outcome::Retry && safe && source.can_be_read_again();
            let (reason, why) = (outcome.reason.clone(), clean(&outcome.details));
            last = if outcome.outcome() == Outcome::Retry { still(last, outcome) } else { outcome };
            if !again || Instant::now() + wait > deadline {
                return Ok(Uploaded { ended: Ended::of(0, last), sent });
            }
            say!("sluice: {reason}: {why}; again in {:.1} s", wait.as_secs_f64());
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends it once.
    async fn attempt(&mut self, source: &mut Source, bar: &ProgressBar) -> Result<Tried, Failure> {
        let name = source.name();
        let mut reading = source.read()?;
        let all_sent = Arc::new(AtomicBool::new(false));
        let parts = Parts {
            metadata: Some(self.metadata.clone()),
            pieces: reading.pieces,
            all_sent: all_sent.clone(),
            bar: bar.clone(),
        };
        let mut call = std::pin::pin!(self.client.publish_file(parts));
        let mut sent = None;
        let answer = tokio::select! {
            answer = &mut call => answer,
            // A fault ends the call here: the service sees a broken stream.
            ends = &mut reading.ends => {
                sent = ends.context("reader")?.context(&name)?;
                call.await
            }
        };
        if !all_sent.load(Ordering::Acquire) {
            // The reader may wait for a terminal; its end is not waited for.
            sent = None;
        } else if sent.is_none() {
            sent = reading.ends.await.context("reader")?.context(&name)?;
        }
        Ok(Tried { answer: answer.map(tonic::Response::into_inner), sent })
    }
}

/// The messages of a file's stream: what it is, then its chunks. It ends only
/// when the source was read to its end.
struct Parts {
    metadata: Option<FileMetadata>,
    pieces: mpsc::Receiver<Piece>,
    all_sent: Arc<AtomicBool>,
    bar: ProgressBar,
}

impl Stream for Parts {
    type Item = PublishFileRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let item = |part| Poll::Ready(Some(PublishFileRequest { part: Some(part) }));
        if let Some(metadata) = self.metadata.take() {
            return item(Part::Metadata(metadata));
        }
        if self.all_sent.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Chunk(bytes)) => {
                self.bar.inc(bytes.len() as u64);
                item(Part::Chunk(bytes))
            }
            Some(Piece::End) => {
                self.all_sent.store(true, Ordering::Release);
                Poll::Ready(None)
            }
            // Reading failed: the call is about to be given up, and must not end
            // as if this were all.
            None => Poll::Pending,
        }
    }
}
