//! The policy of publishing, top to bottom: check, hand to the committer,
//! answer. Both surfaces call it.

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use sluice_service::{Error, OrganisationId, metrics::Gauge, rations::Rations, shares::Owner, trace::Origin};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backlog::Backlog,
    check::{Candidate, Checked, Request, check, work},
    committer::{Committer, Job, Reply},
    observation::{Batch, Limits, Observation},
    outcome::{Cause, Outcome, Retry},
    registry::{Registry, Snapshot},
    tally::{Taken, Tally},
};

/// How often a batch is checked again because definitions changed meanwhile.
const ROUNDS_MAX: u32 = 8;
/// Checks that may take longer than this, in nanoseconds, are done off the threads that
/// serve everybody.
const INLINE_WORK_MAX: u64 = 4_000_000;
/// How long a batch's turn at such a check is, but for the observation that is being
/// checked then; the next one begins when the others who wait have had theirs.
const TURN: Duration = Duration::from_secs(1);

/// Publishes batches.
#[derive(Clone, Debug)]
pub struct Publisher {
    registry: Registry,
    committer: Committer,
    backlog: Arc<Backlog>,
    limits: Limits,
    tally: Tally,
    /// At checks that keep a processor busy for long.
    turns: Arc<Rations>,
}

/// One observation's way to its outcome within a batch.
struct Submitted {
    index: usize,
    id: Uuid,
    etag: String,
    bytes: u64,
}

/// A job under way.
struct Underway {
    submitted: Vec<Submitted>,
    reply: oneshot::Receiver<Reply>,
}

/// A batch whose first round has been handed to the lanes.
pub struct Pending {
    publisher: Publisher,
    request: Arc<Request>,
    /// Counts the outcomes; absent where somebody else does.
    taken: Option<Taken>,
    outcomes: Vec<Option<Outcome>>,
    underway: Option<Underway>,
}

impl Publisher {
    /// A publisher.
    #[must_use]
    pub fn new(
        registry: Registry,
        committer: Committer,
        backlog: Arc<Backlog>,
        limits: Limits,
        tally: Tally,
    ) -> Self {
        // Requests under way are told by the observer.
        let turns = Rations::new(available_parallelism().map_or(1, usize::from), Gauge::default());
        Self { registry, committer, backlog, limits, tally, turns }
    }

    /// Turns at checks that take long: as many at a time as there are processors, and those
    /// of one organisation so that it delays nobody's but its own.
    #[must_use]
    pub fn turns(&self) -> Arc<Rations> {
        self.turns.clone()
    }

    /// The bounds on requests.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks a batch and hands it to the lanes; [`Pending::finish`] has the
    /// outcomes. Batches begun one after the other are decided in that order.
    ///
    /// # Errors
    /// INTERNAL if the service is at fault.
    pub async fn begin(&self, batch: Batch) -> Result<Pending, Error> {
        let mut pending = Pending::new(self, batch);
        pending.taken = Some(self.tally.take_in(&pending.request));
        pending.round(None).await?;
        Ok(pending)
    }

    /// Counts an observation that is published in several steps. Keep what is
    /// returned until its outcome is there.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it can be no request.
    pub fn take_in(&self, organisation: &OrganisationId, observation: &Observation) -> Result<Taken, Error> {
        Ok(self.tally.take_in(&self.one(organisation, observation.clone())?.request))
    }

    /// A batch of one.
    fn one(&self, organisation: &OrganisationId, observation: Observation) -> Result<Pending, Error> {
        let batch = Batch::new(organisation.clone(), String::new(), vec![observation], &self.limits)?;
        Ok(Pending::new(self, batch))
    }

    /// Checks one observation and goes no further: what the gate would decide on,
    /// or the outcome it has already. By the definitions at hand.
    ///
    /// # Errors
    /// INTERNAL if the service is at fault.
    pub async fn check_only(
        &self,
        organisation: &OrganisationId,
        observation: Observation,
    ) -> Result<Result<Box<Candidate>, Outcome>, Error> {
        self.check_by(None, organisation, observation).await
    }

    /// The same by the definitions as they are now: for what is settled by them before
    /// the gate compares.
    ///
    /// # Errors
    /// UNAVAILABLE if they can't be read now; INTERNAL if the service is at fault.
    pub async fn check_anew(
        &self,
        organisation: &OrganisationId,
        observation: Observation,
    ) -> Result<Result<Box<Candidate>, Outcome>, Error> {
        self.check_by(Some(self.registry.refresh().await?), organisation, observation).await
    }

    async fn check_by(
        &self,
        fresh: Option<Arc<Snapshot>>,
        organisation: &OrganisationId,
        observation: Observation,
    ) -> Result<Result<Box<Candidate>, Outcome>, Error> {
        let mut pending = self.one(organisation, observation)?;
        let (mut checked, _) = pending.checked(&[0], fresh).await?;
        if let Some(outcome) = pending.outcomes.pop().flatten() {
            return Ok(Err(outcome));
        }
        match checked.pop() {
            Some(Checked::Candidate(candidate)) => Ok(Ok(candidate)),
            Some(Checked::Fault(fault, etag)) => Ok(Err(Outcome::Error { fault, etag })),
            None => Err(Error::internal("an observation was not checked")),
        }
    }

    /// Publishes one observation that is counted already (see [`Self::take_in`]).
    ///
    /// # Errors
    /// INTERNAL if the service is at fault.
    pub async fn publish_one(
        &self,
        organisation: &OrganisationId,
        observation: Observation,
    ) -> Result<Outcome, Error> {
        let mut pending = self.one(organisation, observation)?;
        pending.round(None).await?;
        let mut outcomes = pending.finish().await?;
        outcomes.pop().ok_or_else(|| Error::internal("an observation has no outcome"))
    }

    /// Why nothing more of an organisation is accepted now, if so.
    #[must_use]
    pub fn refuses(&self, organisation: &OrganisationId) -> Option<Retry> {
        let full = self.backlog.is_full(organisation)?;
        Some(Retry::not_kept_for(full.cause, full.why, full.estimate))
    }
}

impl Pending {
    fn new(publisher: &Publisher, batch: Batch) -> Self {
        let outcomes = vec![None; batch.observations.len()];
        let request = Request { batch, poll: Uuid::now_v7().to_string(), limits: publisher.limits };
        let request = Arc::new(request);
        Self { publisher: publisher.clone(), request, taken: None, outcomes, underway: None }
    }

    /// Waits for the lanes; checks and hands in again what they found stale.
    /// One outcome per observation, in order; what is accepted is durable.
    ///
    /// # Errors
    /// INTERNAL if the service is at fault.
    pub async fn finish(mut self) -> Result<Vec<Outcome>, Error> {
        for _ in 0..ROUNDS_MAX {
            self.collect().await?;
            if self.outcomes.iter().all(Option::is_some) {
                break;
            }
            match self.publisher.registry.refresh().await {
                Ok(fresh) => self.round(Some(fresh)).await?,
                Err(_) => break,
            }
        }
        self.collect().await?;
        let why = "the definitions keep changing or can't be read";
        let undecided = || Outcome::Retry(Retry::not_kept(Cause::Database, why));
        let outcomes: Vec<_> =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(undecided)).collect();
        if let Some(taken) = self.taken {
            taken.settled(&outcomes);
        }
        Ok(outcomes)
    }

    /// One round: check what is undecided, answer what is at fault, hand the
    /// rest to the lanes.
    async fn round(&mut self, fresh: Option<Arc<Snapshot>>) -> Result<(), Error> {
        let undecided: Vec<usize> =
            (0..self.outcomes.len()).filter(|i| self.outcomes[*i].is_none()).collect();
        let (checked, revision) = self.checked(&undecided, fresh).await?;
        self.submit(&undecided, checked, revision);
        Ok(())
    }

    /// What the check says of each, and the revision it goes by: of `fresh` definitions, the
    /// look at which began after the request arrived, or of those at hand. Who can't be
    /// checked now has an outcome afterwards.
    async fn checked(
        &mut self,
        undecided: &[usize],
        fresh: Option<Arc<Snapshot>>,
    ) -> Result<(Vec<Checked>, i64), Error> {
        let is_fresh = fresh.is_some();
        let mut definitions = fresh.unwrap_or_else(|| self.publisher.registry.snapshot());
        let mut checked = self.check(undecided, &definitions).await?;
        // A fault that a change of definitions could take away is told only
        // after such a look.
        let may_be_stale =
            |checked: &Checked| matches!(checked, Checked::Fault(fault, _) if fault.depends_on_definition);
        if !is_fresh && checked.iter().any(may_be_stale) {
            match self.publisher.registry.refresh().await {
                Ok(fresh) if fresh.revision() == definitions.revision() => {}
                Ok(fresh) => {
                    definitions = fresh;
                    checked = self.check(undecided, &definitions).await?;
                }
                Err(_) => {
                    for (index, _) in undecided.iter().zip(&checked).filter(|(_, c)| may_be_stale(c)) {
                        let retry = Retry::not_kept(Cause::Database, "the definitions can't be read now");
                        self.outcomes[*index] = Some(Outcome::Retry(retry));
                    }
                }
            }
        }
        Ok((checked, definitions.revision()))
    }

    #[tracing::instrument(skip_all, fields(observations = indexes.len()))]
    async fn check(&self, indexes: &[usize], definitions: &Arc<Snapshot>) -> Result<Vec<Checked>, Error> {
        if work(&self.request, definitions) <= INLINE_WORK_MAX {
            return Ok(check(&self.request, indexes, definitions, |_| true));
        }
        // A caller who has gone, for example past the deadline, ends it.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let owner = Owner::from(&self.request.batch.organisation);
        let mut checked = Vec::with_capacity(indexes.len());
        while checked.len() < indexes.len() {
            let turn = self.publisher.turns.take(&owner, 1).await;
            let rest = indexes[checked.len()..].to_vec();
            let (request, definitions, gone) = (self.request.clone(), definitions.clone(), gone.clone());
            let checking = tokio::task::spawn_blocking(move || {
                let (_turn, begun) = (turn, Instant::now());
                let goes_on = |done| !gone.is_cancelled() && (done == 0 || begun.elapsed() < TURN);
                check(&request, &rest, &definitions, goes_on)
            });
            checked.extend(checking.await.map_err(Error::internal)?);
        }
        Ok(checked)
    }

    fn submit(&mut self, indexes: &[usize], checked: Vec<Checked>, revision: i64) {
        let (mut submitted, mut candidates) = (Vec::new(), Vec::new());
        for (&index, checked) in indexes.iter().zip(checked) {
            if self.outcomes[index].is_some() {
                continue;
            }
            match checked {
                Checked::Fault(fault, etag) => self.outcomes[index] = Some(Outcome::Error { fault, etag }),
                Checked::Candidate(candidate) => {
                    submitted.push(Submitted {
                        index,
                        id: candidate.id,
                        etag: candidate.definition.etag.clone(),
                        bytes: candidate.bytes(),
                    });
                    candidates.push(*candidate);
                }
            }
        }
        if submitted.is_empty() {
            return;
        }
        let (reply, answer) = oneshot::channel();
        let handed_in = match self.publisher.refuses(&self.request.batch.organisation) {
            Some(retry) => Err(retry),
            None => {
                let origin = Origin::current();
                self.publisher.committer.submit(Job { candidates, revision, reply, origin })
            }
        };
        match handed_in {
            Ok(()) => self.underway = Some(Underway { submitted, reply: answer }),
            Err(retry) => self.settle(submitted, &Outcome::Retry(retry)),
        }
    }

    /// Takes the answer of the job under way, if there is one.
    async fn collect(&mut self) -> Result<(), Error> {
        let Some(job) = self.underway.take() else { return Ok(()) };
        match job.reply.await {
            Ok(Reply::Decided(decisions)) => {
                for (submitted, decision) in job.submitted.into_iter().zip(decisions) {
                    let Submitted { index, id, etag, bytes } = submitted;
                    self.outcomes[index] = Some(Outcome::Decided { decision, id, etag, bytes });
                }
            }
            Ok(Reply::Stale) => {}
            Ok(Reply::Retry(retry)) => self.settle(job.submitted, &Outcome::Retry(retry)),
            Ok(Reply::Failed(error)) => return Err(error),
            // The lane broke off in the middle of its work.
            Err(_) => self.settle(job.submitted, &Outcome::Retry(Retry::outcome_unknown())),
        }
        Ok(())
    }

    fn settle(&mut self, submitted: Vec<Submitted>, outcome: &Outcome) {
        for Submitted { index, .. } in submitted {
            self.outcomes[index] = Some(outcome.clone());
        }
    }
}
