//! Which outbox rows pass the gate now.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// The outbox rows of each lane's commit, until its end is known. They may be found in
/// the database before: who would emit and delete them then takes away the proof that
/// they were committed.
#[derive(Debug, Default)]
pub struct AtGate(Mutex<HashMap<usize, Vec<Uuid>>>);

impl AtGate {
    fn lanes(&self) -> MutexGuard<'_, HashMap<usize, Vec<Uuid>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane tries to commit these, and no others any more.
    pub(super) fn came(&self, lane: usize, rows: impl Iterator<Item = Uuid>) {
        let mut lanes = self.lanes();
        let ids = lanes.entry(lane).or_default();
        ids.clear();
        ids.extend(rows);
    }

    /// A lane knows how its commit ended, or told that it does not.
    pub(super) fn left(&self, lane: usize) {
        if let Some(ids) = self.lanes().get_mut(&lane) {
            ids.clear();
        }
    }

    /// Whether it is not known yet what became of a row.
    #[must_use]
    pub fn holds(&self, row: Uuid) -> bool {
        self.lanes().values().any(|ids| ids.contains(&row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_held_until_their_lane_leaves_or_comes_with_others() {
        let (at_gate, [a, b, c]) = (AtGate::default(), [1, 2, 3].map(Uuid::from_u128));
        at_gate.came(0, [a, b].into_iter());
        at_gate.came(1, [c].into_iter());
        assert_eq!([a, b, c].map(|row| at_gate.holds(row)), [true; 3]);
        at_gate.came(0, [b].into_iter());
        assert_eq!([a, b, c].map(|row| at_gate.holds(row)), [false, true, true]);
        at_gate.left(0);
        assert_eq!([a, b, c].map(|row| at_gate.holds(row)), [false, false, true]);
    }
}
