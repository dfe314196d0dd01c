//! Rations of something that there is so much of, for owners who wait while there is none
//! left for them. Each may have as much as is still free, so that one that keeps all it gets
//! leaves some for the others. What must wait does so in lines, one for each owner; they are
//! served by turns, and who waits there is in no other's way.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{metrics::Gauge, shares::Shares};

/// Whom rations are for.
pub trait Owner: Clone + Eq + Hash {}

impl<K: Clone + Eq + Hash> Owner for K {}

/// All there is.
#[derive(Debug)]
pub struct Rations<K: Owner> {
    max: usize,
    state: Mutex<State<K>>,
    in_use: Gauge,
}

#[derive(Debug)]
struct State<K: Owner> {
    taken: Shares<K>,
    /// The longest waiting of each first. None is empty.
    lines: HashMap<K, VecDeque<Waiter<K>>>,
    /// Whose line is looked at first.
    order: VecDeque<K>,
}

#[derive(Debug)]
struct Waiter<K: Owner> {
    amount: usize,
    granted: oneshot::Sender<Ration<K>>,
}

/// A ration. Given back when dropped.
#[derive(Debug)]
pub struct Ration<K: Owner> {
    rations: Arc<Rations<K>>,
    owner: K,
    amount: usize,
}

impl<K: Owner> Drop for Ration<K> {
    #[allow(clippy::cast_possible_wrap)] // what there is fits an i64
    fn drop(&mut self) {
        self.rations.state().taken.remove(&self.owner, self.amount);
        self.rations.in_use.dec_by(self.amount as i64);
        self.rations.give();
    }
}

impl<K: Owner> Rations<K> {
    /// There is so much. What of it is in use is told.
    #[must_use]
    pub fn new(max: usize, in_use: Gauge) -> Arc<Self> {
        let state = State { taken: Shares::default(), lines: HashMap::new(), order: VecDeque::new() };
        Arc::new(Self { max, state: Mutex::new(state), in_use })
    }

    /// Waits for so much, behind what its owner asked for before. The only ration there is
    /// may be larger than all there is, so that nobody waits for ever.
    pub async fn take(self: &Arc<Self>, owner: &K, amount: usize) -> Ration<K> {
        // Dropped after what it waits with, should it leave.
        let _behind = Behind(self);
        loop {
            let (granted, ration) = oneshot::channel();
            self.state().push(owner, Waiter { amount, granted });
            self.give();
            // Nobody but who waits takes it out of its line.
            if let Ok(ration) = ration.await {
                return ration;
            }
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().lines.values().flatten().filter(|waiter| !waiter.granted.is_closed()).count()
    }

    /// Gives all that may be given now.
    #[allow(clippy::cast_possible_wrap)] // as above
    fn give(self: &Arc<Self>) {
        loop {
            let next = self.state().next(self.max);
            let Some((owner, Waiter { amount, granted })) = next else { return };
            self.in_use.inc_by(amount as i64);
            // Given back, should who waited have gone.
            let _gone = granted.send(Ration { rations: self.clone(), owner, amount });
        }
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        // Whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits behind one that leaves: it may have held them up.
struct Behind<'a, K: Owner>(&'a Arc<Rations<K>>);

impl<K: Owner> Drop for Behind<'_, K> {
    fn drop(&mut self) {
        self.0.give();
    }
}

impl<K: Owner> State<K> {
    fn push(&mut self, owner: &K, waiter: Waiter<K>) {
        if let Some(line) = self.lines.get_mut(owner) {
            leave_out_gone(line);
            line.push_back(waiter);
        } else {
            self.lines.insert(owner.clone(), VecDeque::from([waiter]));
            self.order.push_back(owner.clone());
        }
    }

    /// Who is next of those that may have what they wait for; it has it then.
    fn next(&mut self, max: usize) -> Option<(K, Waiter<K>)> {
        let Self { taken, lines, order } = self;
        loop {
            let may_take = |owner: &K| {
                lines.get_mut(owner).is_none_or(|line| {
                    leave_out_gone(line);
                    line.front().is_none_or(|first| taken.leaves(owner, first.amount, max))
                })
            };
            let place = order.iter().position(may_take)?;
            let owner = order.remove(place)?;
            let mut line = lines.remove(&owner)?;
            // All of them may have gone.
            let Some(waiter) = line.pop_front() else { continue };
            if !line.is_empty() {
                lines.insert(owner.clone(), line);
                order.push_back(owner.clone());
            }
            taken.add(owner.clone(), waiter.amount);
            return Some((owner, waiter));
        }
    }
}

/// Leaves out those at the front who gave up.
fn leave_out_gone<K: Owner>(line: &mut VecDeque<Waiter<K>>) {
    while line.front().is_some_and(|first| first.granted.is_closed()) {
        line.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn rations(max: usize) -> Arc<Rations<&'static str>> {
        Rations::new(max, Gauge::default())
    }

    /// As many of one size as there are now.
    fn all_of(
        rations: &Arc<Rations<&'static str>>,
        owner: &'static str,
        amount: usize,
    ) -> Vec<Ration<&'static str>> {
        std::iter::from_fn(|| rations.take(&owner, amount).now_or_never()).collect()
    }

    #[test]
    fn each_has_up_to_as_much_as_is_free() {
        for unit in [1, 10] {
            let rations = rations(16 * unit);
            let all = ["acme", "globex", "initech"].map(|name| all_of(&rations, name, unit));
            assert_eq!(all.each_ref().map(Vec::len), [8, 4, 2]);
            assert_eq!(rations.in_use.get(), 14 * unit as i64);
            drop(all);
            assert_eq!(rations.in_use.get(), 0);
            let state = rations.state();
            assert!(state.taken.is_empty() && state.order.is_empty() && state.lines.is_empty(), "{state:?}");
        }
        // Where there is but one it is anybody's.
        assert_eq!(all_of(&rations(1), "acme", 1).len(), 1);
    }

    #[test]
    fn the_only_one_is_given_however_large_it_is() {
        let rations = rations(20);
        let large = all_of(&rations, "acme", 21);
        assert_eq!(large.len(), 1);
        assert!(all_of(&rations, "globex", 1).is_empty());
        drop(large);
        let _small = rations.take(&"globex", 1).now_or_never().unwrap();
        assert_eq!((all_of(&rations, "acme", 20).len(), all_of(&rations, "acme", 19).len()), (0, 1));
    }

    #[test]
    fn lines_are_served_by_turns_and_each_in_its_order() {
        let rations = rations(1);
        let mut taken = rations.take(&"initech", 1).now_or_never();
        let names = ["acme", "acme", "acme", "globex"];
        let mut waiting: Vec<_> = names.iter().map(|name| Some(Box::pin(rations.take(name, 1)))).collect();
        let mut served = Vec::new();
        for _ in 0..=names.len() {
            for (place, waiter) in waiting.iter_mut().enumerate() {
                if let Some(ration) = waiter.as_mut().and_then(|waiter| waiter.now_or_never()) {
                    *waiter = None;
                    served.push(place);
                    taken = Some(ration);
                }
            }
            assert_eq!(rations.waiting(), names.len() - served.len());
            drop(taken.take());
        }
        assert_eq!(served, [0, 3, 1, 2]);
    }

    #[test]
    fn who_waits_has_its_turn_in_its_line_and_holds_up_no_other() {
        let rations = rations(100);
        let held = rations.take(&"acme", 40).now_or_never();
        let mut large = Box::pin(rations.take(&"acme", 60));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(rations.take(&"acme", 1));
        assert!(small.as_mut().now_or_never().is_none(), "it came later");
        assert_eq!(all_of(&rations, "globex", 30).len(), 1);
        drop(held);
        let large = large.now_or_never();
        assert!(large.is_some());
        assert!(small.as_mut().now_or_never().is_none(), "60 of its own are more than are free");
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[test]
    fn who_leaves_holds_up_nobody_behind() {
        let rations = rations(100);
        let _held = rations.take(&"acme", 40).now_or_never();
        let mut large = Box::pin(rations.take(&"acme", 60));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(rations.take(&"acme", 1));
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_given_to_others() {
        let rations = rations(100);
        let held = rations.take(&"acme", 100).now_or_never();
        let mut leaves = Box::pin(rations.take(&"acme", 50));
        assert!(leaves.as_mut().now_or_never().is_none());
        let mut granted = Box::pin(rations.take(&"acme", 50));
        assert!(granted.as_mut().now_or_never().is_none());
        drop(leaves);
        drop(held);
        // Its ration waits for it, and it leaves.
        assert!(all_of(&rations, "globex", 51).is_empty());
        drop(granted);
        assert_eq!(all_of(&rations, "globex", 100).len(), 1);
    }

    #[test]
    fn who_has_gone_takes_no_memory() {
        let rations = rations(1);
        let taken = rations.take(&"globex", 1).now_or_never();
        for _ in 0..10_000 {
            assert!(rations.take(&"acme", 1).now_or_never().is_none());
        }
        assert!(rations.state().lines.is_empty());
        let mut last = Box::pin(rations.take(&"acme", 1));
        assert!(last.as_mut().now_or_never().is_none());
        drop(taken);
        assert!(last.now_or_never().is_some());
    }
}
