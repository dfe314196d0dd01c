//! What waits for each lane, and which lane takes it. A lane takes what waits for it.
//! Only in a crowd, when many jobs are outstanding and are little together, it takes
//! what waits for all lanes, and lanes commit one after the other: a transaction costs
//! far more than one observation more in it. Where there is much, or hardly anybody,
//! lanes commit at the same time.
//!
//! Who takes from a queue holds it until the commit has ended, so the jobs of a lane
//! are committed in order, whoever does it. Queues are held from the first to the
//! last, so nobody waits in a circle.

use std::{
    iter::once,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluice_service::OrganisationId;
use tokio::sync::Notify;

use crate::{
    lane_queue::{Bounds, Full, LaneQueue, Load, Size},
    metrics::LaneWaiting,
};

/// Most observations in one transaction; a single request is never split.
pub(super) const BATCH_ITEMS_MAX: usize = 1000;
/// Most content bytes in one transaction; a single request is never split.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Jobs outstanding, waiting or being committed, that make a crowd; for each lane. A
/// caller with one request at a time has one in each lane, or two, if it is back before
/// the commit that answered it has ended. So two callers are never a crowd: neither
/// waits for a commit of another lane.
const CROWD_JOBS_PER_LANE: usize = 4;
/// Most observations that are little. A transaction of more gains hardly anything by
/// growing, and takes long: then it is better if several lanes are at work.
const LITTLE_ITEMS_MAX: usize = 256;
/// Most content bytes that are little: it is they that take the time then, not the
/// transaction around them.
const LITTLE_BYTES_MAX: usize = BATCH_BYTES_MAX / 4;
// So what is little fits into one transaction, of however many lanes it is.
const _: () = assert!(LITTLE_ITEMS_MAX <= BATCH_ITEMS_MAX && LITTLE_BYTES_MAX <= BATCH_BYTES_MAX);

/// The queues of all lanes.
pub(super) struct Queues<T> {
    waiting: Mutex<Waiting<T>>,
    lanes: Box<[LaneEnd]>,
}

/// The end of a queue that jobs are taken from.
struct LaneEnd {
    /// Tells the lane of the queue that something came, or that no more will.
    wake: Notify,
    /// Held by who commits jobs of the queue.
    held: tokio::sync::Mutex<()>,
    gauges: LaneWaiting,
}

/// The queues that a lane holds.
type Held<'a> = Vec<(usize, tokio::sync::MutexGuard<'a, ()>)>;

/// A commit of jobs taken. Ends when it is dropped.
pub(super) struct Underway<'a, T> {
    queues: &'a Queues<T>,
    lane: usize,
    _held: Held<'a>,
}

impl<T> Drop for Underway<'_, T> {
    fn drop(&mut self) {
        self.queues.waiting().underway[self.lane] = Load::default();
    }
}

impl<T> Queues<T> {
    /// Empty ones, one for each lane.
    pub(super) fn new(bounds: Bounds, gauges: impl IntoIterator<Item = LaneWaiting>) -> Self {
        let end = |gauges| LaneEnd { wake: Notify::new(), held: tokio::sync::Mutex::default(), gauges };
        let lanes: Box<[_]> = gauges.into_iter().map(end).collect();
        Self { waiting: Mutex::new(Waiting::new(bounds, lanes.len())), lanes }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Appends a job for a lane.
    ///
    /// # Errors
    /// If the organisation has too much waiting there; and what waits there of all.
    pub(super) fn push(
        &self,
        lane: usize,
        organisation: &OrganisationId,
        job: T,
        size: Size,
    ) -> Result<(), (Full, Load)> {
        let LaneEnd { wake, gauges, .. } = &self.lanes[lane];
        {
            let queue = &mut self.waiting().queues[lane];
            queue.push(organisation, job, size).map_err(|full| (full, queue.waiting()))?;
        }
        gauges.add(size.bytes);
        wake.notify_one();
        Ok(())
    }

    /// No more will come: lanes end when nothing waits for them.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.lanes.iter().for_each(|lane| lane.wake.notify_one());
    }

    /// Waits for something to commit, and takes it. `None`: no more will come.
    pub(super) async fn take(&self, lane: usize) -> Option<(Vec<T>, Underway<'_, T>)> {
        loop {
            let next = self.waiting().next(lane);
            let held = match next {
                Next::End => return None,
                Next::Wait => {
                    // Whoever came since is told by a permit that is kept.
                    self.lanes[lane].wake.notified().await;
                    continue;
                }
                Next::Own => None,
                Next::All => self.hold_all_if_little(lane).await,
            };
            let held = match held {
                Some(all) => all,
                None => vec![(lane, self.lanes[lane].held.lock().await)],
            };
            // Another lane may have taken it meanwhile.
            if let Some(taken) = self.take_from(lane, held) {
                return Some(taken);
            }
        }
    }

    /// Waits for the commits of all others to end, and holds all queues. `None`: more
    /// came for this lane, and now there is so much that it need not wait for them.
    async fn hold_all_if_little(&self, lane: usize) -> Option<Held<'_>> {
        let mut all = pin!(self.hold_all());
        loop {
            tokio::select! {
                biased;
                held = &mut all => return Some(held),
                () = self.lanes[lane].wake.notified() => if !self.waiting().is_little() {
                    return None;
                },
            }
        }
    }

    async fn hold_all(&self) -> Held<'_> {
        let mut held = Vec::with_capacity(self.lanes.len());
        for (number, lane) in self.lanes.iter().enumerate() {
            held.push((number, lane.held.lock().await));
        }
        held
    }

    /// Takes from the queues held, or, if there is much in them by now, from its own. The
    /// ones that nothing was taken from are given back. `None`: nothing is there.
    fn take_from<'a>(&'a self, lane: usize, mut held: Held<'a>) -> Option<(Vec<T>, Underway<'a, T>)> {
        let mut waiting = self.waiting();
        let all = held.len() > 1 && waiting.is_little();
        let taken = waiting.take(lane, all);
        held.retain(|(queue, _)| taken.iter().any(|(from, ..)| from == queue));
        let mut jobs = Vec::new();
        for (from, its_jobs, size) in taken {
            self.lanes[from].gauges.remove(its_jobs.len(), size.bytes);
            jobs.extend(its_jobs);
        }
        (!jobs.is_empty()).then(|| (jobs, Underway { queues: self, lane, _held: held }))
    }
}

/// What a lane does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Waits until something comes.
    Wait,
    /// Takes from its own queue.
    Own,
    /// Takes from all queues, after the commits of all others.
    All,
    /// Ends.
    End,
}

/// What waits and what is being committed; who may take it is not known here.
struct Waiting<T> {
    queues: Vec<LaneQueue<T>>,
    /// What each lane commits, whomever's it is.
    underway: Vec<Load>,
    /// No more will come.
    closed: bool,
}

impl<T> Waiting<T> {
    fn new(bounds: Bounds, lanes: usize) -> Self {
        let queues = (0..lanes).map(|_| LaneQueue::new(bounds)).collect();
        Self { queues, underway: vec![Load::default(); lanes], closed: false }
    }

    /// What waits, and what is being committed, of all lanes.
    fn loads(&self) -> (Load, Load) {
        (self.queues.iter().map(LaneQueue::waiting).sum(), self.underway.iter().copied().sum())
    }

    fn next(&self, lane: usize) -> Next {
        match self.queues[lane].waiting().jobs {
            0 if self.closed => Next::End,
            0 => Next::Wait,
            _ if self.is_crowd() => Next::All,
            _ => Next::Own,
        }
    }

    fn is_crowd(&self) -> bool {
        let (waiting, underway) = self.loads();
        waiting.jobs + underway.jobs >= CROWD_JOBS_PER_LANE * self.queues.len() && self.is_little()
    }

    /// Whether it is worth it to wait for what is being committed, and then to commit
    /// all that waits at once.
    fn is_little(&self) -> bool {
        let (waiting, underway) = self.loads();
        [waiting, underway]
            .iter()
            .all(|load| load.size.items <= LITTLE_ITEMS_MAX && load.size.bytes <= LITTLE_BYTES_MAX)
    }

    /// What a lane commits now: a batch of its own, and then, if it takes all, which
    /// has to be little, all else; by the lane it waited for, without those that nothing
    /// waits for.
    fn take(&mut self, lane: usize, all: bool) -> Vec<(usize, Vec<T>, Size)> {
        let others = (0..self.queues.len()).filter(|other| all && *other != lane);
        let mut load = Load::default();
        let mut taken = Vec::new();
        for from in once(lane).chain(others) {
            let (jobs, size) = self.queues[from].take_batch();
            load = [load, Load { jobs: jobs.len(), size }].into_iter().sum();
            if !jobs.is_empty() {
                taken.push((from, jobs, size));
            }
        }
        self.underway[lane] = load;
        taken
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
