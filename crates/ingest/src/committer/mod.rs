//! Group commit: what concurrent requests hand in is merged into gate transactions of
//! some lanes. While they are in flight the next gathers. Each lane is a task with a
//! session of its own, and takes from one queue (`queue`): a request goes into one
//! transaction whole, and observations of one organisation and definition are committed
//! in the order they were handed in. A commit that hangs delays what has an organisation
//! and definition in common with it, with what came behind that from the organisation, and
//! everybody else only as long as no other lane is free. A lane outlives its callers:
//! dropping a request cancels nothing that is sealed.

mod at_gate;
mod entry;
mod lines;
mod queue;
mod stale;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sluice_service::{
    Error,
    backoff::{News, Outage},
    postgres::{Database, Reconnect},
    trace::{self, Origin},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::{
    backlog::Backlog,
    check::Candidate,
    doubt::{self, Ended},
    gate::{
        decide::{Unfit, Verdict},
        error::{GateError, Who},
        session::GateSession,
    },
    metrics::Commits,
    outbox::{self, OutboxRow},
    outcome::{Cause, Decision, Retry},
    registry::Registry,
};
pub use at_gate::AtGate;
pub use entry::Committer;
use entry::Shared;
use stale::{refuse_stale, renewed};

/// How often a transaction is tried that conflicts, or in which definitions turn out to have
/// changed, before its callers are told.
const TRIES_MAX: u32 = 5;
/// How long a lane waits for a look at the definitions.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// One request's observations.
#[derive(Debug)]
pub struct Job {
    /// In request order.
    pub candidates: Vec<Candidate>,
    /// Of the definitions they were checked against, or would be with the same answer.
    pub revision: i64,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
    /// The request it is part of, for traces.
    pub origin: Origin,
}

/// The answer to a job.
#[derive(Debug)]
pub enum Reply {
    /// One decision per candidate; they are durable.
    Decided(Vec<Decision>),
    /// Its definitions changed since the check, or others did again and again: check again,
    /// hand in again.
    Stale,
    /// Not decided now.
    Retry(Retry),
    /// This job can't be committed, whatever the others do.
    Failed(Error),
}

/// What all lanes share.
#[derive(Clone, Debug)]
pub struct LaneContext {
    /// Where the gate's tables are.
    pub database: Database,
    /// Tells whether what a job was checked by still rules.
    pub registry: Registry,
    /// Where accepted batches go.
    pub emit: mpsc::UnboundedSender<Vec<OutboxRow>>,
    /// Counts what is on its way.
    pub backlog: Arc<Backlog>,
    /// What passes the gate.
    pub at_gate: Arc<AtGate>,
    /// This process, as owner of outbox rows.
    pub instance: Uuid,
    /// Where commits are counted.
    pub metrics: Arc<Commits>,
}

/// One lane.
pub struct Lane {
    number: usize,
    shared: Arc<Shared>,
    session: Option<Held>,
    /// What the database knows the last session by.
    last: Option<Uuid>,
    /// What it will know the next one by.
    next: Uuid,
    reconnect: Reconnect,
    outage: Outage,
    context: LaneContext,
}

/// A lane's session, as long as it has one.
struct Held {
    session: GateSession,
    _counted: Arc<()>,
}

impl Lane {
    /// Commits until the committer is dropped and nothing waits any more.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            self.prepare().await;
            let Some((jobs, underway)) = shared.seal(self.number).await else { return };
            let span = commit_span(&jobs);
            let committing = AssertUnwindSafe(self.commit(jobs)).catch_unwind();
            if committing.instrument(span).await.is_err() {
                // Logged by the panic hook. What was committed is found by upkeep.
                self.session = None;
            }
            self.context.at_gate.left(self.number);
            drop(underway);
        }
    }

    /// As long as it has no session, it opens one with no request in hand, and leaves what
    /// waits to lanes that have one. If there is none, it takes what waits all the same, so
    /// that callers are told.
    async fn prepare(&mut self) {
        while !self.has_session() && Arc::strong_count(&self.shared.sessions) > 1 {
            self.shared.queue.leave_to_others();
            if let Some(until) = self.reconnect.rests_until()
                && !self.shared.queue.rest(self.number, until).await
            {
                return;
            }
            let _told = self.session().await;
        }
    }

    async fn commit(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs;
        let mut tries = 0;
        loop {
            jobs = renewed(jobs, &self.context.registry.snapshot());
            let Some(revision) = jobs.iter().map(|job| job.revision).min() else { return };
            tries += 1;
            let attempt = self.attempt(&jobs, revision).await;
            if let Err(error) = &attempt {
                self.context.metrics.failed(error.counted());
            }
            match attempt {
                Ok((verdict, rows)) => return self.committed(jobs, verdict, rows),
                Err(GateError::Stale { revision }) if tries < TRIES_MAX => {
                    jobs = self.look_again(jobs, revision).await;
                }
                Err(GateError::Stale { revision }) => jobs = refuse_stale(jobs, revision),
                Err(GateError::Unfit(unfit)) => jobs = refuse_unfit(jobs, &unfit),
                Err(GateError::Conflict | GateError::Known) if tries < TRIES_MAX => {}
                Err(GateError::Ended) if tries < TRIES_MAX => self.session = None,
                // A session that had gone while it was idle: once more on a new one.
                Err(GateError::Disconnected) if tries == 1 => self.session = None,
                Err(GateError::Disconnected) => {
                    self.session = None;
                    return retry_all(jobs, &Retry::not_kept(Cause::Database, "the database is away"));
                }
                Err(GateError::Conflict | GateError::Known | GateError::Ended | GateError::Busy) => {
                    return retry_all(jobs, &Retry::not_kept(Cause::Database, "the database is busy"));
                }
                Err(GateError::Statement(error)) => {
                    return self.find_the_one_to_blame(jobs, error).await;
                }
                Err(GateError::InDoubt(doubt)) => {
                    self.session = None;
                    let ended = doubt::resolve(&self.context.database, &doubt).await;
                    self.context.metrics.resolved(ended);
                    match ended {
                        Ended::Committed => return self.committed(jobs, doubt.verdict, doubt.outbox),
                        // All in one trip: it may have gone while it was idle.
                        Ended::RolledBack if tries == 1 && matches!(doubt.who, Who::Session(_)) => {}
                        Ended::RolledBack => {
                            let why = "the database broke off before the commit";
                            return retry_all(jobs, &Retry::not_kept(Cause::Database, why));
                        }
                        // Should it have been committed, upkeep finds its rows.
                        Ended::Unknown => return retry_all(jobs, &Retry::outcome_unknown()),
                    }
                }
            }
        }
    }

    /// Definitions changed up to a revision since the check: the jobs whose own did not, as far
    /// as can be seen now.
    async fn look_again(&self, jobs: Vec<Job>, revision: i64) -> Vec<Job> {
        let registry = &self.context.registry;
        // Whatever comes of it, the snapshot is the newest there is.
        let _looked = tokio::time::timeout(LOOK_TIMEOUT, registry.refresh()).await;
        refuse_stale(renewed(jobs, &registry.snapshot()), revision)
    }

    /// One try at a transaction, opening a session if there is none.
    async fn attempt(&mut self, jobs: &[Job], revision: i64) -> Result<(Verdict, Vec<OutboxRow>), GateError> {
        let (lane, at_gate) = (self.number, self.context.at_gate.clone());
        let session = self.session().await?;
        let candidates: Vec<&Candidate> = jobs.iter().flat_map(|job| &job.candidates).collect();
        let rows_of = |verdict: &Verdict| {
            let rows = outbox::rows(&candidates, &verdict.decisions)?;
            at_gate.came(lane, rows.iter().map(|row| row.id));
            Ok(rows)
        };
        let (started, observations) = (Instant::now(), candidates.len());
        let decided = session.decide(&candidates, revision, rows_of).await;
        if decided.is_ok() {
            self.context.metrics.committed(jobs.len(), observations, started.elapsed());
            self.shared.rate.committed(observations, started.elapsed());
        }
        decided
    }

    fn has_session(&self) -> bool {
        self.session.as_ref().is_some_and(|held| !held.session.is_closed())
    }

    async fn session(&mut self) -> Result<&GateSession, GateError> {
        if !self.has_session() {
            self.session = None;
            if self.reconnect.is_resting() {
                return Err(GateError::Disconnected);
            }
            let LaneContext { database, instance, .. } = &self.context;
            let opening = GateSession::open(database, self.next, *instance, self.last);
            let opened = match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
                Ok(opened) => opened.map_err(|error| error.to_string()),
                Err(_) => Err("not in time".to_owned()),
            };
            if opened.is_ok() {
                self.last = Some(std::mem::replace(&mut self.next, Uuid::now_v7()));
            }
            let opened = self.reconnect.tried(opened);
            match self.outage.news(opened.as_ref().err().cloned()) {
                Some(News::Fails(error)) => tracing::warn!(error, "no session for the gate"),
                Some(News::WorksAgain) => tracing::info!("a session for the gate again"),
                None => {}
            }
            let counted = self.shared.sessions.clone();
            self.session = opened.ok().map(|session| Held { session, _counted: counted });
        }
        self.session.as_ref().map(|held| &held.session).ok_or(GateError::Disconnected)
    }

    /// Hands over what was accepted, then answers every caller.
    fn committed(&self, jobs: Vec<Job>, verdict: Verdict, rows: Vec<OutboxRow>) {
        for row in &rows {
            self.context.backlog.add(&row.organisation, row.payload.len());
        }
        self.emit(rows);
        let mut decisions = verdict.decisions.into_iter();
        for job in jobs {
            let decided = decisions.by_ref().take(job.candidates.len()).collect();
            answer(job, Reply::Decided(decided));
        }
    }

    fn emit(&self, rows: Vec<OutboxRow>) {
        let count = rows.len();
        if count > 0 && self.context.emit.send(rows).is_err() {
            // The emitter ends after the lanes; should it not, another instance
            // takes the rows over.
            tracing::error!(rows = count, "accepted batches were left in the outbox");
        }
    }

    /// Something of one request can't be committed: commit each alone, so that only the one
    /// to blame fails.
    async fn find_the_one_to_blame(&mut self, mut jobs: Vec<Job>, error: Error) {
        if jobs.len() > 1 {
            for job in jobs {
                Box::pin(self.commit(vec![job])).await;
            }
        } else if let Some(job) = jobs.pop() {
            answer(job, Reply::Failed(error));
        }
    }
}

/// The span of one group commit: it makes what the outbox will hand out.
fn commit_span(jobs: &[Job]) -> Span {
    let span = tracing::info_span!(
        "commit",
        otel.name = "commit outbox",
        otel.kind = "producer",
        messaging.system = "sluice",
        messaging.operation.name = "commit",
        messaging.operation.type = "send",
        messaging.destination.name = "outbox",
        messaging.batch.message_count = jobs.iter().map(|job| job.candidates.len()).sum::<usize>(),
    );
    trace::gather(&span, jobs.iter().map(|job| &job.origin));
    span
}

/// Answers a job; its caller may have gone since it was sealed.
fn answer(job: Job, reply: Reply) {
    let _gone = job.reply.send(reply);
}

fn retry_all(jobs: Vec<Job>, retry: &Retry) {
    for job in jobs {
        answer(job, Reply::Retry(retry.clone()));
    }
}

/// Answers the jobs that hold a candidate that can't be decided; what is left is
/// to be decided anew without them.
fn refuse_unfit(jobs: Vec<Job>, unfit: &Unfit) -> Vec<Job> {
    let mut places = unfit.0.iter().copied().peekable();
    let mut end = 0;
    let mut fit = Vec::with_capacity(jobs.len());
    for job in jobs {
        end += job.candidates.len();
        if places.peek().is_none_or(|place| *place >= end) {
            fit.push(job);
            continue;
        }
        while places.next_if(|place| *place < end).is_some() {}
        let why = "the file was given up before it could be decided";
        answer(job, Reply::Retry(Retry::not_kept(Cause::Publisher, why)));
    }
    fit
}

#[cfg(test)]
pub(crate) mod tests;
