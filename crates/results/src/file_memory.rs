//! The memory of the whole process for files on their way into storage: whoever gathers a
//! part of one takes room for all of it before, so that a part that was begun can always be
//! finished, and waits while there is none. Each organisation may have as much as is still
//! free, so that one whose files are slow leaves room for the others.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluice_service::{OrganisationId, metrics::Gauge, shares::Shares};
use tokio::{sync::oneshot, time::timeout};

/// All of it. One per process.
#[derive(Debug)]
pub struct FileMemory {
    bytes_max: usize,
    state: Mutex<State>,
    in_flight: Gauge,
}

#[derive(Debug, Default)]
struct State {
    taken: Shares<OrganisationId>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    organisation: OrganisationId,
    bytes: usize,
    granted: oneshot::Sender<Room>,
}

impl FileMemory {
    /// So many bytes; those taken are told.
    #[must_use]
    pub fn new(bytes_max: usize, in_flight: Gauge) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default(), in_flight })
    }

    /// Room for so many bytes of an organisation's file, as soon as there is, in the order
    /// in which its files ask; for the only one there is in any case, so that nothing waits
    /// for ever. `None` if there was none for so long.
    pub async fn room(
        self: &Arc<Self>,
        organisation: &OrganisationId,
        bytes: usize,
        patience: Duration,
    ) -> Option<Room> {
        let (granted, room) = oneshot::channel();
        self.state().waiting.push_back(Waiting { organisation: organisation.clone(), bytes, granted });
        self.share_out();
        timeout(patience, room).await.ok()?.ok()
    }

    /// Gives room to those who wait and whom there is some for.
    #[allow(clippy::cast_possible_wrap)] // what is in memory fits an i64
    fn share_out(self: &Arc<Self>) {
        let mut left = Vec::new();
        let mut state = self.state();
        let mut passed_over = HashSet::new();
        for Waiting { organisation, bytes, granted } in std::mem::take(&mut state.waiting) {
            if granted.is_closed() {
                continue;
            }
            if passed_over.contains(&organisation) || !self.is_room(&state.taken, &organisation, bytes) {
                passed_over.insert(organisation.clone());
                state.waiting.push_back(Waiting { organisation, bytes, granted });
                continue;
            }
            state.taken.add(organisation.clone(), bytes);
            left.extend(granted.send(Room { memory: self.clone(), organisation, bytes }).err());
        }
        self.in_flight.set(state.taken.all() as i64);
        // Those of who has left meanwhile go to others.
        drop(state);
        drop(left);
    }

    fn is_room(&self, taken: &Shares<OrganisationId>, organisation: &OrganisationId, bytes: usize) -> bool {
        let free = self.bytes_max.saturating_sub(taken.all());
        taken.all() == 0 || taken.of(organisation).saturating_add(bytes) <= free
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers are whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a part of a file. Given back when dropped.
#[derive(Debug)]
pub struct Room {
    memory: Arc<FileMemory>,
    organisation: OrganisationId,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.state().taken.remove(&self.organisation, self.bytes);
        self.memory.share_out();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(450);

    fn organisations() -> [OrganisationId; 3] {
        ["acme", "globex", "initech"].map(|name| name.parse().unwrap())
    }

    fn memory(bytes_max: usize) -> Arc<FileMemory> {
        FileMemory::new(bytes_max, Gauge::default())
    }

    /// As many rooms of one size as there are now.
    fn all_of(memory: &Arc<FileMemory>, organisation: &OrganisationId, bytes: usize) -> Vec<Room> {
        let one = || memory.room(organisation, bytes, PATIENCE).now_or_never().flatten();
        std::iter::from_fn(one).collect()
    }

    #[tokio::test]
    async fn each_organisation_has_up_to_as_much_as_is_free() {
        let [acme, globex, initech] = organisations();
        let memory = memory(160);
        let (first, second) = (all_of(&memory, &acme, 10), all_of(&memory, &globex, 10));
        let third = all_of(&memory, &initech, 10);
        assert_eq!((first.len(), second.len(), third.len()), (8, 4, 2));
        assert_eq!(memory.in_flight.get(), 140);
        drop((first, second, third));
        assert_eq!(memory.in_flight.get(), 0);
        let state = memory.state();
        assert!(state.taken.is_empty() && state.waiting.is_empty(), "{state:?}");
    }

    #[tokio::test]
    async fn the_only_one_has_room_however_large_it_is() {
        let [acme, globex, _] = organisations();
        let memory = memory(20);
        let large = memory.room(&acme, 21, PATIENCE).await;
        assert!(large.is_some());
        assert!(all_of(&memory, &globex, 1).is_empty());
        drop(large);
        let small = memory.room(&globex, 1, PATIENCE).await;
        assert_eq!((all_of(&memory, &acme, 20).len(), all_of(&memory, &acme, 19).len()), (0, 1));
        drop(small);
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_in_its_organisation_and_holds_up_no_other() {
        let [acme, globex, _] = organisations();
        let memory = memory(100);
        let held = memory.room(&acme, 40, PATIENCE).await;
        let mut large = Box::pin(memory.room(&acme, 60, PATIENCE));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(memory.room(&acme, 1, PATIENCE));
        assert!(small.as_mut().now_or_never().is_none(), "it came later");
        assert_eq!(all_of(&memory, &globex, 30).len(), 1);
        drop(held);
        let large = large.await;
        assert!(small.as_mut().now_or_never().is_none(), "60 of its own are more than are free");
        drop(large);
        assert!(small.await.is_some());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_given_to_others() {
        let [acme, globex, _] = organisations();
        let memory = memory(100);
        let held = memory.room(&acme, 100, PATIENCE).await;
        let mut leaves = Box::pin(memory.room(&acme, 50, PATIENCE));
        assert!(leaves.as_mut().now_or_never().is_none());
        let mut granted = Box::pin(memory.room(&acme, 50, PATIENCE));
        assert!(granted.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(held);
        // Its room waits for it, and it leaves.
        assert!(all_of(&memory, &globex, 51).is_empty());
        drop(granted);
        assert_eq!(all_of(&memory, &globex, 100).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let [acme, globex, _] = organisations();
        let memory = memory(100);
        let _held = memory.room(&acme, 100, PATIENCE).await;
        let started = tokio::time::Instant::now();
        assert!(memory.room(&globex, 1, PATIENCE).await.is_none());
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
