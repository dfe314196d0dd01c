//! Answers that wait for their callers to read. Who reads nothing for too long, and
//! would keep its request's place for ever, loses the connection. Nothing of an answer
//! runs while there is no room for more of it on the connection, so that it is the
//! connection that looks after them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Answers are told apart by in which of so many ticks they began to wait.
const TICKS: usize = 4;

/// The answers of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalls(Arc<Ticks>);

#[derive(Debug, Default)]
struct Ticks {
    now: AtomicUsize,
    waiting: [AtomicUsize; TICKS],
}

impl Stalls {
    /// Ends when an answer has waited for so long, or up to a third longer.
    pub(crate) async fn stuck(&self, pause_max: Duration) {
        let tick = pause_max / (TICKS - 1) as u32;
        loop {
            tokio::time::sleep(tick).await;
            let next = (self.0.now.load(Relaxed) + 1) % TICKS;
            // Those of this tick began before all others.
            if self.0.waiting[next].load(Relaxed) > 0 {
                return;
            }
            self.0.now.store(next, Relaxed);
        }
    }

    /// An answer waits from now on.
    pub(crate) fn begin(&self) -> Stall {
        let tick = self.0.now.load(Relaxed);
        self.0.waiting[tick].fetch_add(1, Relaxed);
        Stall { ticks: self.0.clone(), tick }
    }
}

/// An answer that waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Stall {
    ticks: Arc<Ticks>,
    tick: usize,
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.ticks.waiting[self.tick].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const MAX: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_too_long_is_found_and_others_are_not() {
        let stalls = Stalls::default();
        // One after the other, each for less than that.
        let brief = async {
            loop {
                let _stall = stalls.begin();
                sleep(MAX - Duration::from_secs(1)).await;
            }
        };
        let quiet = timeout(MAX * 20, async { tokio::join!(stalls.stuck(MAX), brief) });
        assert!(quiet.await.is_err(), "nothing is stuck");

        let stalls = Stalls::default();
        let since = Instant::now();
        let _stall = stalls.begin();
        stalls.stuck(MAX).await;
        assert!((MAX..=MAX * 4 / 3).contains(&since.elapsed()), "{:?}", since.elapsed());
    }
}
