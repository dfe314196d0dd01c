//! Places for the requests of the whole process. Each organisation may have as many as
//! are still free, so that one that keeps all it gets leaves room for the others; so may
//! all together who are nobody, without a valid token: those that are refused and don't
//! read it, and those that need none. Tokens for all organisations are the operator's, and
//! have no bound but the whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{OrganisationId, shares::Shares};

/// All places. One per process.
#[derive(Debug)]
pub(crate) struct Places {
    max: usize,
    taken: Mutex<Shares<Owner>>,
}

/// Whose a request is, and what it takes up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// It came without a valid token.
    Nobody,
    Organisation(OrganisationId),
    Operator,
}

impl Owner {
    /// The organisation, if it is one's.
    pub(crate) fn organisation(&self) -> Option<&OrganisationId> {
        match self {
            Self::Organisation(organisation) => Some(organisation),
            Self::Nobody | Self::Operator => None,
        }
    }

    /// Whether it may have so much more: the operator whatever is free, and others as much
    /// as leaves the same for somebody else.
    pub(crate) fn may_take(&self, taken: &Shares<Self>, amount: usize, max: usize) -> bool {
        match self {
            Self::Operator => taken.fits(amount, max),
            Self::Nobody | Self::Organisation(_) => taken.leaves(self, amount, max),
        }
    }
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// A place, if its owner may have another one.
    pub(crate) fn take(self: &Arc<Self>, owner: Owner) -> Option<Place> {
        let mut taken = self.taken();
        if !owner.may_take(&taken, 1, self.max) {
            return None;
        }
        taken.add(owner.clone(), 1);
        Some(Place(Arc::new(Held { places: self.clone(), owner })))
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
    owner: Owner,
}

impl Place {
    /// Whose it is.
    pub(crate) fn owner(&self) -> &Owner {
        &self.0.owner
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.taken().remove(&self.owner, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more() {
        let places = Places::new(2);
        let of_operator = || places.take(Owner::Operator);
        let (first, _second) = (of_operator().unwrap(), of_operator().unwrap());
        assert!(of_operator().is_none());
        let again = first.clone();
        drop(first);
        assert!(of_operator().is_none(), "held by its clone");
        drop(again);
        assert!(of_operator().is_some());
    }

    #[test]
    fn each_has_up_to_as_many_as_are_free() {
        let [acme, globex] = ["acme", "globex"].map(|name| Owner::Organisation(name.parse().unwrap()));
        let places = Places::new(16);
        let all_of = |owner: &Owner| std::iter::from_fn(|| places.take(owner.clone())).collect::<Vec<_>>();
        let all = [Owner::Nobody, acme.clone(), globex, Owner::Operator].map(|owner| all_of(&owner));
        assert_eq!(all.each_ref().map(Vec::len), [8, 4, 2, 2]);
        drop(all);
        assert!(places.taken().is_empty(), "who has no place takes no memory");
        // Where there is but one it is anybody's.
        assert!(Places::new(1).take(acme).is_some());
    }
}
