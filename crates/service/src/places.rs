//! Places for the requests of the whole process. Each organisation may have as many as
//! are still free, so that one that keeps all it gets leaves room for the others; so may
//! all together who are nobody: those that were refused and don't read it, and those that
//! need no token. Tokens for all organisations are the operator's, and have no bound but
//! the whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{OrganisationId, shares::Shares};

/// All places. One per process.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Mutex<Shares<Owner>>,
}

/// Who has a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// As long as nothing is known.
    Nobody,
    Organisation(OrganisationId),
    Operator,
}

impl Owner {
    /// Whether one may have another place.
    fn may_take(&self, taken: &Shares<Self>, max: usize) -> bool {
        *self == Self::Operator || taken.leaves(self, 1, max)
    }
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A place for nobody yet, if one is free.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if !Owner::Nobody.may_take(&taken, self.max) {
            return None;
        }
        taken.add(Owner::Nobody, 1);
        Some(Place(Arc::new(Held { places: self.clone(), owner: Mutex::new(Owner::Nobody) })))
    }

    fn taken(&self) -> MutexGuard<'_, Shares<Owner>> {
        // Numbers are whole after every step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place, free when the last clone is dropped. The layers behind find it in
/// the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    owner: Mutex<Owner>,
}

impl Held {
    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The request turned out to be of an organisation, or of the operator: whether it may
    /// have this place.
    pub(crate) fn is_left_for(&self, organisation: Option<&OrganisationId>) -> bool {
        let owner = organisation.cloned().map_or(Owner::Operator, Owner::Organisation);
        let mut before = self.0.owner();
        let mut taken = self.0.places.taken();
        taken.remove(&before, 1);
        let is_left = owner.may_take(&taken, self.0.places.max);
        if is_left {
            *before = owner;
        }
        taken.add(before.clone(), 1);
        is_left
    }

    /// Of which organisation the request is, if it is of one and that is known.
    pub(crate) fn organisation(&self) -> Option<OrganisationId> {
        match &*self.0.owner() {
            Owner::Organisation(organisation) => Some(organisation.clone()),
            Owner::Nobody | Owner::Operator => None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.taken().remove(&self.owner(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more() {
        let places = Places::new(2);
        let of_operator = || places.take().filter(|place| place.is_left_for(None));
        let (first, _second) = (of_operator().unwrap(), of_operator().unwrap());
        assert!(places.take().is_none());
        let again = first.clone();
        drop(first);
        assert!(places.take().is_none(), "held by its clone");
        drop(again);
        assert!(places.take().is_some());
    }

    #[test]
    fn each_has_up_to_as_many_as_are_free() {
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let places = Places::new(16);
        let all_of = |organisation: &OrganisationId| {
            let one = || places.take().filter(|place| place.is_left_for(Some(organisation)));
            std::iter::from_fn(one).collect::<Vec<_>>()
        };
        let (first, second) = (all_of(&acme), all_of(&globex));
        let nobody: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!((first.len(), second.len(), nobody.len()), (8, 4, 2));
        drop((first, second, nobody));
        assert!(places.taken().is_empty(), "who has no place takes no memory");
        // Where there is but one it is anybody's.
        let places = Places::new(1);
        assert!(places.take().is_some_and(|place| place.is_left_for(Some(&acme))));
    }
}
