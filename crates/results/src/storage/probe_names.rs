//! The names that probes of a store write under.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

/// How long after it was given up a removal may still come to pass, at most.
const REMOVAL_LATE_MAX: Duration = Duration::from_secs(60 * 60);

/// Names that probes wrote under and that none uses now, and from when on each may be used.
#[derive(Clone, Debug, Default)]
pub struct FreeNames(Arc<Mutex<Vec<(Instant, Uuid)>>>);

/// The name of a probe. It goes to a later one, however this one ends: what can't be
/// removed is overwritten.
pub struct ProbeName {
    pub name: Uuid,
    /// Whether a removal was begun that was not answered: it may still come to pass.
    pub is_removing: bool,
    free: FreeNames,
}

impl FreeNames {
    /// One that is free, or a new one.
    pub fn take(&self) -> ProbeName {
        let (mut names, now) = (self.names(), Instant::now());
        let place = names.iter().position(|(from, _)| *from <= now);
        let name = place.map_or_else(Uuid::now_v7, |place| names.swap_remove(place).1);
        ProbeName { name, is_removing: false, free: self.clone() }
    }

    fn names(&self) -> MutexGuard<'_, Vec<(Instant, Uuid)>> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProbeName {
    fn drop(&mut self) {
        let rest = if self.is_removing { REMOVAL_LATE_MAX } else { Duration::ZERO };
        self.free.names().push((Instant::now() + rest, self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_used_again_unless_it_may_still_be_removed() {
        let names = FreeNames::default();
        let first = names.take();
        let (name, other) = (first.name, names.take());
        assert_ne!(name, other.name, "both are in use");
        drop(first);
        let mut again = names.take();
        assert_eq!(again.name, name);
        // As when its caller left in the middle.
        again.is_removing = true;
        drop(again);
        assert_ne!(names.take().name, name);
        assert_eq!(names.names().len(), 2);
    }
}
