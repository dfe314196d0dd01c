//! Rations of something that there is so much of, each for its owner. Each may have as much as
//! is still free, so that one that keeps all it gets leaves some for the others. Who finds none
//! left is turned away ([`Rations::take_now`]) or waits ([`Rations::take`]), in a line with its
//! owner's others; lines are served by turns, and who waits there is in no other's way. One
//! instance does the one or the other: who is served at once would pass those who wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    metrics::Gauge,
    shares::{Owner, Shares},
};

/// All there is.
#[derive(Debug)]
pub struct Rations {
    max: usize,
    state: Mutex<State>,
    in_use: Gauge,
}

#[derive(Debug, Default)]
struct State {
    taken: Shares<Owner>,
    /// The longest waiting of each first. None is empty.
    lines: HashMap<Owner, VecDeque<Waiter>>,
    /// Whose line is looked at first.
    order: VecDeque<Owner>,
}

#[derive(Debug)]
struct Waiter {
    amount: usize,
    granted: oneshot::Sender<Ration>,
}

/// A ration. Given back when dropped.
#[derive(Debug)]
pub struct Ration {
    rations: Arc<Rations>,
    owner: Owner,
    amount: usize,
}

impl Drop for Ration {
    #[allow(clippy::cast_possible_wrap)] // what there is fits an i64
    fn drop(&mut self) {
        let mut state = self.rations.state();
        state.taken.remove(&self.owner, self.amount);
        let somebody_waits = !state.order.is_empty();
        drop(state);
        self.rations.in_use.dec_by(self.amount as i64);
        if somebody_waits {
            self.rations.give();
        }
    }
}

impl Rations {
    /// There is so much. What of it is in use is told.
    #[must_use]
    pub fn new(max: usize, in_use: Gauge) -> Arc<Self> {
        Arc::new(Self { max, state: Mutex::default(), in_use })
    }

    /// Waits for so much, behind what its owner asked for before. The only ration there is
    /// may be larger than all there is, so that nobody waits for ever.
    pub async fn take(self: &Arc<Self>, owner: &Owner, amount: usize) -> Ration {
        // Dropped after what it waits with, should it leave.
        let _behind = Behind(self);
        loop {
            let (granted, ration) = oneshot::channel();
            self.state().push(owner.clone(), Waiter { amount, granted });
            self.give();
            // Nobody but who waits takes it out of its line.
            if let Ok(ration) = ration.await {
                return ration;
            }
        }
    }

    /// So much, if its owner may have it now; the only ration as with [`Self::take`].
    pub fn take_now(self: &Arc<Self>, owner: &Owner, amount: usize) -> Option<Ration> {
        let mut state = self.state();
        let may_take = owner.may_take(&state.taken, amount, self.max);
        may_take.then(|| self.grant(&mut state, owner.clone(), amount))
    }

    /// The same, whether or not it may.
    pub(crate) fn take_anyway(self: &Arc<Self>, owner: &Owner, amount: usize) -> Ration {
        self.grant(&mut self.state(), owner.clone(), amount)
    }

    /// Whether none is left, whoever asks.
    #[must_use]
    pub fn are_all_taken(&self) -> bool {
        self.state().taken.all() >= self.max
    }

    /// How much is in use now.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.state().taken.all()
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().lines.values().flatten().filter(|waiter| !waiter.granted.is_closed()).count()
    }

    /// Gives all that may be given now.
    fn give(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((owner, Waiter { amount, granted })) = state.next(self.max) else { return };
            let ration = self.grant(&mut state, owner, amount);
            drop(state);
            // Given back, should who waited have gone.
            let _gone = granted.send(ration);
        }
    }

    #[allow(clippy::cast_possible_wrap)] // as above
    fn grant(self: &Arc<Self>, state: &mut State, owner: Owner, amount: usize) -> Ration {
        state.taken.add(owner.clone(), amount);
        self.in_use.inc_by(amount as i64);
        Ration { rations: self.clone(), owner, amount }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits behind one that leaves: it may have held them up.
struct Behind<'a>(&'a Arc<Rations>);

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        self.0.give();
    }
}

impl State {
    fn push(&mut self, owner: Owner, waiter: Waiter) {
        if let Some(line) = self.lines.get_mut(&owner) {
            leave_out_gone(line);
            line.push_back(waiter);
        } else {
            self.lines.insert(owner.clone(), VecDeque::from([waiter]));
            self.order.push_back(owner);
        }
    }

    /// Who is next of those that may have what they wait for.
    fn next(&mut self, max: usize) -> Option<(Owner, Waiter)> {
        let Self { taken, lines, order } = self;
        loop {
            let may_take = |owner: &Owner| {
                lines.get_mut(owner).is_none_or(|line| {
                    leave_out_gone(line);
                    line.front().is_none_or(|first| owner.may_take(taken, first.amount, max))
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
            return Some((owner, waiter));
        }
    }
}

/// Leaves out those at the front who gave up.
fn leave_out_gone(line: &mut VecDeque<Waiter>) {
    while line.front().is_some_and(|first| first.granted.is_closed()) {
        line.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn rations(max: usize) -> Arc<Rations> {
        Rations::new(max, Gauge::default())
    }

    fn organisation(name: &str) -> Owner {
        Owner::Organisation(name.parse().unwrap())
    }

    async fn take(rations: &Arc<Rations>, name: &str, amount: usize) -> Ration {
        rations.take(&organisation(name), amount).await
    }

    /// As many of one size as there are now.
    fn all_of(rations: &Arc<Rations>, name: &str, amount: usize) -> Vec<Ration> {
        std::iter::from_fn(|| take(rations, name, amount).now_or_never()).collect()
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
    fn who_is_nobody_has_as_much_as_an_organisation_and_the_operator_all_there_is() {
        let [acme, globex] = ["acme", "globex"].map(organisation);
        let rations = rations(16);
        let all_of = |owner: &Owner| std::iter::from_fn(|| rations.take_now(owner, 1)).collect::<Vec<_>>();
        let all = [Owner::Nobody, acme.clone(), globex, Owner::Operator].map(|owner| all_of(&owner));
        assert_eq!(all.each_ref().map(Vec::len), [8, 4, 2, 2]);
        let more = rations.take_anyway(&acme, 3);
        assert_eq!((rations.in_use(), rations.in_use.get()), (19, 19));
        drop((all, more));
        assert_eq!(rations.in_use.get(), 0);
        assert!(rations.state().taken.is_empty(), "who has none takes no memory");
    }

    #[test]
    fn one_that_asks_for_much_delays_nobody_else() {
        let (flood, other) = (organisation("flood"), organisation("other"));
        for (flood, other) in [(&flood, &other), (&flood, &Owner::Nobody), (&Owner::Nobody, &other)] {
            let rations = rations(2);
            let first = rations.take(flood, 1).now_or_never().unwrap();
            let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(rations.take(flood, 1))).collect();
            for one in &mut waiting {
                assert!(one.now_or_never().is_none());
            }
            // There is one left, and it is not the flood's.
            let _others = rations.take(other, 1).now_or_never().unwrap();
            drop(first);
            assert!(waiting[0].as_mut().now_or_never().is_some());
        }
    }

    #[test]
    fn the_only_one_is_given_however_large_it_is() {
        let rations = rations(20);
        let large = all_of(&rations, "acme", 21);
        assert_eq!(large.len(), 1);
        assert!(all_of(&rations, "globex", 1).is_empty());
        drop(large);
        let _small = take(&rations, "globex", 1).now_or_never().unwrap();
        assert_eq!((all_of(&rations, "acme", 20).len(), all_of(&rations, "acme", 19).len()), (0, 1));
    }

    #[test]
    fn lines_are_served_by_turns_and_each_in_its_order() {
        let rations = rations(1);
        let mut taken = take(&rations, "initech", 1).now_or_never();
        let names = ["acme", "acme", "acme", "globex"];
        let mut waiting: Vec<_> = names.iter().map(|name| Some(Box::pin(take(&rations, name, 1)))).collect();
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
        let held = take(&rations, "acme", 40).now_or_never();
        let mut large = Box::pin(take(&rations, "acme", 60));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(take(&rations, "acme", 1));
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
        let _held = take(&rations, "acme", 40).now_or_never();
        let mut large = Box::pin(take(&rations, "acme", 60));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(take(&rations, "acme", 1));
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_given_to_others() {
        let rations = rations(100);
        let held = take(&rations, "acme", 100).now_or_never();
        let mut leaves = Box::pin(take(&rations, "acme", 50));
        assert!(leaves.as_mut().now_or_never().is_none());
        let mut granted = Box::pin(take(&rations, "acme", 50));
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
        let taken = take(&rations, "globex", 1).now_or_never();
        for _ in 0..10_000 {
            assert!(take(&rations, "acme", 1).now_or_never().is_none());
        }
        assert!(rations.state().lines.is_empty());
        let mut last = Box::pin(take(&rations, "acme", 1));
        assert!(last.as_mut().now_or_never().is_none());
        drop(taken);
        assert!(last.now_or_never().is_some());
    }
}
