//! When a session that is always there may be opened again: at once when it
//! broke, later and later while the database can't be reached.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Rest;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Tries at opening one session. The rests between them differ, so that the
/// replicas of a service don't all come at the same moment to a database that is
/// back.
#[derive(Debug)]
pub struct Reconnect(Rest);

impl Default for Reconnect {
    fn default() -> Self {
        Self(Rest::new(FIRST, LONGEST))
    }
}

impl Reconnect {
    /// Whether it is too early for the next try.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.0.lasts(Instant::now())
    }

    /// The same, and until when.
    #[must_use]
    pub fn rests_until(&self) -> Option<Instant> {
        self.0.until().filter(|_| self.is_resting())
    }

    /// Takes note of how a try ended, and hands that on.
    ///
    /// # Errors
    /// The try's.
    pub fn tried<T, E>(&mut self, opened: Result<T, E>) -> Result<T, E> {
        match &opened {
            Ok(_) => self.0.worked(),
            Err(_) => self.0.failed(Instant::now()),
        }
        opened
    }
}
