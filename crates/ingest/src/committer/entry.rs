//! The way into the lanes: what waits there, how much may, and how long it is going
//! to take.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sluice_service::{backoff::Outage, postgres::Reconnect};
use uuid::Uuid;

use super::{
    Job, Lane, LaneContext, Reply,
    lines::{Bounds, Keys, Of, Size},
    queue::{Queue, Underway},
};
use crate::{
    check::Candidate,
    outcome::{Cause, Retry},
};

/// Requests, and content bytes, that may wait for the lanes, of all organisations. Each
/// may have as much waiting as is still free. Above, callers are told to retry.
pub(super) const WAITING_JOBS_MAX: usize = 4096;
pub(super) const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most observations, and content bytes, in one transaction; a single request is never
/// split.
const BATCH_ITEMS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How much the latest commits count for in the rate that delays are told by.
const RATE_WEIGHT: f64 = 0.2;

/// The way into the lanes. Dropping it, and all its clones, ends them, once they are
/// empty.
#[derive(Clone, Debug)]
pub struct Committer(Arc<Entry>);

/// All ways into the lanes.
struct Entry(Arc<Shared>);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

/// What the lanes and the way into them share.
pub(super) struct Shared {
    pub(super) queue: Queue<Job>,
    /// How fast a lane commits.
    pub(super) rate: Rate,
    /// Each lane that has a session holds a clone.
    pub(super) sessions: Arc<()>,
}

impl Shared {
    /// What a lane commits next, and the right to do so. Jobs whose callers have gone,
    /// or whose deadlines have passed, are dropped here, and never later. `None`: no
    /// more will come.
    pub(super) async fn seal(&self, lane: usize) -> Option<(Vec<Job>, Underway<'_, Job>)> {
        let (mut jobs, underway) = self.queue.take(lane).await?;
        jobs.retain(|job| !job.reply.is_closed());
        Some((jobs, underway))
    }
}

/// Observations committed in a second, lately; as the bits of an f64.
#[derive(Default)]
pub(super) struct Rate(AtomicU64);

impl Rate {
    /// A commit took so long for so many.
    pub(super) fn committed(&self, observations: usize, took: Duration) {
        #[allow(clippy::cast_precision_loss)] // batches are small
        let now = observations as f64 / took.as_secs_f64().max(1e-6);
        let before = f64::from_bits(self.0.load(Relaxed));
        let rate = if before == 0.0 { now } else { before + RATE_WEIGHT * (now - before) };
        self.0.store(rate.to_bits(), Relaxed);
    }

    /// About how long so many will take; nothing as long as nothing is known.
    pub(super) fn estimate(&self, observations: usize) -> Duration {
        let rate = f64::from_bits(self.0.load(Relaxed));
        if rate == 0.0 {
            return Duration::ZERO;
        }
        #[allow(clippy::cast_precision_loss)]
        let seconds = observations as f64 / rate;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Committer {
    /// The committer and its lanes; spawn each lane's `run`.
    #[must_use]
    pub fn new(lanes: usize, context: &LaneContext) -> (Self, Vec<Lane>) {
        let lanes = lanes.max(1);
        let bounds = Bounds {
            jobs_max: WAITING_JOBS_MAX,
            bytes_max: WAITING_BYTES_MAX,
            batch_items_max: BATCH_ITEMS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        let shared = Arc::new(Shared {
            queue: Queue::new(bounds, lanes, context.metrics.waiting.clone()),
            rate: Rate::default(),
            sessions: Arc::default(),
        });
        let lane = |number| Lane {
            number,
            shared: shared.clone(),
            session: None,
            last: None,
            next: Uuid::now_v7(),
            reconnect: Reconnect::default(),
            outage: Outage::default(),
            context: context.clone(),
        };
        let lanes = (0..lanes).map(lane).collect();
        (Self(Arc::new(Entry(shared))), lanes)
    }

    /// Hands a job to the lanes, unless too many wait already.
    ///
    /// # Errors
    /// What to tell the caller.
    pub fn submit(&self, job: Job) -> Result<(), Retry> {
        let Shared { queue, rate, .. } = &*self.0.0;
        let Some(organisation) = job.candidates.first().map(|candidate| candidate.organisation.clone())
        else {
            super::answer(job, Reply::Decided(Vec::new()));
            return Ok(());
        };
        let (size, keys) = (size(&job), keys(&job.candidates));
        queue.push(&organisation, job, size, keys).map_err(|(full, waiting, commits)| {
            let details = match full.of {
                Of::Jobs => "too many requests wait",
                Of::Bytes => "too many bytes wait",
            };
            let cause = if full.is_its_own_doing { Cause::OrganisationQueue } else { Cause::Queue };
            // Those before are as large as this one, for all that is known.
            let estimate = rate.estimate(waiting.saturating_mul(size.items) / commits.max(1));
            Retry::not_kept_for(cause, details, estimate)
        })
    }
}

fn size(job: &Job) -> Size {
    let bytes = job.candidates.iter().map(|candidate| candidate.data.len()).sum();
    Size { items: job.candidates.len(), bytes }
}

/// One for each organisation and definition: what is of the same is committed in the
/// order it was handed in.
fn keys(candidates: &[Candidate]) -> Keys {
    let key_of = |candidate: &Candidate| {
        let mut hasher = DefaultHasher::new();
        (&candidate.organisation, &candidate.definition.draft.path).hash(&mut hasher);
        hasher.finish()
    };
    let mut keys: Keys = candidates.iter().map(key_of).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
