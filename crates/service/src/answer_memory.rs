//! The memory of the whole process for answers that callers have not read yet. Each
//! organisation may have as much of it as is still free, so that one that reads nothing
//! leaves room for the others.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    OrganisationId,
    met::Limit,
    metrics::Requests,
    rations::{Ration, Rations},
    shares::Owner,
};

/// What is no larger needs no room: as many of these as there may be requests take no
/// more than what there is for all others.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;

/// All of it. One per process.
#[derive(Debug)]
pub struct AnswerMemory {
    rations: Arc<Rations>,
    refused: Limit,
}

impl AnswerMemory {
    /// So many bytes, for answers larger than 16 KiB.
    #[must_use]
    pub fn new(bytes_max: usize, requests: &Requests) -> Arc<Self> {
        Arc::new(Self {
            rations: Rations::new(bytes_max, requests.answer_bytes.clone()),
            refused: requests.refusals.answers.clone(),
        })
    }

    /// Room for an answer to an organisation, if there is; for the only one there is in any
    /// case, so that nothing is refused for ever. It is given back when what is returned is
    /// dropped.
    #[must_use]
    pub fn room(&self, organisation: &OrganisationId, bytes: usize) -> Option<Room> {
        self.room_of(&Owner::Organisation(organisation.clone()), bytes)
    }

    /// The same for whoever it is.
    pub(crate) fn room_of(&self, owner: &Owner, bytes: usize) -> Option<Room> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(Room(None));
        }
        let ration = self.rations.take_now(owner, bytes);
        if ration.is_none() {
            self.refused.met(owner.organisation());
        }
        Some(Room(Some(ration?)))
    }

    /// The same, whether or not there is room.
    pub(crate) fn room_anyway(&self, owner: &Owner, bytes: usize) -> Room {
        Room(Some(self.rations.take_anyway(owner, bytes)))
    }

    /// Bytes in use now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.rations.in_use()
    }
}

/// Room for one answer; what is small has none. Given back when dropped.
#[derive(Debug)]
pub struct Room(Option<Ration>);

impl Room {
    /// Bytes that it is for: given back when the last slice of them is gone.
    #[must_use]
    pub fn hold(self, bytes: Bytes) -> Bytes {
        match self.0 {
            None => bytes,
            Some(ration) => Bytes::from_owner(Held { bytes, _ration: ration }),
        }
    }
}

struct Held {
    bytes: Bytes,
    _ration: Ration,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
        let room = |bytes| memory.room_of(&Owner::Operator, bytes);
        let (first, second) = (room(ONE).unwrap(), room(ONE).unwrap());
        assert!(room(ONE).is_none());
        assert!(room(SMALL_BYTES_MAX).is_some(), "what is small needs none");
        drop(first);
        let third = memory.room_anyway(&Owner::Operator, 2 * ONE);
        assert_eq!((memory.used(), requests.answer_bytes.get()), (3 * ONE, 3 * ONE as i64));
        let mut held = third.hold(vec![0; 2 * ONE].into());
        let part = held.split_to(3);
        drop((second, held));
        assert_eq!(memory.used(), 2 * ONE);
        drop(part);
        assert_eq!((memory.used(), requests.answer_bytes.get()), (0, 0));
        assert!(room(3 * ONE).is_some(), "one alone always fits");
        assert_eq!(requests.refusals.answers.count(), 1);
    }
}
