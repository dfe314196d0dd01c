//! The way into the lanes: what waits there, how much may, and how long it is going
//! to take.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sluice_service::postgres::Reconnect;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Job, Lane, LaneContext, Reply};
use crate::{
    check::Candidate,
    lane_queue::{Bounds, Full, LaneQueue, Size},
    metrics::LaneWaiting,
    outcome::Retry,
};

/// Most observations in one transaction; a single request is never split.
const BATCH_ITEMS_MAX: usize = 1000;
/// Most content bytes in one transaction; a single request is never split.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests, and content bytes, that may wait for a lane, of all organisations. Each
/// may have as much waiting as is still free. Above, callers are told to come again.
pub(super) const WAITING_JOBS_MAX: usize = 2048;
pub(super) const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much the latest commits count for in the rate that delays are told by.
const RATE_WEIGHT: f64 = 0.2;

/// The way into the lanes. Dropping it, and all its clones, ends them, once they are
/// empty.
#[derive(Clone, Debug)]
pub struct Committer {
    lanes: Arc<[Entry]>,
}

/// The way into one lane.
#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    waiting: LaneWaiting,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.queue().1 = true;
        self.shared.wake.notify_one();
    }
}

/// What a lane and the way into it share.
pub(super) struct Shared {
    /// What waits, and whether no more will come.
    queue: Mutex<(LaneQueue<Job>, bool)>,
    pub(super) wake: Notify,
    /// Observations committed in a second, lately; as the bits of an f64.
    rate: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("waiting", &self.queue().0.waiting()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        let bounds = Bounds {
            jobs_max: WAITING_JOBS_MAX,
            bytes_max: WAITING_BYTES_MAX,
            batch_items_max: BATCH_ITEMS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
        };
        let queue = Mutex::new((LaneQueue::new(bounds), false));
        Arc::new(Self { queue, wake: Notify::new(), rate: AtomicU64::new(0) })
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, (LaneQueue<Job>, bool)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit took so long for so many.
    pub(super) fn committed(&self, observations: usize, took: Duration) {
        #[allow(clippy::cast_precision_loss)] // batches are small
        let now = observations as f64 / took.as_secs_f64().max(1e-6);
        let before = f64::from_bits(self.rate.load(Relaxed));
        let rate = if before == 0.0 { now } else { before + RATE_WEIGHT * (now - before) };
        self.rate.store(rate.to_bits(), Relaxed);
    }

    /// About how long so many will take; nothing as long as nothing is known.
    pub(super) fn estimate(&self, observations: usize) -> Duration {
        let rate = f64::from_bits(self.rate.load(Relaxed));
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
        let (entries, lanes): (Vec<_>, _) = (0..lanes.max(1))
            .map(|number| {
                let waiting = context.metrics.lane(number);
                let shared = Shared::new();
                let entry = Entry { shared: shared.clone(), waiting: waiting.clone() };
                (
                    entry,
                    Lane {
                        number,
                        shared,
                        waiting,
                        session: None,
                        last: None,
                        next: Uuid::now_v7(),
                        reconnect: Reconnect::default(),
                        context: context.clone(),
                    },
                )
            })
            .unzip();
        (Self { lanes: entries.into() }, lanes)
    }

    /// The lane of a candidate.
    #[must_use]
    pub fn lane_of(&self, candidate: &Candidate) -> usize {
        let mut hasher = DefaultHasher::new();
        (&candidate.organisation, &candidate.definition.draft.path).hash(&mut hasher);
        usize::try_from(hasher.finish() % self.lanes.len() as u64).unwrap_or(0)
    }

    /// Hands a job to a lane, or gives it back if too many wait already.
    ///
    /// # Errors
    /// What to tell the caller.
    pub fn submit(&self, lane: usize, job: Job) -> Result<(), Retry> {
        let Entry { shared, waiting } = &self.lanes[lane];
        let Some(organisation) = job.candidates.first().map(|candidate| candidate.organisation.clone())
        else {
            super::answer(job, Reply::Decided(Vec::new()));
            return Ok(());
        };
        let size = size(&job);
        let pushed = {
            let (queue, _) = &mut *shared.queue();
            queue.push(&organisation, job, size).map_err(|full| (full, queue.waiting().0))
        };
        match pushed {
            Ok(()) => {
                waiting.add(size.bytes);
                shared.wake.notify_one();
                Ok(())
            }
            Err((full, jobs)) => {
                let details = match full {
                    Full::Jobs => "too many requests wait",
                    Full::Bytes => "too many bytes wait",
                };
                // Those before are as large as this one, for all that is known.
                Err(Retry::not_kept_for(details, shared.estimate(jobs.saturating_mul(size.items))))
            }
        }
    }
}

fn size(job: &Job) -> Size {
    let bytes = job.candidates.iter().map(|candidate| candidate.data.len()).sum();
    Size { items: job.candidates.len(), bytes }
}
