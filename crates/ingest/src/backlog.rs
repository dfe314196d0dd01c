//! How much is accepted and not yet recorded, over all replicas: what the
//! database said last, plus what this process has committed since.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The bytes in the outbox and their bound.
#[derive(Debug)]
pub struct Backlog {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Backlog {
    /// An empty backlog that is full at `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max }
    }

    /// Counts bytes just committed.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Takes the database's word.
    pub fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Relaxed);
    }

    /// Whether nothing more should be accepted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) >= self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_full_from_its_bound_on() {
        let backlog = Backlog::new(10);
        backlog.add(9);
        assert!(!backlog.is_full());
        backlog.add(1);
        assert!(backlog.is_full());
        backlog.set(3);
        assert!(!backlog.is_full());
    }
}
