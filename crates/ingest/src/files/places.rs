//! How many files may be on their way at a time: all together, so that memory is
//! bounded, and of one organisation, so that one whose bucket is stuck leaves
//! places for the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_service::{OrganisationId, shares::Shares};

use crate::outcome::Cause;

/// The places, and who has them.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<Mutex<Shares<OrganisationId>>>,
    all_max: usize,
    organisation_max: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    organisation: OrganisationId,
}

impl Places {
    /// So many places for all, and so many of them for one organisation.
    #[must_use]
    pub fn new(all_max: usize, organisation_max: usize) -> Self {
        Self { taken: Arc::default(), all_max, organisation_max }
    }

    fn taken(&self) -> MutexGuard<'_, Shares<OrganisationId>> {
        // Numbers are whole after every step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, if there is one.
    ///
    /// # Errors
    /// Whether all have none left, or the organisation alone.
    pub fn take(&self, organisation: &OrganisationId) -> Result<Place, Cause> {
        let mut taken = self.taken();
        if taken.all() >= self.all_max {
            return Err(Cause::Queue);
        }
        if taken.of(organisation) >= self.organisation_max {
            return Err(Cause::OrganisationQueue);
        }
        taken.add(organisation.clone(), 1);
        Ok(Place { places: self.clone(), organisation: organisation.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.organisation, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_one_and_for_all_and_given_back() {
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<OrganisationId>().unwrap());
        let places = Places::new(3, 2);
        let first = places.take(&a).unwrap();
        let second = places.take(&a).unwrap();
        assert_eq!(places.take(&a).unwrap_err(), Cause::OrganisationQueue, "its own are taken");
        let third = places.take(&b).unwrap();
        assert_eq!(places.take(&c).unwrap_err(), Cause::Queue, "all are taken");
        drop(first);
        assert!(places.take(&c).is_ok());
        assert!(places.take(&a).is_ok());
        drop((second, third));
        let taken = places.taken();
        assert!(taken.is_empty(), "{taken:?}");
    }
}
