//! Places for the requests of the whole process. Each organisation may have as many as
//! are still free, so that one that keeps all it gets leaves room for the others; so may
//! all together who are nobody: those that were refused and don't read it, and those that
//! need no token. Tokens for all organisations are the operator's, and have no bound but
//! the whole.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::OrganisationId;

/// All places. One per process.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

/// Who has none is not in it.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Owner, usize>,
}

/// Who has a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// As long as nothing is known.
    Nobody,
    Organisation(OrganisationId),
    Operator,
}

impl Taken {
    /// Whether so many are free that one may have another one.
    fn is_left(&self, free: usize, owner: &Owner) -> bool {
        let own = self.by.get(owner).copied().unwrap_or_default();
        *owner == Owner::Operator || own < free
    }

    fn add(&mut self, owner: Owner) {
        self.all += 1;
        *self.by.entry(owner).or_default() += 1;
    }

    fn remove(&mut self, owner: &Owner) {
        self.all -= 1;
        if let Some(own) = self.by.get_mut(owner) {
            *own -= 1;
            if *own == 0 {
                self.by.remove(owner);
            }
        }
    }
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A place for nobody yet, if one is free.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        let free = self.max - taken.all;
        if !taken.is_left(free, &Owner::Nobody) {
            return None;
        }
        taken.add(Owner::Nobody);
        Some(Place(Arc::new(Held { places: self.clone(), owner: Mutex::new(Owner::Nobody) })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
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
        taken.remove(&before);
        let is_left = taken.is_left(self.0.places.max - taken.all, &owner);
        if is_left {
            *before = owner;
        }
        taken.add(before.clone());
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
        self.places.taken().remove(&self.owner());
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
        assert!(places.taken().by.is_empty(), "who has no place takes no memory");
        // Where there is but one it is anybody's.
        let places = Places::new(1);
        assert!(places.take().is_some_and(|place| place.is_left_for(Some(&acme))));
    }
}
