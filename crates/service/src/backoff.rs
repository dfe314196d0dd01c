//! How long to wait before something is tried again: longer each time, up to a
//! bound, and never as long as somebody else.

use std::time::Duration;

/// Waits that double from a first to a longest one.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// One more failure: how long to wait now, between half of the bound that has
    /// been reached and all of it.
    #[must_use]
    pub fn failed(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: the next wait is the first again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_differ_and_begin_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(1000));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.failed();
            assert!((millis(bound / 2)..=millis(bound)).contains(&wait), "{wait:?} for {bound}");
        }
        backoff.worked();
        assert!(backoff.failed() <= millis(100));
        let longest = |_| {
            let mut backoff = Backoff { failures: 64, ..Backoff::new(millis(100), millis(1000)) };
            backoff.failed()
        };
        let waits: Vec<_> = (0..50).map(longest).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
