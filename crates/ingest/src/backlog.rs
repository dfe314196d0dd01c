//! How much is accepted and not yet recorded, over all replicas: what the
//! database said last, and what this process has committed and deleted since. Bounded over
//! all, and for each organisation: by a bound of its own, and by as much as is still free, so that
//! those whose results can't be recorded leave room for the others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sluice_service::OrganisationId;

use crate::outcome::Cause;

/// The bytes in the outbox and their bounds.
#[derive(Debug)]
pub struct Backlog {
    bytes: Mutex<Bytes>,
    bytes_max: u64,
    organisation_bytes_max: u64,
}

/// Why nothing more is accepted, and about how long that will last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// For who runs the service.
    pub cause: Cause,
    /// For the caller.
    pub why: &'static str,
    /// By how fast the backlog went lately.
    pub estimate: Duration,
}

/// Organisations without a backlog are not in it.
#[derive(Debug, Default)]
struct Bytes {
    all: u64,
    of: HashMap<OrganisationId, u64>,
    asked: Option<Instant>,
    /// Bytes that this process has deleted since.
    deleted: u64,
    /// How many bytes a second went, between the last two times that was asked.
    gone_per_second: f64,
}

impl Bytes {
    /// About how long until so many bytes have gone.
    #[allow(clippy::cast_precision_loss)] // an estimate
    fn until_gone(&self, bytes: u64) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.gone_per_second).unwrap_or(Duration::MAX)
    }
}

impl Backlog {
    /// An empty backlog that is full at `bytes_max`, and for each organisation at
    /// `organisation_bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u64, organisation_bytes_max: u64) -> Self {
        Self { bytes: Mutex::default(), bytes_max, organisation_bytes_max }
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        // Numbers are whole after every step.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes just committed.
    pub fn add(&self, organisation: &OrganisationId, bytes: usize) {
        let mut kept = self.bytes();
        kept.all += bytes as u64;
        if let Some(own) = kept.of.get_mut(organisation) {
            *own += bytes as u64;
        } else {
            kept.of.insert(organisation.clone(), bytes as u64);
        }
    }

    /// Counts bytes just deleted. If the database was asked meanwhile, they may be counted
    /// twice until it is asked again.
    pub fn remove(&self, organisation: &OrganisationId, bytes: u64) {
        let mut kept = self.bytes();
        kept.deleted += bytes;
        kept.all = kept.all.saturating_sub(bytes);
        let Some(own) = kept.of.get_mut(organisation) else { return };
        *own = own.saturating_sub(bytes);
        if *own == 0 {
            kept.of.remove(organisation);
        }
    }

    /// Takes the database's word: each organisation that has a backlog, once.
    pub fn set(&self, of: HashMap<OrganisationId, u64>) {
        self.set_at(of, Instant::now());
    }

    #[allow(clippy::cast_precision_loss)] // an estimate
    fn set_at(&self, of: HashMap<OrganisationId, u64>, now: Instant) {
        let all: u64 = of.values().sum();
        let mut kept = self.bytes();
        let gone_per_second = kept.asked.map_or(0.0, |asked| {
            (kept.all + kept.deleted).saturating_sub(all) as f64
                / now.duration_since(asked).as_secs_f64().max(1e-3)
        });
        *kept = Bytes { all, of, asked: Some(now), deleted: 0, gone_per_second };
    }

    /// Why nothing more of an organisation should be accepted, if so.
    #[must_use]
    pub fn is_full(&self, organisation: &OrganisationId) -> Option<Full> {
        let bytes = self.bytes();
        let own = bytes.of.get(organisation).copied().unwrap_or_default();
        let free = self.bytes_max.saturating_sub(bytes.all);
        let (most, cause, why) = if free <= self.organisation_bytes_max {
            (free, Cause::Backlog, "too much is accepted and not yet recorded")
        } else {
            let why = "too much of this organisation is accepted and not yet recorded";
            (self.organisation_bytes_max, Cause::OrganisationBacklog, why)
        };
        let too_much = own.checked_sub(most)?;
        Some(Full { cause, why, estimate: bytes.until_gone(too_much + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> OrganisationId {
        name.parse().unwrap()
    }

    #[test]
    fn each_has_up_to_as_much_as_is_free() {
        let (backlog, acme, globex) = (Backlog::new(10, 100), named("acme"), named("globex"));
        backlog.add(&acme, 4);
        assert_eq!(backlog.is_full(&acme), None);
        backlog.add(&acme, 1);
        assert_eq!(backlog.is_full(&acme).unwrap().cause, Cause::Backlog);
        backlog.add(&globex, 2);
        assert_eq!(backlog.is_full(&globex), None);
        backlog.add(&globex, 1);
        assert_eq!(backlog.is_full(&globex).unwrap().cause, Cause::Backlog);
        assert_eq!(backlog.is_full(&named("initech")), None);
        // A commit may have been larger than what was free.
        backlog.add(&globex, 2);
        assert!(backlog.is_full(&named("initech")).is_some(), "nothing is free");
        backlog.set(HashMap::from([(acme.clone(), 3)]));
        assert_eq!(backlog.is_full(&acme), None);
    }

    #[test]
    fn how_long_it_lasts_is_told_by_how_fast_it_went() {
        let (backlog, acme, start) = (Backlog::new(1000, 100), named("acme"), Instant::now());
        let of = |bytes| HashMap::from([(named("acme"), bytes)]);
        backlog.set_at(of(149), start);
        let estimate = || backlog.is_full(&acme).unwrap().estimate;
        assert_eq!(estimate(), Duration::MAX, "nothing has gone yet");
        backlog.add(&acme, 20);
        backlog.remove(&acme, 15);
        backlog.set_at(of(149), start + Duration::from_secs(2));
        assert_eq!(estimate(), Duration::from_secs(5), "20 in 2 seconds, and 50 to go");
    }

    #[test]
    fn what_was_deleted_makes_room_before_the_database_is_asked_again() {
        let (backlog, acme, globex) = (Backlog::new(100, 10), named("acme"), named("globex"));
        backlog.add(&acme, 10);
        assert!(backlog.is_full(&acme).is_some());
        backlog.remove(&acme, 1);
        assert_eq!(backlog.is_full(&acme), None);
        // Counted twice, or another replica's.
        backlog.remove(&acme, 10);
        backlog.remove(&globex, 10);
        assert!(backlog.bytes().all == 0 && backlog.bytes().of.is_empty());
    }

    #[test]
    fn one_organisation_is_full_from_its_own_bound_on_and_others_are_not() {
        let (backlog, acme, globex) = (Backlog::new(100, 10), named("acme"), named("globex"));
        backlog.add(&acme, 4);
        backlog.add(&acme, 5);
        assert_eq!(backlog.is_full(&acme), None);
        backlog.add(&acme, 1);
        assert_eq!(backlog.is_full(&acme).unwrap().cause, Cause::OrganisationBacklog);
        assert_eq!(backlog.is_full(&globex), None);
        backlog.set(HashMap::new());
        assert_eq!(backlog.is_full(&acme), None);
        assert!(backlog.bytes().of.is_empty(), "who has no backlog takes no memory");
    }
}
