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

use sluice_service::postgres::Reconnect;
use uuid::Uuid;

use super::{
    Job, Lane, LaneContext, Reply,
    queues::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, Queues, Underway},
};
use crate::{
    check::Candidate,
    lane_queue::{Bounds, Full, Size},
    outcome::{Cause, Retry},
};

/// Requests, and content bytes, that may wait for a lane, of all organisations. Each
/// may have as much waiting as is still free. Above, callers are told to come again.
pub(super) const WAITING_JOBS_MAX: usize = 2048;
pub(super) const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
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
        self.0.queues.close();
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("lanes", &self.0.queues.lanes()).finish_non_exhaustive()
    }
}

/// What the lanes and the way into them share.
pub(super) struct Shared {
    pub(super) queues: Queues<Job>,
    /// How fast each lane commits, whomever's it is. Delays are told by it where there
    /// is much, and there each lane commits what waits for it and nothing else. So what
    /// one committed for all counts for that one.
    pub(super) rates: Box<[Rate]>,
}

impl Shared {
    /// What a lane commits next, and the right to do so. Jobs whose callers have gone,
    /// or whose deadlines have passed, are dropped here, and never later. `None`: no
    /// more will come.
    pub(super) async fn seal(&self, lane: usize) -> Option<(Vec<Job>, Underway<'_, Job>)> {
        let (mut jobs, underway) = self.queues.take(lane).await?;
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
            queues: Queues::new(bounds, (0..lanes).map(|number| context.metrics.lane(number))),
            rates: (0..lanes).map(|_| Rate::default()).collect(),
        });
        let lane = |number| Lane {
            number,
            shared: shared.clone(),
            session: None,
            last: None,
            next: Uuid::now_v7(),
            reconnect: Reconnect::default(),
            context: context.clone(),
        };
        let lanes = (0..lanes).map(lane).collect();
        (Self(Arc::new(Entry(shared))), lanes)
    }

    /// The lane of a candidate.
    #[must_use]
    pub fn lane_of(&self, candidate: &Candidate) -> usize {
        let mut hasher = DefaultHasher::new();
        (&candidate.organisation, &candidate.definition.draft.path).hash(&mut hasher);
        usize::try_from(hasher.finish() % self.0.0.queues.lanes() as u64).unwrap_or(0)
    }

    /// Hands a job to a lane, or gives it back if too many wait already.
    ///
    /// # Errors
    /// What to tell the caller.
    pub fn submit(&self, lane: usize, job: Job) -> Result<(), Retry> {
        let Shared { queues, rates } = &*self.0.0;
        let Some(organisation) = job.candidates.first().map(|candidate| candidate.organisation.clone())
        else {
            super::answer(job, Reply::Decided(Vec::new()));
            return Ok(());
        };
        let size = size(&job);
        queues.push(lane, &organisation, job, size).map_err(|(full, waiting)| {
            let details = match full {
                Full::Jobs => "too many requests wait",
                Full::Bytes => "too many bytes wait",
            };
            // Those before are as large as this one, for all that is known.
            let estimate = rates[lane].estimate(waiting.jobs.saturating_mul(size.items));
            Retry::not_kept_for(Cause::Queue, details, estimate)
        })
    }
}

fn size(job: &Job) -> Size {
    let bytes = job.candidates.iter().map(|candidate| candidate.data.len()).sum();
    Size { items: job.candidates.len(), bytes }
}
