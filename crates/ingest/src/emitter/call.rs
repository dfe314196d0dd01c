//! One hand-over: rows are read back if they are no longer in memory, sent in
//! one `RecordResults`, and each gets its own answer. An error of the whole call is told
//! as it is; the queue narrows down whose doing it was.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use sluice_proto::results::v1::{
    RecordResultsRequest, RecordResultsResponse, ResultBatch, record_results_response::Recording,
    results_intake_service_client::ResultsIntakeServiceClient,
};
use sluice_service::{
    Error,
    client::TokenInterceptor,
    peer::Peer,
    postgres::{execute, query},
    trace,
};
use tokio_postgres::types::ToSql;
use tonic::{Code, Response, Status};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::{
    queue::{Call, Row, Size},
    trouble::Trouble,
};
use crate::{metrics::Emission, outbox};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const RECORD_RESULTS: &str = "sluice.results.v1.ResultsIntakeService/RecordResults";

sluice_service::label! {
    /// What became of one row.
    pub enum Handover {
        /// Every result in it is recorded, and every file to be discarded is marked.
        Recorded = "recorded",
        /// The row is not this instance's: recorded and deleted, taken over by
        /// another instance, or never committed.
        NotOurs = "not_ours",
        /// Its storage can't take it now.
        Deferred = "deferred",
        /// It can't be recorded as it is; an operator has to look.
        SetAside = "set_aside",
        /// The call did not get through.
        Failed = "failed",
    }
}

/// A call that has ended.
#[derive(Debug)]
pub struct Handed {
    /// Its rows in the order they were given, each with what became of it; nothing if it
    /// did not fit into the call after all.
    pub rows: Vec<(Row, Option<Handover>)>,
    /// It was of one organisation, whose calls may fail or take long.
    pub apart: bool,
    /// Why it failed, if all of it did.
    pub trouble: Option<Trouble>,
    /// Whether anything can be handed over now, or why not. Nothing if none of it had to
    /// be: then nobody was asked.
    pub works: Option<Result<(), String>>,
}

/// Makes the calls.
#[derive(Clone, Debug)]
pub struct Caller {
    results: Peer,
    token: TokenInterceptor,
    pool: Pool,
    instance: Uuid,
    metrics: Arc<Emission>,
}

impl Caller {
    /// A caller.
    #[must_use]
    pub fn new(
        results: Peer,
        token: TokenInterceptor,
        pool: Pool,
        instance: Uuid,
        metrics: Arc<Emission>,
    ) -> Self {
        Self { results, token, pool, instance, metrics }
    }

    /// Hands rows over.
    pub async fn hand_over(&self, call: Call) -> Handed {
        let Call { rows, apart, .. } = call;
        let kept = match self.load(&rows).await {
            Ok(kept) => kept,
            Err(error) => {
                let rows = rows.into_iter().map(|row| (row, Some(Handover::Failed))).collect();
                let works = Some(Err(format!("the outbox can't be read: {error}")));
                return Handed { rows, apart, trouble: Some(Trouble::OfAll), works };
            }
        };
        let (mut messages, mut size, mut full) = (Vec::new(), Size::default(), false);
        let mut handed = Vec::with_capacity(rows.len());
        for mut row in rows {
            let kept = kept.get(&row.id);
            let handover = match open(&mut row, kept, |row| full || !size.fits(row)) {
                Opened::Message(message) => {
                    size.add(&row);
                    messages.push(message);
                    // Until it is answered for.
                    Some(Handover::Failed)
                }
                Opened::NoPlace => {
                    full = true;
                    None
                }
                Opened::Missing => {
                    self.metrics.handed_over(row.id, row.items, Handover::NotOurs);
                    Some(Handover::NotOurs)
                }
                Opened::Unreadable(why) => {
                    self.metrics.handed_over(row.id, row.items, Handover::SetAside);
                    set_aside(&self.pool, row.id, row.organisation.as_str(), &why).await;
                    Some(Handover::SetAside)
                }
            };
            handed.push((row, handover));
        }
        let Answer { handovers, trouble, refusal, works } =
            self.send(&messages).instrument(emit_span(&messages)).await;
        let sent = handed.iter_mut().filter(|(_, handover)| *handover == Some(Handover::Failed));
        for (((row, became), message), handover) in sent.zip(&messages).zip(handovers) {
            self.metrics.handed_over(row.id, message.results.len(), handover);
            if handover == Handover::SetAside {
                set_aside(&self.pool, row.id, row.organisation.as_str(), &refusal).await;
            }
            *became = Some(handover);
        }
        Handed { rows: handed, apart, trouble, works }
    }

    async fn send(&self, messages: &[Arc<ResultBatch>]) -> Answer {
        if messages.is_empty() {
            return Answer::default();
        }
        let answer = match self.call(messages).instrument(trace::call_span(RECORD_RESULTS)).await {
            // Recording again is harmless: another replica may do better at once.
            Err(failure) if failure.lost && failure.trouble != Trouble::Late && self.results.has_others() => {
                self.call(messages).instrument(trace::call_span(RECORD_RESULTS)).await
            }
            answer => answer,
        };
        match answer {
            Ok(answer) => Answer {
                handovers: handovers(messages, answer.into_inner()),
                trouble: None,
                refusal: "the results service refused a result".into(),
                works: Some(Ok(())),
            },
            Err(Failure { status, trouble, .. }) => Answer::failed(messages.len(), trouble, &status),
        }
    }

    /// One call to one replica.
    async fn call(&self, messages: &[Arc<ResultBatch>]) -> Result<Response<RecordResultsResponse>, Failure> {
        let batches = messages.iter().map(|message| (**message).clone()).collect();
        let mut request = tonic::Request::new(RecordResultsRequest { batches });
        request.set_timeout(CALL_TIMEOUT);
        trace::inject(request.metadata_mut());
        let started = Instant::now();
        let answer = match self.results.pick().await {
            None => {
                Err(Failure::of(Status::unavailable("the results service has no address"), false, started))
            }
            Some(picked) => {
                let channel = picked.channel();
                let mut client = ResultsIntakeServiceClient::with_interceptor(channel, self.token.clone());
                let answer = client.record_results(request).await;
                let lost = picked.ended(answer.as_ref().err());
                answer.map_err(|status| Failure::of(status, lost, started))
            }
        };
        let code = answer.as_ref().err().map_or(Code::Ok, |failure| failure.status.code());
        self.metrics.called(code, started.elapsed());
        trace::called(code);
        answer
    }

    /// What is kept of the rows that are not in memory.
    async fn load(&self, rows: &[Row]) -> Result<HashMap<Uuid, tokio_postgres::Row>, Error> {
        let missing: Vec<Uuid> = rows.iter().filter(|row| row.message.is_none()).map(|row| row.id).collect();
        if missing.is_empty() {
            return Ok(HashMap::new());
        }
        let params: [&(dyn ToSql + Sync); 2] = [&missing, &self.instance];
        let rows = query(&self.pool, include_str!("../sql/load_outbox.sql"), &params).await?;
        Ok(rows.into_iter().map(|row| (row.get("id"), row)).collect())
    }

    /// Gives all rows of this instance to whoever comes first.
    pub async fn release(&self) {
        match execute(&self.pool, include_str!("../sql/release_outbox.sql"), &[&self.instance]).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "outbox rows released"),
            Err(error) => tracing::warn!(%error, "outbox rows not released; they are found again"),
        }
    }
}

/// A call that was not answered.
struct Failure {
    status: Status,
    /// It did not get through.
    lost: bool,
    trouble: Trouble,
}

impl Failure {
    fn of(status: Status, lost: bool, started: Instant) -> Self {
        let trouble = Trouble::of(&status, started.elapsed() >= CALL_TIMEOUT);
        Self { status, lost, trouble }
    }
}

/// What became of the messages of a call.
#[derive(Debug, Default)]
struct Answer {
    handovers: Vec<Handover>,
    trouble: Option<Trouble>,
    /// Why some are set aside.
    refusal: String,
    /// As in [`Handed`].
    works: Option<Result<(), String>>,
}

impl Answer {
    /// Nothing of a call was answered for. What is refused alone is refused for good.
    fn failed(messages: usize, trouble: Trouble, status: &Status) -> Self {
        let (code, message) = (status.code(), status.message());
        let works = if trouble == Trouble::OfAll {
            Err(format!("{code:?}: {message}"))
        } else {
            tracing::warn!(?code, message, rows = messages, "results not recorded");
            Ok(())
        };
        let works = Some(works);
        match trouble {
            Trouble::Refused if messages == 1 => Self {
                handovers: vec![Handover::SetAside],
                trouble: None,
                refusal: format!("the results service refused it: {message}"),
                works,
            },
            trouble => Self {
                handovers: vec![Handover::Failed; messages],
                trouble: Some(trouble),
                refusal: String::new(),
                works,
            },
        }
    }
}

/// What is found of a row that is to be sent.
enum Opened {
    Message(Arc<ResultBatch>),
    /// In the next call.
    NoPlace,
    /// Not in the outbox, or another's.
    Missing,
    Unreadable(String),
}

/// Opens a row, from memory or as it is kept, and takes its counts from it. Nothing is
/// decompressed that has no place.
fn open(row: &mut Row, kept: Option<&tokio_postgres::Row>, has_no_place: impl Fn(&Row) -> bool) -> Opened {
    let message = match (&row.message, kept) {
        (Some(message), _) => message.clone(),
        (None, None) => return Opened::Missing,
        (None, Some(kept)) => {
            let payload = kept.get("payload");
            row.bytes = outbox::decoded_bytes(payload).unwrap_or(row.bytes);
            if has_no_place(row) {
                return Opened::NoPlace;
            }
            match outbox::decode(kept.get("format"), payload) {
                Ok(message) => Arc::new(message),
                Err(why) => return Opened::Unreadable(why),
            }
        }
    };
    row.count(&message);
    if has_no_place(row) { Opened::NoPlace } else { Opened::Message(message) }
}

/// What the answer says of each row: the worst of what it says of its parts.
fn handovers(messages: &[Arc<ResultBatch>], answer: RecordResultsResponse) -> Vec<Handover> {
    let mut recordings = answer.recordings.into_iter();
    let mut discards = answer.discards.into_iter();
    messages
        .iter()
        .map(|message| {
            let results = message.results.iter().map(|_| recordings.next());
            let results = results.fold(Handover::Recorded, worst);
            message.discarded_files.iter().map(|_| discards.next()).fold(results, worst)
        })
        .collect()
}

fn worst(so_far: Handover, part: Option<i32>) -> Handover {
    match (so_far, part.map(Recording::try_from)) {
        // What was not answered for.
        (_, None | Some(Err(_) | Ok(Recording::Unspecified))) | (Handover::Failed, _) => Handover::Failed,
        (_, Some(Ok(Recording::Refused))) => Handover::SetAside,
        (Handover::Recorded, Some(Ok(Recording::Deferred))) => Handover::Deferred,
        (so_far, Some(Ok(_))) => so_far,
    }
}

/// The span of one hand-over: it takes what commits left in the outbox.
fn emit_span(messages: &[Arc<ResultBatch>]) -> Span {
    let span = tracing::info_span!(
        "emit",
        otel.name = "emit outbox",
        otel.kind = "consumer",
        messaging.system = "sluice",
        messaging.operation.name = "emit",
        messaging.operation.type = "process",
        messaging.destination.name = "outbox",
        messaging.batch.message_count = messages.iter().map(|message| message.results.len()).sum::<usize>(),
    );
    trace::gather_remote(&span, messages.iter().map(|message| &*message.traceparent));
    span
}

/// Marks a row that can't be emitted as it is, and calls an operator.
pub async fn set_aside(pool: &Pool, id: Uuid, organisation: &str, why: &str) {
    tracing::error!(
        outbox = %id, organisation, why,
        "ALERT: an accepted batch can't be recorded and was set aside"
    );
    let set_aside = execute(pool, include_str!("../sql/set_aside_outbox.sql"), &[&id, &why]).await;
    if let Err(error) = set_aside {
        tracing::error!(outbox = %id, %error, "the batch could not be marked as set aside");
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::results::v1::NewResult;

    use super::*;

    #[test]
    fn a_row_is_recorded_when_all_its_results_and_discards_are() {
        let (done, later, never) =
            (Recording::Recorded as i32, Recording::Deferred as i32, Recording::Refused as i32);
        let row = |results: usize, files: usize| {
            Arc::new(ResultBatch {
                results: vec![NewResult::default(); results],
                discarded_files: vec![String::new(); files],
                ..ResultBatch::default()
            })
        };
        let told = |recordings: &[i32], discards: &[i32]| {
            let (recordings, discards) = (recordings.to_vec(), discards.to_vec());
            let answer = RecordResultsResponse { recordings, discards };
            handovers(&[row(1, 1), row(0, 2), row(2, 0)], answer)
        };
        let (recorded, failed) = (Handover::Recorded, Handover::Failed);
        assert_eq!(told(&[done; 3], &[done; 3]), [recorded; 3]);
        assert_eq!(
            told(&[done; 3], &[later, done, never]),
            [Handover::Deferred, Handover::SetAside, recorded]
        );
        assert_eq!(told(&[done, later, done], &[done; 3]), [recorded, recorded, Handover::Deferred]);
        assert_eq!(told(&[later, done, never], &[never, done, later])[0], Handover::SetAside);
        assert_eq!(told(&[done; 3], &[]), [failed, failed, recorded], "not answered for");
        assert_eq!(told(&[never, done, 0], &[9, done, done]), [failed, recorded, failed]);
    }
}
