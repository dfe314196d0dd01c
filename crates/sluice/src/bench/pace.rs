//! The pace of a run: when it starts to count and when it ends, how fast it goes,
//! and how much may be under way between its first stage and its last.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How long a publisher waits before it looks again for room.
const ROOM_POLL: Duration = Duration::from_millis(1);

/// When a run starts to count, when it ends, and how fast it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) measured_from: Instant,
    pub(super) end: Instant,
    /// Time between two requests of one worker; none: as fast as it goes.
    pub(super) interval: Option<Duration>,
}

impl Schedule {
    /// From now on.
    pub(super) fn new(warmup: Duration, measured: Duration, interval: Option<Duration>) -> Self {
        let start = Instant::now();
        Self { start, measured_from: start + warmup, end: start + warmup + measured, interval }
    }

    /// Whether what ends now counts.
    pub(super) fn counts(&self) -> bool {
        let now = Instant::now();
        now >= self.measured_from && now < self.end
    }
}

/// What is under way between publishing and acknowledging. With a bound on it
/// publishers can't run ahead of consumers, and so what is acknowledged per second
/// is what the whole chain can do for as long as one likes.
#[derive(Debug)]
pub(super) struct Flow {
    under_way_max: u64,
    published_max: u64,
    published: AtomicU64,
    acknowledged: AtomicU64,
    stopped: AtomicBool,
}

impl Flow {
    /// At most so many observations under way, a batch per publisher aside.
    pub(super) fn bounded(under_way_max: u64) -> Self {
        Self {
            under_way_max,
            published_max: u64::MAX,
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Without a bound: nobody acknowledges.
    pub(super) fn unbounded() -> Self {
        Self::bounded(u64::MAX)
    }

    /// The same, over when so many are published; a batch per publisher may be more.
    pub(super) fn ending_at(self, published_max: u64) -> Self {
        Self { published_max, ..self }
    }

    /// Waits until more may be published. False: it is over.
    pub(super) async fn room(&self, schedule: &Schedule) -> bool {
        loop {
            if self.is_stopped() || self.so_far() >= self.published_max || Instant::now() >= schedule.end {
                return false;
            }
            if self.under_way() <= self.under_way_max {
                return true;
            }
            tokio::time::sleep(ROOM_POLL).await;
        }
    }

    /// So many more were accepted.
    pub(super) fn publish(&self, observations: u64) {
        self.published.fetch_add(observations, Relaxed);
    }

    /// So many more were acknowledged.
    pub(super) fn acknowledge(&self, observations: u64) {
        self.acknowledged.fetch_add(observations, Relaxed);
    }

    /// Accepted up to now.
    pub(super) fn so_far(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// Accepted and not yet acknowledged.
    pub(super) fn under_way(&self) -> u64 {
        self.so_far().saturating_sub(self.acknowledged.load(Relaxed))
    }

    /// Ends it for everybody.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Waits until nothing is under way, or until `deadline` from now; what is left.
    pub(super) async fn drained(&self, deadline: Duration) -> u64 {
        let until = Instant::now() + deadline;
        while self.under_way() > 0 && Instant::now() < until {
            tokio::time::sleep(ROOM_POLL).await;
        }
        self.under_way()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn publishers_wait_for_consumers_and_end_with_the_run() {
        let schedule = Schedule::new(Duration::ZERO, Duration::from_secs(60), None);
        let flow = Flow::bounded(100);
        flow.publish(100);
        assert!(flow.room(&schedule).await);
        flow.publish(1);
        let waited = tokio::time::timeout(Duration::from_millis(20), flow.room(&schedule)).await;
        assert!(waited.is_err());
        assert_eq!(flow.drained(Duration::ZERO).await, 101);
        flow.acknowledge(101);
        assert!(flow.room(&schedule).await && flow.drained(Duration::ZERO).await == 0);
        flow.stop();
        assert!(!flow.room(&schedule).await);
        let over = Schedule::new(Duration::ZERO, Duration::ZERO, None);
        assert!(!Flow::unbounded().room(&over).await);
    }
}
