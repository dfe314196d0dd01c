//! How much of something is taken, and by whom; and who may have more of it. Pure; whoever
//! shares it out puts a lock around it.

use std::{collections::HashMap, hash::Hash};

use crate::OrganisationId;

/// Whose a request is, and what it takes up. All together who are nobody are as one
/// organisation: those that are refused and don't read it, and those that need no token. Tokens
/// for all organisations are the operator's, and have no bound but the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// It is no organisation's, or came without a valid token.
    Nobody,
    /// It is an organisation's.
    Organisation(OrganisationId),
    /// It came with a token for all organisations.
    Operator,
}

impl From<&OrganisationId> for Owner {
    fn from(organisation: &OrganisationId) -> Self {
        Self::Organisation(organisation.clone())
    }
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

/// What is taken. Who has nothing is not in it.
#[derive(Debug)]
pub struct Shares<K> {
    all: usize,
    of: HashMap<K, usize>,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self { all: 0, of: HashMap::new() }
    }
}

impl<K: Eq + Hash> Shares<K> {
    /// How much is taken by all.
    #[must_use]
    pub fn all(&self) -> usize {
        self.all
    }

    /// How much one has.
    #[must_use]
    pub fn of(&self, owner: &K) -> usize {
        self.of.get(owner).copied().unwrap_or_default()
    }

    /// Whether so much more is free. A sole owner may have more than `max`: otherwise what is
    /// larger would wait, or be refused, for ever.
    #[must_use]
    pub fn fits(&self, amount: usize, max: usize) -> bool {
        self.all == 0 || amount <= max.saturating_sub(self.all)
    }

    /// Whether one may have so much more: together with what it has, as much as is still
    /// free. So one that keeps all it gets leaves some for the others.
    #[must_use]
    pub fn leaves(&self, owner: &K, amount: usize, max: usize) -> bool {
        self.fits(self.of(owner).saturating_add(amount), max)
    }

    /// One takes more.
    pub fn add(&mut self, owner: K, amount: usize) {
        self.all += amount;
        *self.of.entry(owner).or_default() += amount;
    }

    /// One gives back some of what it has.
    pub fn remove(&mut self, owner: &K, amount: usize) {
        self.all -= amount;
        if let Some(own) = self.of.get_mut(owner) {
            *own -= amount;
            if *own == 0 {
                self.of.remove(owner);
            }
        }
    }

    /// Whether nobody has anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all == 0 && self.of.is_empty()
    }
}
