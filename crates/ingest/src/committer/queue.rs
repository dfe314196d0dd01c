//! What waits for the lanes, and which lane takes what when. There is one queue; a free
//! lane takes what waits in it, may go and has room in one transaction. What must stay in
//! order does: nothing is taken beside a commit that has an organisation and definition in
//! common with it, nor what came behind it from the same organisation.
//!
//! Another lane starts a commit only when at least as many requests are ready as are
//! being committed already. So commits overlap, one working while another waits for the
//! disk, and yet they grow with the load: a transaction costs far more than one more
//! observation in it. A commit older than [`PATIENCE`] no longer holds others back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluice_service::{OrganisationId, gathered::after_the_ready};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::lines::{Bounds, Full, Keys, Lines, Sealed, Size};
use crate::metrics::LanesWaiting;

/// How long others wait for a commit before they begin beside it, whatever it is at.
const PATIENCE: Duration = Duration::from_millis(50);

/// The queue before all lanes.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Tells each lane to have a look.
    wake: Box<[Notify]>,
    gauges: LanesWaiting,
}

/// A commit of jobs taken. Ends when it is dropped.
pub(super) struct Underway<'a, T> {
    queue: &'a Queue<T>,
    lane: usize,
    keys: Keys,
}

impl<T> Drop for Underway<'_, T> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.commits[self.lane] = None;
        // Its lane has a look at what waited for them next, or leaves it to others.
        state.waiting.give_back(&self.keys);
    }
}

impl<T> Queue<T> {
    /// An empty one, before so many lanes.
    pub(super) fn new(bounds: Bounds, lanes: usize, gauges: LanesWaiting) -> Self {
        let state = State {
            waiting: Lines::new(bounds),
            commits: vec![None; lanes],
            idle: vec![false; lanes],
            woken: None,
            watch: None,
            closed: false,
        };
        Self { state: Mutex::new(state), wake: (0..lanes).map(|_| Notify::new()).collect(), gauges }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, lane: Option<usize>) {
        if let Some(lane) = lane {
            self.wake[lane].notify_one();
        }
    }

    /// Appends a job.
    ///
    /// # Errors
    /// If the organisation has too much waiting; and how many wait of all, and at how many
    /// commits the lanes are.
    pub(super) fn push(
        &self,
        organisation: &OrganisationId,
        job: T,
        size: Size,
        keys: Keys,
    ) -> Result<(), (Full, usize, usize)> {
        let lane = {
            let mut state = self.state();
            let pushed = state.waiting.push(organisation, job, size, keys);
            pushed.map_err(|full| (full, state.waiting.waiting(), state.commits.iter().flatten().count()))?;
            state.call_one(Instant::now())
        };
        self.gauges.add(size.bytes);
        self.wake(lane);
        Ok(())
    }

    /// No more will come: lanes end when nothing waits.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.iter().for_each(Notify::notify_one);
    }

    /// Calls another lane to what waits, since the one that asks takes nothing for a while.
    pub(super) fn leave_to_others(&self) {
        let other = self.state().call_one(Instant::now());
        self.wake(other);
    }

    /// Takes nothing until then, or until no more will come; whether more may.
    pub(super) async fn rest(&self, lane: usize, until: Instant) -> bool {
        while !self.state().closed {
            if timeout_at(until, self.wake[lane].notified()).await.is_err() {
                return true;
            }
        }
        false
    }

    /// Waits for something to commit, and takes it. `None`: no more will come.
    pub(super) async fn take(&self, lane: usize) -> Option<(Vec<T>, Underway<'_, T>)> {
        loop {
            let (next, other) = self.state().next(lane, Instant::now());
            self.wake(other);
            match next {
                Next::End => {
                    // Others may have waited for what this one took last.
                    self.wake.iter().for_each(Notify::notify_one);
                    return None;
                }
                // Who was told since has a permit that is kept.
                Next::Wait(until) => {
                    let told = self.wake[lane].notified();
                    match until {
                        None => told.await,
                        Some(until) => drop(timeout_at(until, told).await),
                    }
                    // What came along with what it was told of goes into the same commit.
                    after_the_ready().await;
                }
                Next::Commit(Sealed { jobs, size, keys }) => {
                    self.gauges.remove(jobs.len(), size.bytes);
                    return Some((jobs, Underway { queue: self, lane, keys }));
                }
            }
        }
    }
}

/// What a lane does next.
enum Next<T> {
    /// Waits until it is told, or until a moment at which it looks in any case.
    Wait(Option<Instant>),
    /// Commits these.
    Commit(Sealed<T>),
    /// Ends.
    End,
}

/// One lane's commit.
#[derive(Clone, Copy)]
struct Commit {
    jobs: usize,
    /// From when on nobody waits for it.
    waited_for_until: Instant,
}

/// What waits, what is being committed, and who is free.
///
/// At most one lane is woken at a time: when it looks it takes what may go and tells the next
/// of what is left, or finds that nothing is to be begun. Whoever watches is idle, too, so it
/// may be told before its time. [`State::call_one`] gives nobody only if nothing is ready or
/// somebody will look unasked: who is woken, who watches, or, where none is idle, any lane at
/// the end of its commit or rest.
struct State<T> {
    waiting: Lines<T>,
    /// Of each lane.
    commits: Vec<Option<Commit>>,
    /// Lanes that wait until they are told.
    idle: Vec<bool>,
    /// The one that was told and has not looked yet. It tells the next.
    woken: Option<usize>,
    /// The one that looks without being told, should a commit take long.
    watch: Option<usize>,
    /// No more will come.
    closed: bool,
}

impl<T> State<T> {
    /// Whether one more lane should commit what waits now; if not, when it may be so even
    /// if nothing happens.
    fn may_begin(&self, now: Instant) -> Result<(), Instant> {
        let waited_for = || self.commits.iter().flatten().filter(|commit| commit.waited_for_until > now);
        let jobs: usize = waited_for().map(|commit| commit.jobs).sum();
        if self.waiting.ready() >= jobs {
            return Ok(());
        }
        Err(waited_for().map(|commit| commit.waited_for_until).min().unwrap_or(now))
    }

    /// The lane to be told that it may have something to do: of those that are free the
    /// first, so that under a light load the same sessions stay at work.
    fn call_one(&mut self, now: Instant) -> Option<usize> {
        let is_seen_to = self.watch.is_some() && self.may_begin(now).is_err();
        if self.woken.is_some() || self.waiting.ready() == 0 || is_seen_to {
            return None;
        }
        self.woken = self.idle.iter().position(|idle| *idle);
        self.woken
    }

    /// What a lane does now, and which other one has to be told of what is left.
    fn next(&mut self, lane: usize, now: Instant) -> (Next<T>, Option<usize>) {
        self.idle[lane] = false;
        self.woken.take_if(|woken| *woken == lane);
        self.watch.take_if(|watch| *watch == lane);
        if self.closed && self.waiting.waiting() == 0 {
            return (Next::End, None);
        }
        let mut until = None;
        if self.waiting.ready() > 0 {
            match self.may_begin(now) {
                Ok(()) => {
                    let batch = self.waiting.take_batch();
                    if !batch.jobs.is_empty() {
                        let commit = Commit { jobs: batch.jobs.len(), waited_for_until: now + PATIENCE };
                        self.commits[lane] = Some(commit);
                        return (Next::Commit(batch), self.call_one(now));
                    }
                }
                Err(then) => until = Some(then),
            }
        }
        self.idle[lane] = true;
        let until = until.filter(|_| self.watch.is_none());
        if until.is_some() {
            self.watch = Some(lane);
        }
        (Next::Wait(until), None)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
