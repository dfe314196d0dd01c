//! One hand-over: rows are read back if they are no longer in memory, sent in
//! one `RecordResults`, and each gets its own answer.

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

use super::queue::Row;
use crate::{metrics::Emission, outbox};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
const RECORD_RESULTS: &str = "sluice.results.v1.ResultsIntakeService/RecordResults";

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Every result in it is recorded, and every file to be discarded is marked.
    Recorded,
    /// The row is not this instance's: recorded and deleted, taken over by
    /// another instance, or never committed.
    NotOurs,
    /// Its storage can't take it now.
    Deferred,
    /// It can't be recorded as it is; an operator has to look.
    SetAside,
    /// The call did not get through.
    Failed,
}

/// The rows of a call, each with what became of it.
#[derive(Debug)]
pub struct Handed {
    /// In the order they were given.
    pub rows: Vec<(Row, Handover)>,
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
    pub async fn hand_over(&self, rows: Vec<Row>) -> Handed {
        let mut loaded = match self.load(&rows).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, "the outbox can't be read");
                return Handed { rows: rows.into_iter().map(|row| (row, Handover::Failed)).collect() };
            }
        };
        let mut sent = Vec::with_capacity(rows.len());
        let mut handed = Vec::with_capacity(rows.len());
        for row in rows {
            match row.message.clone().map(Ok).or_else(|| loaded.remove(&row.id)) {
                Some(Ok(message)) => sent.push((row, message)),
                Some(Err(why)) => {
                    set_aside(&self.pool, row.id, row.organisation.as_str(), &why).await;
                    handed.push((row, Handover::SetAside));
                }
                None => handed.push((row, Handover::NotOurs)),
            }
        }
        let handovers = self.send(&sent).instrument(emit_span(&sent)).await;
        for ((row, message), handover) in sent.into_iter().zip(handovers) {
            self.metrics.handed_over(row.id, message.results.len(), handover);
            if handover == Handover::SetAside {
                let why = "the results service refused a result";
                set_aside(&self.pool, row.id, row.organisation.as_str(), why).await;
            }
            handed.push((row, handover));
        }
        Handed { rows: handed }
    }

    async fn send(&self, sent: &[(Row, Arc<ResultBatch>)]) -> Vec<Handover> {
        if sent.is_empty() {
            return Vec::new();
        }
        let answer = match self.call(sent).instrument(trace::call_span(RECORD_RESULTS)).await {
            // Recording again is harmless: another replica may do better at once.
            Err((_, lost)) if lost && self.results.has_others() => {
                self.call(sent).instrument(trace::call_span(RECORD_RESULTS)).await
            }
            answer => answer,
        };
        match answer {
            Ok(answer) => handovers(sent, answer.into_inner()),
            Err((status, _)) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "results not recorded");
                vec![Handover::Failed; sent.len()]
            }
        }
    }

    /// One call to one replica; an error says whether it did not get through.
    async fn call(
        &self,
        sent: &[(Row, Arc<ResultBatch>)],
    ) -> Result<Response<RecordResultsResponse>, (Status, bool)> {
        let batches = sent.iter().map(|(_, message)| (**message).clone()).collect();
        let mut request = tonic::Request::new(RecordResultsRequest { batches });
        request.set_timeout(CALL_TIMEOUT);
        trace::inject(request.metadata_mut());
        let started = Instant::now();
        let answer = match self.results.pick().await {
            None => Err((Status::unavailable("the results service has no address"), false)),
            Some(picked) => {
                let channel = picked.channel();
                let mut client = ResultsIntakeServiceClient::with_interceptor(channel, self.token.clone());
                let answer = client.record_results(request).await;
                let lost = picked.ended(answer.as_ref().err());
                answer.map_err(|status| (status, lost))
            }
        };
        let code = answer.as_ref().err().map_or(Code::Ok, |(status, _)| status.code());
        self.metrics.called(code, started.elapsed());
        trace::called(code);
        answer
    }

    /// The messages of the rows that are not in memory.
    async fn load(&self, rows: &[Row]) -> Result<HashMap<Uuid, Result<Arc<ResultBatch>, String>>, Error> {
        let missing: Vec<Uuid> = rows.iter().filter(|row| row.message.is_none()).map(|row| row.id).collect();
        if missing.is_empty() {
            return Ok(HashMap::new());
        }
        let params: [&(dyn ToSql + Sync); 2] = [&missing, &self.instance];
        let rows = query(&self.pool, include_str!("../sql/load_outbox.sql"), &params).await?;
        Ok(rows
            .iter()
            .map(|row| (row.get("id"), outbox::decode(row.get("format"), row.get("payload")).map(Arc::new)))
            .collect())
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

/// What the answer says of each row: the worst of what it says of its parts.
fn handovers(sent: &[(Row, Arc<ResultBatch>)], answer: RecordResultsResponse) -> Vec<Handover> {
    let mut recordings = answer.recordings.into_iter();
    let mut discards = answer.discards.into_iter();
    sent.iter()
        .map(|(_, message)| {
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
fn emit_span(sent: &[(Row, Arc<ResultBatch>)]) -> Span {
    let span = tracing::info_span!(
        "emit",
        otel.name = "emit outbox",
        otel.kind = "consumer",
        messaging.system = "sluice",
        messaging.operation.name = "emit",
        messaging.operation.type = "process",
        messaging.destination.name = "outbox",
        messaging.batch.message_count = sent.iter().map(|(_, message)| message.results.len()).sum::<usize>(),
    );
    trace::gather_remote(&span, sent.iter().map(|(_, message)| &*message.traceparent));
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
            let message = Arc::new(ResultBatch {
                results: vec![NewResult::default(); results],
                discarded_files: vec![String::new(); files],
                ..ResultBatch::default()
            });
            let organisation = "acme".parse().unwrap();
            (Row { id: Uuid::nil(), organisation, bytes: 0, message: None }, message)
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
