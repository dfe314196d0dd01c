//! The memory of the whole process for answers that callers have not read yet. Each
//! organisation may have as much of it as is still free, so that one that reads nothing
//! leaves room for the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::{
    OrganisationId,
    met::Limit,
    metrics::{Gauge, Requests},
    shares::Shares,
};

/// What is no larger needs no room: as many of these as there may be requests take no
/// more than what there is for all others.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// All of it. One per process.
#[derive(Debug)]
pub struct AnswerMemory {
    bytes_max: usize,
    /// By organisation; absent: the operator's.
    taken: Mutex<Shares<Option<OrganisationId>>>,
    in_flight: Gauge,
    refused: Limit,
}

impl AnswerMemory {
    /// So many bytes, for answers larger than 16 KiB.
    #[must_use]
    pub fn new(bytes_max: usize, requests: &Requests) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            taken: Mutex::default(),
            in_flight: requests.answer_bytes.clone(),
            refused: requests.refusals.answers.clone(),
        })
    }

    /// Room for an answer to an organisation, or to the operator, if there is; for the
    /// only one there is in any case, so that nothing is refused for ever. It is given
    /// back when what is returned is dropped.
    #[must_use]
    pub fn room(self: &Arc<Self>, organisation: Option<&OrganisationId>, bytes: usize) -> Option<Room> {
        if bytes > SMALL_BYTES_MAX {
            let taken = self.taken();
            let is_left = match organisation {
                Some(_) => taken.leaves(&organisation.cloned(), bytes, self.bytes_max),
                // The operator's have no bound but the whole.
                None => taken.fits(bytes, self.bytes_max),
            };
            if !is_left {
                self.refused.met(organisation);
                return None;
            }
            return Some(self.take(taken, organisation, bytes));
        }
        Some(Room { memory: self.clone(), organisation: None, bytes: 0 })
    }

    /// The same, whether or not there is room.
    pub(crate) fn room_anyway(self: &Arc<Self>, organisation: Option<&OrganisationId>, bytes: usize) -> Room {
        self.take(self.taken(), organisation, bytes)
    }

    #[allow(clippy::cast_possible_wrap)] // what is in memory fits an i64
    fn take(
        self: &Arc<Self>,
        mut taken: MutexGuard<'_, Shares<Option<OrganisationId>>>,
        organisation: Option<&OrganisationId>,
        bytes: usize,
    ) -> Room {
        taken.add(organisation.cloned(), bytes);
        self.in_flight.set(taken.all() as i64);
        Room { memory: self.clone(), organisation: organisation.cloned(), bytes }
    }

    fn taken(&self) -> MutexGuard<'_, Shares<Option<OrganisationId>>> {
        // Numbers are whole after every step.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.taken().all()
    }
}

/// Room for one answer. Given back when dropped.
#[derive(Debug)]
pub struct Room {
    memory: Arc<AnswerMemory>,
    organisation: Option<OrganisationId>,
    bytes: usize,
}

impl Room {
    /// Bytes that it is for: given back when the last slice of them is gone.
    #[must_use]
    pub fn hold(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Held { bytes, _room: self }) }
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Room {
    #[allow(clippy::cast_possible_wrap)] // as above
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.memory.taken();
        taken.remove(&self.organisation, self.bytes);
        self.memory.in_flight.set(taken.all() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    const ONE: usize = SMALL_BYTES_MAX + 1;

    fn memory(bytes_max: usize) -> (Arc<AnswerMemory>, Requests) {
        let requests = Requests::register(&mut Registry::new("sluice-test", "0"));
        (AnswerMemory::new(bytes_max, &requests), requests)
    }

    #[test]
    fn there_is_room_up_to_the_limit_until_the_last_slice_is_gone() {
        let (memory, requests) = memory(2 * ONE);
        let (first, second) = (memory.room(None, ONE).unwrap(), memory.room(None, ONE).unwrap());
        assert!(memory.room(None, ONE).is_none());
        assert!(memory.room(None, SMALL_BYTES_MAX).is_some(), "what is small needs none");
        drop(first);
        let third = memory.room_anyway(None, 2 * ONE);
        assert_eq!((memory.used(), requests.answer_bytes.get()), (3 * ONE, 3 * ONE as i64));
        let mut held = third.hold(vec![0; 2 * ONE].into());
        let part = held.split_to(3);
        drop((second, held));
        assert_eq!(memory.used(), 2 * ONE);
        drop(part);
        assert_eq!((memory.used(), requests.answer_bytes.get()), (0, 0));
        assert!(memory.room(None, 3 * ONE).is_some(), "one alone always fits");
        assert_eq!(requests.refusals.answers.count(), 1);
    }

    #[test]
    fn each_organisation_has_up_to_as_much_as_is_free() {
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let (memory, _) = memory(16 * ONE);
        let all_of = |organisation| -> Vec<_> {
            std::iter::from_fn(|| memory.room(Some(organisation), ONE)).collect()
        };
        let (first, second) = (all_of(&acme), all_of(&globex));
        assert_eq!((first.len(), second.len()), (8, 4));
        drop((first, second));
        assert!(memory.taken().is_empty(), "who has none takes no memory");
    }
}
