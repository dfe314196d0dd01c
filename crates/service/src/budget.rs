//! The process-wide budget of request-body bytes: how much of what callers sent may be in
//! memory at a time. Taken as the bytes arrive; for what a message becomes when it is decoded,
//! once all of it has arrived; and given back when the work on it has ended. Each
//! organisation may have as much as is still free, so that one whose requests take long
//! leaves room for the others; or one request, whatever its size. What finds no room is
//! refused, never queued without bound.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    Error, OrganisationId,
    met::Limit,
    metrics::Gauge,
    shares::{Owner, Shares},
};

/// How much of what a stream keeps is not worth counting.
const KEPT_UNCOUNTED: usize = 256 * 1024;

/// The budget. One per process.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: Mutex<Shares<Owner>>,
    /// What open streams keep beside it, up to as much again: see [`Account::keep`].
    kept: Mutex<Shares<Owner>>,
    freed: Notify,
    measures: Measures,
}

/// What is told of a budget.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures {
    /// Bytes in use.
    pub(crate) in_flight: Gauge,
    /// What found no room, and may be retried.
    pub(crate) refused: Limit,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes_max: usize, measures: Measures) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            used: Mutex::default(),
            kept: Mutex::default(),
            freed: Notify::new(),
            measures,
        })
    }

    /// Bytes in use now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        locked(&self.used).all()
    }

    /// What is refused when there is no room: a request that would never fit is
    /// too large, any other may be retried. `organisation` is whose it is, if that is known.
    fn refusal(&self, bytes: usize, organisation: Option<&OrganisationId>) -> Error {
        if !self.may_fit(bytes) {
            return Error::request_too_large();
        }
        self.measures.refused.met(organisation);
        Error::overloaded()
    }

    /// Whether there is room for so much when nobody else has anything.
    fn may_fit(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max
    }

    /// More for a request that holds so much.
    #[allow(clippy::cast_possible_wrap)] // what is in memory fits an i64
    fn take(&self, owner: &Owner, held: usize, bytes: usize) -> bool {
        let mut used = locked(&self.used);
        let free = self.bytes_max.saturating_sub(used.all());
        let own = used.of(owner);
        let is_left = *owner == Owner::Operator || own == held || own.saturating_add(bytes) <= free;
        let fits = bytes == 0 || bytes <= free && is_left;
        if fits && bytes > 0 {
            used.add(owner.clone(), bytes);
            self.measures.in_flight.inc_by(bytes as i64);
        }
        fits
    }

    #[allow(clippy::cast_possible_wrap)]
    fn give_back(&self, owner: &Owner, bytes: usize) {
        if bytes > 0 {
            locked(&self.used).remove(owner, bytes);
            self.measures.in_flight.dec_by(bytes as i64);
            self.freed.notify_waiters();
        }
    }

    /// More that a stream keeps.
    fn keep(&self, owner: &Owner, bytes: usize) -> bool {
        let mut kept = locked(&self.kept);
        let fits = owner.may_take(&kept, bytes, self.bytes_max);
        if fits {
            kept.add(owner.clone(), bytes);
        }
        fits
    }
}

fn locked(shares: &Mutex<Shares<Owner>>) -> MutexGuard<'_, Shares<Owner>> {
    // Numbers are whole after every step.
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of the budget. Given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    owner: Owner,
    bytes: usize,
}

impl Share {
    fn none(budget: Arc<Budget>, owner: Owner) -> Self {
        Self { budget, owner, bytes: 0 }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(&self.owner, self.bytes);
    }
}

/// What one request holds of the budget: the message that is arriving, and those
/// that arrived and are being worked on. Handlers of streams find it in the
/// request's extensions; those of single messages need not care.
#[derive(Clone, Debug)]
pub struct Account {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    /// Whose request it is, and the budget, stand here.
    arriving: Share,
    arrived: VecDeque<Share>,
    /// Bytes that the stream keeps; given back at its end.
    kept: usize,
    /// Whether there was no room for all of them.
    is_too_much_kept: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        locked(&self.arriving.budget.kept).remove(&self.arriving.owner, self.kept);
    }
}

impl Account {
    /// Of one request.
    pub(crate) fn open(budget: Arc<Budget>, owner: Owner) -> Self {
        let (arriving, arrived) = (Share::none(budget, owner), VecDeque::new());
        let held = Held { arriving, arrived, kept: 0, is_too_much_kept: false };
        Self { held: Arc::new(Mutex::new(held)) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of the message that the handler of a stream took last; to be kept
    /// for as long as the message is being worked on. Left alone, it is given back
    /// when the next message is asked for.
    #[must_use]
    pub fn of_message(&self) -> Option<Share> {
        self.held().arrived.pop_front()
    }

    /// The error for a request of so many bytes that finds no room.
    pub(crate) fn refusal(&self, bytes: usize) -> Error {
        let held = self.held();
        held.arriving.budget.refusal(bytes, held.arriving.owner.organisation())
    }

    /// Ends when somebody gave something back after it was polled first.
    pub(crate) fn freed(&self) -> impl Future<Output = ()> + Send + use<> {
        let budget = self.held().arriving.budget.clone();
        async move { budget.freed.notified().await }
    }

    /// Whether a message of so many bytes may find room, now or later.
    pub(crate) fn may_fit(&self, bytes: usize) -> bool {
        self.held().arriving.budget.may_fit(bytes)
    }

    /// Takes room for more of the message that is arriving.
    ///
    /// # Errors
    /// Of what size the message is by now, if there is none.
    pub(crate) fn grow(&self, bytes: usize) -> Result<(), usize> {
        let mut held = self.held();
        let all = held.arriving.bytes + held.arrived.iter().map(|share| share.bytes).sum::<usize>();
        if !held.arriving.budget.take(&held.arriving.owner, all, bytes) {
            return Err(held.arriving.bytes.saturating_add(bytes));
        }
        held.arriving.bytes += bytes;
        Ok(())
    }

    /// Gives back some of the message that is arriving: what it took is gone.
    pub(crate) fn shrink(&self, bytes: usize) {
        let mut held = self.held();
        let bytes = bytes.min(held.arriving.bytes);
        held.arriving.bytes -= bytes;
        held.arriving.budget.give_back(&held.arriving.owner, bytes);
    }

    /// The message has arrived.
    pub(crate) fn arrived(&self) {
        let mut held = self.held();
        let next = Share::none(held.arriving.budget.clone(), held.arriving.owner.clone());
        let share = std::mem::replace(&mut held.arriving, next);
        held.arrived.push_back(share);
    }

    /// A message of so many bytes has arrived in a stream. tonic keeps the buffer of a
    /// stream's largest message while the stream is idle, where the budget does not see
    /// it. All streams may keep as much as there is for bodies beside it, and each
    /// organisation's as much of that as is left.
    pub(crate) fn keep(&self, message_bytes: usize) {
        let mut held = self.held();
        let more = message_bytes.saturating_sub(KEPT_UNCOUNTED).saturating_sub(held.kept);
        if more == 0 {
            return;
        }
        if held.arriving.budget.keep(&held.arriving.owner, more) {
            held.kept += more;
        } else {
            held.is_too_much_kept = true;
        }
    }

    /// Whether this stream keeps more than there was room for.
    pub(crate) fn is_too_much_kept(&self) -> bool {
        self.held().is_too_much_kept
    }

    /// Gives back what no handler took.
    pub(crate) fn settle(&self) {
        self.held().arrived.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_up_to_the_limit_and_not_beyond() {
        let measures = Measures::default();
        let budget = Budget::new(10, measures.clone());
        let account = Account::open(budget.clone(), Owner::Nobody);
        assert_eq!((account.grow(6), account.grow(4)), (Ok(()), Ok(())));
        assert_eq!(measures.in_flight.get(), 10);
        assert_eq!(Account::open(budget.clone(), Owner::Nobody).grow(1), Err(1));
        assert_eq!(account.grow(1), Err(11));
        drop(account);
        assert_eq!((budget.used(), measures.in_flight.get()), (0, 0));
        assert_eq!(budget.refusal(10, None).reason(), "OVERLOADED");
        assert_eq!(budget.refusal(11, None).reason(), "REQUEST_TOO_LARGE");
        assert_eq!(measures.refused.count(), 1);
    }

    #[test]
    fn each_organisation_has_as_much_as_is_free_or_one_request() {
        let of = |name: &str| Owner::Organisation(name.parse().unwrap());
        let budget = Budget::new(100, Measures::default());
        let all_of = |name: &str| {
            let one = || {
                let account = Account::open(budget.clone(), of(name));
                account.grow(10).ok().map(|()| account)
            };
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let (acme, globex) = (all_of("acme"), all_of("globex"));
        assert_eq!((acme.len(), globex.len()), (5, 3));
        // The operator has whatever there is.
        let operator = Account::open(budget.clone(), Owner::Operator);
        assert_eq!((operator.grow(20), operator.grow(1)), (Ok(()), Err(21)));
        drop((acme, globex, operator));

        let large = Account::open(budget.clone(), of("acme"));
        assert_eq!((large.grow(60), large.grow(30)), (Ok(()), Ok(())));
        large.arrived();
        assert_eq!(Account::open(budget.clone(), of("acme")).grow(1), Err(1));
        assert_eq!(all_of("globex").len(), 1);
        drop(large);
        assert!(locked(&budget.used).is_empty(), "who has nothing takes no memory");
    }

    #[test]
    fn a_message_is_held_until_its_taker_lets_go_or_the_next_is_asked_for() {
        let budget = Budget::new(10, Measures::default());
        let account = Account::open(budget.clone(), Owner::Nobody);
        for bytes in [1, 2, 3] {
            account.grow(bytes).unwrap();
            account.arrived();
        }
        let first = account.of_message().unwrap();
        account.settle();
        assert_eq!((first.bytes, budget.used()), (1, 1));
        assert!(account.of_message().is_none());
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn streams_keep_as_much_again_and_each_organisation_s_what_is_left_of_it() {
        let budget = Budget::new(16 * KEPT_UNCOUNTED, Measures::default());
        let stream = |name: Option<&str>, bytes: usize| {
            let owner = name.map_or(Owner::Operator, |name| Owner::Organisation(name.parse().unwrap()));
            let account = Account::open(budget.clone(), owner);
            account.keep(bytes);
            account
        };
        let all_of = |name: Option<&str>| {
            let one = || Some(stream(name, 2 * KEPT_UNCOUNTED)).filter(|stream| !stream.is_too_much_kept());
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let (acme, globex) = (all_of(Some("acme")), all_of(Some("globex")));
        assert_eq!((acme.len(), globex.len()), (8, 4));
        // Who has room keeps it, and what does not count needs none.
        assert!(acme.iter().chain(&globex).all(|stream| !stream.is_too_much_kept()));
        let small = stream(Some("acme"), KEPT_UNCOUNTED);
        assert!(!small.is_too_much_kept());
        small.keep(KEPT_UNCOUNTED + 1);
        assert!(small.is_too_much_kept());
        let operators = all_of(None);
        assert_eq!(operators.len(), 4);
        // Only the largest message counts, and only as long as its stream is open.
        operators[0].keep(2 * KEPT_UNCOUNTED);
        assert!(!operators[0].is_too_much_kept());
        drop((acme, globex));
        operators[0].keep(3 * KEPT_UNCOUNTED);
        assert!(!operators[0].is_too_much_kept());
        assert_eq!(locked(&budget.kept).all(), 5 * KEPT_UNCOUNTED);
        drop((operators, small));
        assert!(locked(&budget.kept).is_empty(), "who keeps nothing takes no memory");
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn who_waits_hears_of_what_is_given_back() {
        let budget = Budget::new(10, Measures::default());
        let account = Account::open(budget.clone(), Owner::Nobody);
        account.grow(10).unwrap();
        let freed = tokio::spawn(account.freed());
        while !freed.is_finished() {
            account.shrink(1);
            tokio::task::yield_now().await;
        }
        assert!(budget.used() < 10);
    }
}
