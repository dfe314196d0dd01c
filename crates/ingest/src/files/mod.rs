//! The policy of publishing a file, top to bottom: refuse what is certain, store
//! the bytes, let the gate decide, see to what was not let in.
//!
//! Bytes first, gate last: whatever ends before the gate has decided leaves no
//! trace in it, and the bytes are given up (see [`uploads`]).

mod reading;
pub mod store;
pub mod uploads;

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sluice_proto::{
    limits::CHUNK_BYTES_MAX,
    results::v1::{FileUpload, StoreFileResponse},
};
use sluice_service::{Error, Kind, OrganisationId, rations::Rations, shares::Owner};
use tokio::time::timeout;
use tonic::Status;

use self::{
    reading::Reading,
    store::{Chunks, Gone, NotStored, Store},
    uploads::Uploads,
};
use crate::{
    check::{Candidate, must_be_json},
    observation::{Content, FileRead, Observation},
    outcome::{Cause, Decision, Outcome, Retry, RetryReason},
    publisher::Publisher,
};

/// Publishes files.
#[derive(Clone, Debug)]
pub struct Files {
    publisher: Publisher,
    uploads: Uploads,
    store: Store,
    /// How many may be on their way at a time: so many that memory is bounded, and those of
    /// one whose bucket is stuck leave some for the others.
    places: Arc<Rations>,
    idle_max: Duration,
}

/// What became of a file.
#[derive(Debug)]
pub struct Published {
    /// Its outcome.
    pub outcome: Outcome,
    /// MD5 of the bytes that were read, lower-case hex; empty if none were looked
    /// for.
    pub checksum: String,
    /// How many were read.
    pub bytes: u64,
}

impl Published {
    fn unread(outcome: Outcome) -> Self {
        Self { outcome, checksum: String::new(), bytes: 0 }
    }
}

/// Why a file never came to the gate.
enum Stopped {
    Outcome(Outcome),
    Failed(Status),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

fn not_kept(cause: Cause, why: &'static str) -> Outcome {
    Outcome::Retry(Retry::not_kept(cause, why))
}

/// A database that is away is no fault.
fn retried(error: Error) -> Result<Outcome, Error> {
    match error.kind() {
        Kind::Unavailable => {
            tracing::warn!(%error, "a file is not taken now");
            Ok(not_kept(Cause::Database, "the database can't answer now"))
        }
        _ => Err(error),
    }
}

impl Files {
    /// As many at a time as there are places, none of which may make no progress
    /// for longer than `idle_max`.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        uploads: Uploads,
        store: Store,
        places: Arc<Rations>,
        idle_max: Duration,
    ) -> Self {
        Self { publisher, uploads, store, places, idle_max }
    }

    /// Waits for what a publisher sends first.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED if it sends nothing.
    pub async fn first<T>(&self, message: impl Future<Output = T>) -> Result<T, Error> {
        timeout(self.idle_max, message).await.map_err(|_| idle())
    }

    /// Publishes a file: an observation whose content is an unread file, and its
    /// bytes. They are not read to their end if the outcome is certain before.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a chunk over 1 MiB; what the stream itself says;
    /// DEADLINE_EXCEEDED if it says nothing; INTERNAL if a service is at fault.
    pub async fn publish(
        &self,
        organisation: &OrganisationId,
        file: Observation,
        chunks: impl Stream<Item = Result<Bytes, Status>> + Send,
    ) -> Result<Published, Status> {
        let taken = self.publisher.take_in(organisation, &file)?;
        let published = self.publish_counted(organisation, file, chunks).await?;
        taken.settled(std::slice::from_ref(&published.outcome));
        Ok(published)
    }

    async fn publish_counted(
        &self,
        organisation: &OrganisationId,
        file: Observation,
        chunks: impl Stream<Item = Result<Bytes, Status>> + Send,
    ) -> Result<Published, Status> {
        // Where the bytes go, and what is certain without them, the gate decides no more.
        let candidate = match self.publisher.check_anew(organisation, file.clone()).await {
            Ok(Ok(candidate)) => candidate,
            Ok(Err(outcome)) => return Ok(Published::unread(outcome)),
            Err(error) => return Ok(Published::unread(retried(error)?)),
        };
        if let Some(outcome) = self.look_ahead(organisation, &file, &candidate).await? {
            return Ok(Published::unread(outcome));
        }
        let Some(_place) = self.places.take_now(&Owner::from(organisation), 1) else {
            let cause = if self.places.are_all_taken() { Cause::Queue } else { Cause::OrganisationQueue };
            return Ok(Published::unread(not_kept(cause, "too many files are on their way")));
        };
        let upload = match self.uploads.open(candidate.id, organisation).await {
            Ok(upload) => upload,
            Err(error) => return Ok(Published::unread(retried(error)?)),
        };
        let mut reading =
            Reading::new(must_be_json(&file).then_some(self.publisher.limits().observation_bytes_max));
        let ended = match self.store(organisation, &file, &candidate, chunks, &mut reading).await {
            Ok(read) => {
                self.publisher.publish_one(organisation, with(&file, read)).await.map_err(Status::from)
            }
            Err(Stopped::Outcome(outcome)) => Ok(outcome),
            Err(Stopped::Failed(status)) => Err(status),
        };
        if !matches!(ended, Ok(Outcome::Decided { .. })) {
            upload.give_up().await;
        }
        Ok(Published { outcome: ended?, checksum: reading.checksum(), bytes: reading.bytes() })
    }

    /// The outcome, if it is certain without the bytes: a full backlog, a marker
    /// that was processed, a full throttle window. (An open `unique` window never
    /// is: its key is made of the bytes.)
    async fn look_ahead(
        &self,
        organisation: &OrganisationId,
        file: &Observation,
        candidate: &Candidate,
    ) -> Result<Option<Outcome>, Error> {
        if let Some(retry) = self.publisher.refuses(organisation) {
            return Ok(Some(Outcome::Retry(retry)));
        }
        let decision = match self.uploads.look_ahead(candidate).await {
            Ok(Some(decision)) => decision,
            Ok(None) => return Ok(None),
            Err(error) => return retried(error).map(Some),
        };
        // `throttled` is final: with a marker it has to be remembered, or a
        // resend in the next window would be told something else. So the gate
        // itself says it, about a file of which nothing was read. It may also
        // find that a slot is free by now: then the bytes are needed.
        if matches!(decision, Decision::Throttled { .. }) && candidate.marker.is_some() {
            let outcome = self.publisher.publish_one(organisation, file.clone()).await?;
            let undecided = matches!(&outcome, Outcome::Retry(retry) if retry.reason == RetryReason::NotKept);
            return Ok((!undecided).then_some(outcome));
        }
        let etag = candidate.definition.etag.clone();
        Ok(Some(Outcome::Decided { decision, id: candidate.id, etag, bytes: 0 }))
    }

    /// From the publisher to the store, as fast as the slower of them. What the
    /// bytes are, once they are sealed.
    async fn store(
        &self,
        organisation: &OrganisationId,
        file: &Observation,
        candidate: &Candidate,
        chunks: impl Stream<Item = Result<Bytes, Status>> + Send,
        reading: &mut Reading,
    ) -> Result<FileRead, Stopped> {
        let (way_in, answer) = self.store.begin(upload_of(file, candidate));
        let mut answer = pin!(answer);
        let etag = &candidate.definition.etag;
        let relayed = {
            let mut relay = pin!(self.relay(organisation, file, chunks, way_in, reading));
            tokio::select! {
                biased;
                early = answer.as_mut() => {
                    return Err(early.map_or_else(|why| not_stored(why, etag), |_| unended()));
                }
                relayed = relay.as_mut() => relayed,
            }
        };
        let read = relayed?;
        // Sealing takes time: a bucket puts the parts together.
        let stored = match timeout(self.idle_max, answer).await {
            Ok(stored) => stored.map_err(|why| not_stored(why, etag))?,
            Err(_) => {
                let why = "the storage does not seal the file";
                return Err(Stopped::Outcome(not_kept(Cause::Storage, why)));
            }
        };
        let StoreFileResponse { checksum, size, r#type } = stored;
        if size != read.bytes || checksum != reading.checksum() {
            return Err(Error::internal("what was stored is not what was sent").into());
        }
        Ok(FileRead { media_type: r#type, ..read })
    }

    /// Reads the publisher's chunks to their end and hands them over. What has to
    /// be looked into is checked before the file is called complete, so that a
    /// bad one is never sealed.
    async fn relay(
        &self,
        organisation: &OrganisationId,
        file: &Observation,
        chunks: impl Stream<Item = Result<Bytes, Status>> + Send,
        way_in: Chunks,
        reading: &mut Reading,
    ) -> Result<FileRead, Stopped> {
        let mut chunks = pin!(chunks);
        loop {
            let chunk = match timeout(self.idle_max, chunks.next()).await {
                Ok(Some(chunk)) => chunk.map_err(Stopped::Failed)?,
                Ok(None) => break,
                Err(_) => return Err(idle().into()),
            };
            if chunk.len() > CHUNK_BYTES_MAX {
                let rule = format!("must be up to {CHUNK_BYTES_MAX} bytes");
                return Err(Error::invalid("chunk", rule).into());
            }
            if reading.take(&chunk) {
                self.check(organisation, with(file, reading.read())).await?;
            }
            if !chunk.is_empty() {
                self.progress(way_in.send(chunk)).await?;
            }
        }
        let read = reading.read();
        if read.held.is_some() {
            self.check(organisation, with(file, read.clone())).await?;
        }
        self.progress(way_in.end()).await?;
        Ok(read)
    }

    async fn check(&self, organisation: &OrganisationId, file: Observation) -> Result<(), Stopped> {
        match self.publisher.check_only(organisation, file).await? {
            Ok(_) => Ok(()),
            Err(outcome) => Err(Stopped::Outcome(outcome)),
        }
    }

    /// Waits for the store to take something. If it takes no more, its answer is
    /// on the way and ends this.
    async fn progress(&self, taken: impl Future<Output = Result<(), Gone>>) -> Result<(), Stopped> {
        let or_answered = async {
            if let Err(Gone) = taken.await {
                std::future::pending::<()>().await;
            }
        };
        let stuck = || Stopped::Outcome(not_kept(Cause::Storage, "the storage takes no bytes"));
        timeout(self.idle_max, or_answered).await.map_err(|_| stuck())
    }
}

/// What the store is told of a file.
fn upload_of(file: &Observation, candidate: &Candidate) -> FileUpload {
    let config = candidate.definition.draft.storage_config;
    FileUpload {
        organisation: candidate.organisation.as_str().to_owned(),
        id: candidate.id.to_string(),
        storage_config: config.map(|id| id.to_string()).unwrap_or_default(),
        r#type: file.media_type.clone(),
        checksum: match &file.content {
            Content::File(file) => file.checksum.to_ascii_lowercase(),
            _ => String::new(),
        },
    }
}

/// The file with what its bytes are.
fn with(file: &Observation, read: FileRead) -> Observation {
    let mut file = file.clone();
    if let Content::File(content) = &mut file.content {
        content.read = Some(read);
    }
    file
}

/// What a file that was not stored comes to, by the rules of a definition.
fn not_stored(why: NotStored, etag: &str) -> Stopped {
    match why {
        NotStored::Fault(fault) => Stopped::Outcome(Outcome::Error { fault, etag: etag.to_owned() }),
        NotStored::Retry(retry) => Stopped::Outcome(Outcome::Retry(retry)),
        NotStored::Failed(error) => error.into(),
    }
}

fn unended() -> Stopped {
    Error::internal("a file was sealed before its end").into()
}

/// What a caller is told that sends nothing.
fn idle() -> Error {
    Error::new(Kind::DeadlineExceeded, "FILE_IDLE", "no bytes of the file came for too long")
}
