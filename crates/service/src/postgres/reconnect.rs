//! When a session that is always there may be opened again: at once when it
//! broke, later and later while the database can't be reached.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Tries at opening one session. Jittered, so that the replicas of a service don't
/// all come at the same moment to a database that is back.
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST, LONGEST), not_before: None }
    }
}

impl Reconnect {
    /// Whether it is too early for the next try.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.not_before.is_some_and(|at| Instant::now() < at)
    }

    /// A session could not be opened.
    pub fn failed(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff.failed());
    }

    /// A session is open.
    pub fn worked(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rests_after_failures_only_and_never_longer_than_the_bound() {
        let mut reconnect = Reconnect::default();
        assert!(!reconnect.is_resting());
        for _ in 0..20 {
            reconnect.failed();
            assert!(reconnect.is_resting());
            tokio::time::advance(LONGEST).await;
            assert!(!reconnect.is_resting());
        }
        reconnect.failed();
        tokio::time::advance(LONGEST / 3).await;
        assert!(reconnect.is_resting(), "the waits have grown");
        reconnect.worked();
        assert!(!reconnect.is_resting());
        reconnect.failed();
        tokio::time::advance(FIRST).await;
        assert!(!reconnect.is_resting(), "and begin anew");
    }
}
