//! How much is accepted and not yet recorded, over all replicas: what the
//! database said last, plus what this process has committed since. Bounded for
//! each organisation, so that one whose results can't be recorded leaves room
//! for the others, and over all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluice_service::OrganisationId;

/// The bytes in the outbox and their bounds.
#[derive(Debug)]
pub struct Backlog {
    bytes: Mutex<Bytes>,
    bytes_max: u64,
    organisation_bytes_max: u64,
}

/// Organisations without a backlog are not in it.
#[derive(Debug, Default)]
struct Bytes {
    all: u64,
    of: HashMap<OrganisationId, u64>,
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

    /// Takes the database's word: each organisation that has a backlog, once.
    pub fn set(&self, of: HashMap<OrganisationId, u64>) {
        let all = of.values().sum();
        *self.bytes() = Bytes { all, of };
    }

    /// Why nothing more of an organisation should be accepted, if so.
    #[must_use]
    pub fn is_full(&self, organisation: &OrganisationId) -> Option<&'static str> {
        let bytes = self.bytes();
        if bytes.all >= self.bytes_max {
            return Some("too much is accepted and not yet recorded");
        }
        (bytes.of.get(organisation).copied().unwrap_or_default() >= self.organisation_bytes_max)
            .then_some("too much of this organisation is accepted and not yet recorded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> OrganisationId {
        name.parse().unwrap()
    }

    #[test]
    fn is_full_from_its_bound_on() {
        let (backlog, acme) = (Backlog::new(10, 100), named("acme"));
        backlog.add(&acme, 9);
        assert_eq!(backlog.is_full(&acme), None);
        backlog.add(&named("globex"), 1);
        assert!(backlog.is_full(&acme).is_some());
        backlog.set(HashMap::from([(acme.clone(), 3)]));
        assert_eq!(backlog.is_full(&acme), None);
    }

    #[test]
    fn one_organisation_is_full_from_its_own_bound_on_and_others_are_not() {
        let (backlog, acme, globex) = (Backlog::new(100, 10), named("acme"), named("globex"));
        backlog.add(&acme, 4);
        backlog.add(&acme, 5);
        assert_eq!(backlog.is_full(&acme), None);
        backlog.add(&acme, 1);
        assert!(backlog.is_full(&acme).is_some());
        assert_eq!(backlog.is_full(&globex), None);
        backlog.set(HashMap::new());
        assert_eq!(backlog.is_full(&acme), None);
        assert!(backlog.bytes().of.is_empty(), "who has no backlog takes no memory");
    }
}
