//! Whether to insert as if nothing were known, which is cheaper as long as nothing
//! is, or to look first.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// After something was known, so many tries look first: what is sent again comes in
/// rows.
const WARY_FOR: u32 = 100;

/// Counts the tries that look first.
#[derive(Debug, Default)]
pub struct Wary(AtomicU32);

impl Wary {
    /// Whether the try that begins looks first.
    #[must_use]
    pub fn looks_first(&self) -> bool {
        let left = self.0.load(Relaxed);
        self.0.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    /// Something was known, or may have been.
    pub fn rouse(&self) {
        self.0.store(WARY_FOR, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_tries_look_first_and_the_next_does_not() {
        let wary = Wary::default();
        assert!(!wary.looks_first());
        wary.rouse();
        for _ in 0..WARY_FOR {
            assert!(wary.looks_first());
        }
        assert!(!wary.looks_first());
    }
}
