//! The policy of publishing, top to bottom: check, hand to the committer,
//! answer. Both surfaces call it.

use std::{collections::HashMap, sync::Arc};

use sluice_service::{Error, trace::Origin};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backlog::Backlog,
    check::{Checked, Request, check, work},
    committer::{Committer, Job, Reply},
    observation::{Batch, Limits},
    outcome::{Outcome, Retry},
    registry::{Registry, Snapshot},
    tally::{Taken, Tally},
};

/// How often a batch is checked again because definitions changed meanwhile.
const ROUNDS_MAX: u32 = 8;
/// Checks of more work than this, some milliseconds, are done off the threads that
/// serve everybody.
const INLINE_WORK_MAX: u64 = 4 * 1024 * 1024;

/// Publishes batches.
#[derive(Clone, Debug)]
pub struct Publisher {
    registry: Registry,
    committer: Committer,
    backlog: Arc<Backlog>,
    limits: Limits,
    tally: Tally,
}

/// One observation's way to its outcome within a batch.
struct Submitted {
    index: usize,
    id: Uuid,
    etag: String,
    bytes: usize,
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
    taken: Taken,
    outcomes: Vec<Option<Outcome>>,
    underway: Vec<Underway>,
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
        Self { registry, committer, backlog, limits, tally }
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
        let outcomes = vec![None; batch.observations.len()];
        let request = Arc::new(Request { batch, poll: Uuid::now_v7().to_string(), limits: self.limits });
        let taken = self.tally.take_in(&request);
        let mut pending = Pending { publisher: self.clone(), request, taken, outcomes, underway: Vec::new() };
        pending.round(self.registry.snapshot()).await?;
        Ok(pending)
    }
}

impl Pending {
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
                Ok(definitions) => self.round(definitions).await?,
                Err(_) => break,
            }
        }
        self.collect().await?;
        let undecided = || Outcome::Retry(Retry::not_kept("the definitions keep changing or can't be read"));
        let outcomes: Vec<_> =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(undecided)).collect();
        self.taken.settled(&outcomes);
        Ok(outcomes)
    }

    /// One round: check what is undecided, answer what is at fault, hand the
    /// rest to the lanes.
    async fn round(&mut self, definitions: Arc<Snapshot>) -> Result<(), Error> {
        let mut definitions = definitions;
        let undecided: Vec<usize> =
            (0..self.outcomes.len()).filter(|i| self.outcomes[*i].is_none()).collect();
        let mut checked = self.check(&undecided, &definitions).await?;
        // A fault that a change of definitions could take away is told only
        // after a look at the database that began after the request arrived.
        let doubtful =
            |checked: &Checked| matches!(checked, Checked::Fault(fault, _) if fault.depends_on_definition);
        if checked.iter().any(doubtful) {
            match self.publisher.registry.refresh().await {
                Ok(fresh) if fresh.revision() == definitions.revision() => {}
                Ok(fresh) => {
                    definitions = fresh;
                    checked = self.check(&undecided, &definitions).await?;
                }
                Err(_) => {
                    for (index, _) in undecided.iter().zip(&checked).filter(|(_, c)| doubtful(c)) {
                        let retry = Retry::not_kept("the definitions can't be read now");
                        self.outcomes[*index] = Some(Outcome::Retry(retry));
                    }
                }
            }
        }
        self.submit(&undecided, checked, definitions.revision());
        Ok(())
    }

    #[tracing::instrument(skip_all, fields(observations = indexes.len()))]
    async fn check(&self, indexes: &[usize], definitions: &Arc<Snapshot>) -> Result<Vec<Checked>, Error> {
        if work(&self.request, definitions) <= INLINE_WORK_MAX {
            return Ok(check(&self.request, indexes, definitions, || true));
        }
        let (request, indexes, definitions) = (self.request.clone(), indexes.to_vec(), definitions.clone());
        // A caller who has gone, for example past the deadline, ends it.
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        let checking = tokio::task::spawn_blocking(move || {
            check(&request, &indexes, &definitions, || !gone.is_cancelled())
        });
        checking.await.map_err(Error::internal)
    }

    fn submit(&mut self, indexes: &[usize], checked: Vec<Checked>, revision: i64) {
        let committer = self.publisher.committer.clone();
        let mut lanes: HashMap<usize, (Vec<Submitted>, Vec<_>)> = HashMap::new();
        for (&index, checked) in indexes.iter().zip(checked) {
            if self.outcomes[index].is_some() {
                continue;
            }
            match checked {
                Checked::Fault(fault, etag) => self.outcomes[index] = Some(Outcome::Error { fault, etag }),
                Checked::Candidate(candidate) => {
                    let (submitted, candidates) = lanes.entry(committer.lane_of(&candidate)).or_default();
                    submitted.push(Submitted {
                        index,
                        id: candidate.id,
                        etag: candidate.definition.etag.clone(),
                        bytes: candidate.data.len(),
                    });
                    candidates.push(*candidate);
                }
            }
        }
        for (lane, (submitted, candidates)) in lanes {
            let (reply, answer) = oneshot::channel();
            let handed_in = if self.publisher.backlog.is_full() {
                Err(Retry::not_kept("too much is accepted and not yet recorded"))
            } else {
                committer.submit(lane, Job { candidates, revision, reply, origin: Origin::current() })
            };
            match handed_in {
                Ok(()) => self.underway.push(Underway { submitted, reply: answer }),
                Err(retry) => self.settle(submitted, &Outcome::Retry(retry)),
            }
        }
    }

    /// Takes the answers of all jobs under way.
    async fn collect(&mut self) -> Result<(), Error> {
        for job in std::mem::take(&mut self.underway) {
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
        }
        Ok(())
    }

    fn settle(&mut self, submitted: Vec<Submitted>, outcome: &Outcome) {
        for Submitted { index, .. } in submitted {
            self.outcomes[index] = Some(outcome.clone());
        }
    }
}
