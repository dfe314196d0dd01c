//! From the outbox to the results service. Accepted batches come straight from the
//! lanes, still in memory; rows of a dead or released instance, and rows of its own that
//! this one has forgotten, come from the database. Each is handed over until every result
//! in it is recorded, and then deleted. Delivery is at least once; recording is idempotent.
//!
//! One organisation has at most one call in flight; what it has waiting goes
//! along in the next. A call that fails, and not because the results service is away, is
//! narrowed down to whose doing that is. A failing organisation backs off alone; when the
//! results service itself is away, everything waits.

pub mod call;
pub mod heartbeat;
pub mod measure;
pub mod queue;
mod trouble;
pub mod upkeep;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use sluice_service::backoff::{Backoff, News, Outage};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use self::{
    call::{Caller, Handed, Handover},
    queue::{GATHER_MAX, Queue, Row},
};
use crate::outbox::OutboxRow;

/// Calls to the results service at the same time.
const CALLS_MAX: usize = 4;
/// First and longest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After failing for this long, rows are given to whoever comes first.
const RELEASE_AFTER: Duration = Duration::from_secs(30);
/// For this long, rows it released are left to other instances.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(5);
/// Rows found in the database that are taken at once.
const FOUND_MANY: usize = 512;
/// How long a stopping instance goes on emitting what it has.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// The task that emits.
pub struct Emitter {
    incoming: mpsc::UnboundedReceiver<Vec<OutboxRow>>,
    found: mpsc::Receiver<Row>,
    caller: Arc<Caller>,
    done: mpsc::UnboundedSender<Uuid>,
    /// What the upkeep is told: while it does, nothing is taken over.
    emission_fails: Arc<AtomicBool>,
    queue: Queue,
    calls: JoinSet<Handed>,
    /// When the last call began.
    called: Instant,
    paused_until: Option<Instant>,
    failing_since: Option<Instant>,
    backoff: Backoff,
    outage: Outage,
}

impl Emitter {
    /// An emitter. `done` gets the ids of rows to delete; `emission_fails` is kept up to date.
    #[must_use]
    pub fn new(
        incoming: mpsc::UnboundedReceiver<Vec<OutboxRow>>,
        found: mpsc::Receiver<Row>,
        caller: Caller,
        done: mpsc::UnboundedSender<Uuid>,
        emission_fails: Arc<AtomicBool>,
    ) -> Self {
        Self {
            incoming,
            found,
            caller: Arc::new(caller),
            done,
            emission_fails,
            queue: Queue::default(),
            calls: JoinSet::new(),
            // Long ago: the first one waits for nothing.
            called: Instant::now().checked_sub(GATHER_MAX).unwrap_or_else(Instant::now),
            paused_until: None,
            failing_since: None,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            outage: Outage::default(),
        }
    }

    /// Emits until the lanes have ended, then for a little longer, and releases
    /// what is left.
    pub async fn run(mut self) {
        let mut found = Vec::new();
        loop {
            self.dispatch(true);
            // Without a place for another call, only the end of one goes on.
            let ready = if self.has_place() { self.queue.next_ready(self.gathered()) } else { None };
            let wake = self.paused_until.or(ready);
            tokio::select! {
                committed = self.incoming.recv() => match committed {
                    Some(rows) => self.take(rows),
                    None => break,
                },
                1.. = self.found.recv_many(&mut found, FOUND_MANY), if self.queue.has_room() => {
                    found.drain(..).for_each(|row| self.queue.push_back(row));
                }
                Some(handed) = self.calls.join_next() => self.finish(handed).await,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.wake(),
            }
        }
        let last_calls = async {
            loop {
                self.dispatch(false);
                match self.calls.join_next().await {
                    Some(handed) => self.finish(handed).await,
                    None => break,
                }
            }
        };
        if timeout(LAST_CALLS, last_calls).await.is_err() {
            tracing::info!("stopping with batches not yet recorded");
        }
        self.caller.release().await;
    }

    /// Goes on after a pause. Without a row of its own, only one taken over can
    /// show whether emission works again.
    fn wake(&mut self) {
        if self.paused_until.take().is_some() && self.queue.is_empty() && self.calls.is_empty() {
            self.emission_fails.store(false, Relaxed);
        }
    }

    fn take(&mut self, rows: Vec<OutboxRow>) {
        for row in rows {
            self.queue.push_back(Row::committed(row));
        }
    }

    /// While failing, one call at a time finds out whether it works again.
    fn has_place(&self) -> bool {
        self.calls.len() < if self.failing_since.is_some() { 1 } else { CALLS_MAX }
    }

    /// When enough time has passed since the last call, so that what small commits leave
    /// goes along.
    fn gathered(&self) -> Instant {
        self.called + self.queue.gather()
    }

    fn dispatch(&mut self, gathers: bool) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        while self.has_place() {
            if gathers && now < self.gathered() {
                return;
            }
            let call = self.queue.next_call(now);
            if call.rows.is_empty() {
                return;
            }
            self.called = now;
            let caller = self.caller.clone();
            self.calls.spawn(async move { caller.hand_over(call).await });
        }
    }

    async fn finish(&mut self, handed: Result<Handed, tokio::task::JoinError>) {
        let mut handed = match handed {
            Ok(handed) => handed,
            Err(error) => {
                // Its rows stay in the outbox under this owner; let go of all,
                // so that they are found again.
                tracing::error!(%error, "a hand-over broke off");
                return self.release_all().await;
            }
        };
        let is_recorded = |handover: &Option<Handover>| *handover == Some(Handover::Recorded);
        let mut recorded = handed.rows.iter().filter(|(_, handover)| is_recorded(handover));
        if recorded.try_for_each(|(row, _)| self.done.send(row.id)).is_err() {
            tracing::error!("recorded batches were left in the outbox");
        }
        let works = handed.works.take();
        self.queue.landed(handed, Instant::now());
        match works {
            Some(works) => self.note(works).await,
            // Goes on as before; if that was the last row, what is found next may tell more.
            None => drop(self.paused_until.get_or_insert_with(Instant::now)),
        }
    }

    async fn note(&mut self, works: Result<(), String>) {
        let failed = works.is_err();
        match self.outage.news(works.err()) {
            Some(News::Fails(fault)) => tracing::warn!(fault, "results not recorded"),
            Some(News::WorksAgain) => tracing::info!("batches are handed over again"),
            None => {}
        }
        self.emission_fails.store(failed, Relaxed);
        if !failed {
            self.failing_since = None;
            self.backoff.worked();
            return;
        }
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        // Calls that were under way together fail together: that is one failure.
        if self.paused_until.is_none_or(|until| until <= now) {
            self.paused_until = Some(now + self.backoff.failed());
        }
        if now.duration_since(since) > RELEASE_AFTER {
            self.failing_since = Some(now);
            self.paused_until = Some(now + LEFT_TO_OTHERS);
            self.release_all().await;
        }
    }

    async fn release_all(&mut self) {
        self.queue = Queue::default();
        // What is under way is of rows that are others' now.
        self.calls = JoinSet::new();
        self.caller.release().await;
    }
}
