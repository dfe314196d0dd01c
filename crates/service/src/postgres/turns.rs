//! Turns at the sessions of a pool that organisations share. Each may have as many as are
//! still free, so that one that keeps all it gets leaves some for the others. What must
//! wait does so in lines, one for each organisation; they are served by turns, and who
//! waits there is in no other's way.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use deadpool_postgres::{Pool, Status};
use tokio::{sync::oneshot, time::timeout};

use super::{Borrowed, pool::WAIT};
use crate::{Error, OrganisationId, shares::Shares};

/// A pool whose sessions organisations share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedPool {
    pool: Pool,
    turns: Arc<Turns>,
}

impl SharedPool {
    /// Over a pool that nobody else uses.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        let turns = Turns::new(pool.status().max_size);
        Self { pool, turns }
    }

    /// Waits for a session that may be used for an organisation.
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn borrow(&self, organisation: &OrganisationId) -> Result<Borrowed, Error> {
        let turn = self.turns.wait(organisation).await?;
        Ok(Borrowed::from(&self.pool).await?.in_turn(turn))
    }

    /// How much of it is in use, and how many wait.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = self.pool.status();
        Status { waiting: status.waiting + self.turns.waiting(), ..status }
    }
}

/// All turns at one pool.
#[derive(Debug)]
struct Turns {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: Shares<OrganisationId>,
    /// The longest waiting of each first. None is empty.
    lines: HashMap<OrganisationId, VecDeque<Waiter>>,
    /// Whose line is looked at first.
    order: VecDeque<OrganisationId>,
}

type Waiter = oneshot::Sender<Turn>;

/// The right to a session. Given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    organisation: OrganisationId,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().taken.remove(&self.organisation, 1);
        self.turns.give();
    }
}

impl Turns {
    /// At a pool of so many sessions.
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, state: Mutex::default() })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// UNAVAILABLE if it doesn't come within a pool's patience.
    async fn wait(self: &Arc<Self>, organisation: &OrganisationId) -> Result<Turn, Error> {
        let (waiter, turn) = oneshot::channel();
        self.state().push(organisation, waiter);
        self.give();
        let busy = Error::database_busy;
        timeout(WAIT, turn).await.map_err(|late| busy().because(late))?.map_err(|gone| busy().because(gone))
    }

    /// How many wait.
    fn waiting(&self) -> usize {
        let state = self.state();
        state.lines.values().flatten().filter(|waiter| !waiter.is_closed()).count()
    }

    /// Gives all turns that may be given now.
    fn give(self: &Arc<Self>) {
        loop {
            let next = self.state().next(self.max);
            let Some((organisation, waiter)) = next else { return };
            // Given back, should the waiter have gone.
            let _gone = waiter.send(Turn { turns: self.clone(), organisation });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, organisation: &OrganisationId, waiter: Waiter) {
        if let Some(line) = self.lines.get_mut(organisation) {
            leave_out_gone(line);
            line.push_back(waiter);
        } else {
            self.lines.insert(organisation.clone(), VecDeque::from([waiter]));
            self.order.push_back(organisation.clone());
        }
    }

    /// Who is next of those that may have a turn, if one is free; it has it then.
    fn next(&mut self, max: usize) -> Option<(OrganisationId, Waiter)> {
        let free = max - self.taken.all();
        loop {
            let may_take = |organisation: &OrganisationId| self.taken.of(organisation) < free;
            let place = self.order.iter().position(may_take)?;
            let organisation = self.order.remove(place)?;
            let mut line = self.lines.remove(&organisation)?;
            leave_out_gone(&mut line);
            let Some(waiter) = line.pop_front() else { continue };
            if !line.is_empty() {
                self.lines.insert(organisation.clone(), line);
                self.order.push_back(organisation.clone());
            }
            self.taken.add(organisation.clone(), 1);
            return Some((organisation, waiter));
        }
    }
}

/// Leaves out those who gave up. Who came first gives up first.
fn leave_out_gone(line: &mut VecDeque<Waiter>) {
    while line.front().is_some_and(Waiter::is_closed) {
        line.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::Kind;

    fn organisation(name: &str) -> OrganisationId {
        name.parse().unwrap()
    }

    /// A turn that need not be waited for.
    fn take(turns: &Arc<Turns>, name: &str) -> Option<Turn> {
        turns.wait(&organisation(name)).now_or_never().map(Result::unwrap)
    }

    fn all_of(turns: &Arc<Turns>, name: &str) -> Vec<Turn> {
        std::iter::from_fn(|| take(turns, name)).collect()
    }

    #[tokio::test]
    async fn each_has_up_to_as_many_as_are_free() {
        let turns = Turns::new(6);
        let all = ["acme", "globex", "initech", "umbrella"].map(|name| all_of(&turns, name));
        assert_eq!(all.each_ref().map(Vec::len), [3, 2, 1, 0]);
        drop(all);
        assert_eq!(turns.waiting(), 0);
        assert!(turns.state().taken.is_empty());
        // Where there is but one it is anybody's.
        assert_eq!(all_of(&Turns::new(1), "acme").len(), 1);
    }

    #[tokio::test]
    async fn lines_are_served_by_turns_and_each_in_its_order() {
        let turns = Turns::new(1);
        let mut taken = take(&turns, "initech");
        let names = ["acme", "acme", "acme", "globex"].map(organisation);
        let mut waiting: Vec<_> = names.iter().map(|name| Some(Box::pin(turns.wait(name)))).collect();
        let mut served = Vec::new();
        for _ in 0..=names.len() {
            for (place, waiter) in waiting.iter_mut().enumerate() {
                if let Some(turn) = waiter.as_mut().and_then(|waiter| waiter.now_or_never()) {
                    *waiter = None;
                    served.push(place);
                    taken = Some(turn.unwrap());
                }
            }
            assert_eq!(turns.waiting(), names.len() - served.len());
            drop(taken.take());
        }
        assert_eq!(served, [0, 3, 1, 2]);
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let turns = Turns::new(1);
        let taken = take(&turns, "globex");
        let acme = organisation("acme");
        for _ in 0..10_000 {
            assert!(turns.wait(&acme).now_or_never().is_none());
        }
        assert!(turns.state().lines[&acme].len() <= 1, "they take no memory");
        let mut last = Box::pin(turns.wait(&acme));
        assert!(last.as_mut().now_or_never().is_none());
        drop(taken);
        assert!(last.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let turns = Turns::new(1);
        let _taken = take(&turns, "acme");
        let told = turns.wait(&organisation("acme")).await.unwrap_err();
        assert_eq!((told.kind(), turns.waiting()), (Kind::Unavailable, 0));
    }
}
