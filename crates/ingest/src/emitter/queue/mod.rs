//! What waits to be emitted, by organisation: fair between them, bounded in
//! memory. Rows beyond the bound keep only what they count for and are read back from
//! the database when their turn comes.
//!
//! An organisation whose last call failed, or that has rows which wait for their storage,
//! gets calls of its own, at most two at a time, so that it can't slow down the others.

mod line;
mod row;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use sluice_proto::limits::RECORD_ITEMS_MAX;
use sluice_service::OrganisationId;
use tokio::time::Instant;
use uuid::Uuid;

use self::line::{Landed, Line, Sign, Sums};
pub use self::row::Row;
use super::{
    call::{Handed, Handover},
    trouble::Trouble,
};

/// Kept messages beyond this are let go of.
const MEMORY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Bounds of one call.
const CALL_ITEMS_MAX: usize = RECORD_ITEMS_MAX;
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A call begins so long after the one before at the earliest, with many results and with
/// few: each is a commit of the results service, which costs about the same for one result
/// as for a hundred, and time of whoever publishes meanwhile.
const GATHER_MIN: Duration = Duration::from_millis(10);
pub const GATHER_MAX: Duration = Duration::from_millis(50);
const MANY_ITEMS: usize = CALL_ITEMS_MAX / 10;
const MANY_BYTES: usize = CALL_BYTES_MAX / 20;
/// Calls of suspects under way. Each may take until its deadline.
const APART_CALLS_MAX: usize = 2;
/// Rows to be read back that may be ready before no more of the database's are taken.
const UNREAD_MAX: usize = 8 * CALL_ITEMS_MAX;
/// Rows of one organisation that are remembered to have to wait. Those beyond are
/// forgotten, and found again in the database.
const DEFERRED_MAX: usize = 64 * CALL_ITEMS_MAX;
/// The same of rows that nothing is known against, where calls may fail or take long.
const APART_UNREAD_MAX: usize = 2 * CALL_ITEMS_MAX;

/// How much is in a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    items: usize,
    bytes: usize,
}

impl Size {
    /// Whether a row fits, too. The first does, whatever it is.
    #[must_use]
    pub fn fits(self, row: &Row) -> bool {
        let (items, bytes) = (self.items + row.items, self.bytes + row.bytes);
        self.items == 0 || (items <= CALL_ITEMS_MAX && bytes <= CALL_BYTES_MAX)
    }

    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        self.items += row.items;
        self.bytes += row.bytes;
    }

    fn is_full(self) -> bool {
        self.items >= CALL_ITEMS_MAX || self.bytes >= CALL_BYTES_MAX
    }
}

/// The rows of one call, those of an organisation one after the other.
#[derive(Debug, Default)]
pub struct Call {
    /// What is to be sent.
    pub rows: Vec<Row>,
    /// It is of one organisation, whose calls may fail or take long.
    pub apart: bool,
    size: Size,
}

/// The waiting rows.
#[derive(Debug, Default)]
pub struct Queue {
    lines: HashMap<OrganisationId, Line>,
    /// Organisations with rows and nothing in flight, in turn.
    turns: VecDeque<OrganisationId>,
    /// All rows that wait or are in flight.
    known: HashSet<Uuid>,
    memory_bytes: usize,
    /// Rows that wait and that nothing is known against.
    ready: Sums,
    apart_calls: usize,
}

impl Queue {
    /// Appends a row, unless it is known already. If more of its organisation has to wait
    /// than is remembered, it is left in the database.
    pub fn push_back(&mut self, mut row: Row) {
        if !self.known.insert(row.id) {
            return;
        }
        let line = self.lines.entry(row.organisation.clone()).or_default();
        let is_too_much = row.message.is_none() && line.deferred_rows() >= DEFERRED_MAX
            || line.is_apart() && line.sums().unread >= APART_UNREAD_MAX;
        if is_too_much {
            self.known.remove(&row.id);
            return;
        }
        // Suspects wait, and their messages would take the place of others'.
        if line.is_apart() || self.memory_bytes + row.memory_bytes() > MEMORY_BYTES_MAX {
            row.message = None;
        }
        self.memory_bytes += row.memory_bytes();
        self.ready.add(Sums::of(&row));
        if line.is_idle() {
            self.turns.push_back(row.organisation.clone());
        }
        line.push_back(row);
    }

    /// The rows of the next call: organisations in turn, all that each has and
    /// that fits; or those of one suspect. Empty when nobody is ready.
    pub fn next_call(&mut self, now: Instant) -> Call {
        let mut call = Call::default();
        let mut later = VecDeque::new();
        while let Some(organisation) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&organisation) else { continue };
            let apart = line.is_apart();
            if apart && (!call.rows.is_empty() || self.apart_calls >= APART_CALLS_MAX) {
                later.push_back(organisation);
                continue;
            }
            self.ready.remove(line.sums());
            let filled = line.fill(&mut call, now);
            self.ready.add(line.sums());
            if !filled {
                later.push_back(organisation);
            } else if apart {
                call.apart = true;
                self.apart_calls += 1;
            }
            if apart && filled || call.size.is_full() {
                break;
            }
        }
        later.append(&mut self.turns);
        self.turns = later;
        call
    }

    /// Whether no row waits or is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether it takes more of what is in the database. What waits of those whose calls
    /// may fail or take long, and has a bound of its own, is in nobody's way.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let of_others = || self.lines.values().filter(|line| !line.is_apart()).map(|line| line.sums().unread);
        self.ready.unread < UNREAD_MAX || of_others().sum::<usize>() < UNREAD_MAX
    }

    /// How long after the last one a call is to begin: at once if what waits is enough for
    /// one that takes no more, should all of it be ready.
    #[must_use]
    pub fn gather(&self) -> Duration {
        let Sums { items, bytes, .. } = self.ready;
        if items >= CALL_ITEMS_MAX || bytes >= CALL_BYTES_MAX {
            Duration::ZERO
        } else if items >= MANY_ITEMS || bytes >= MANY_BYTES {
            GATHER_MIN
        } else {
            GATHER_MAX
        }
    }

    /// When the first organisation is ready that has rows and nothing in flight:
    /// after its pause, and not before `earliest`.
    #[must_use]
    pub fn next_ready(&self, earliest: Instant) -> Option<Instant> {
        let ready = |organisation| {
            let line = self.lines.get(organisation)?;
            // The end of another's call is waited for.
            let has_place = !line.is_apart() || self.apart_calls < APART_CALLS_MAX;
            line.ready_at(earliest).filter(|_| has_place)
        };
        self.turns.iter().filter_map(ready).min()
    }

    /// A call has ended.
    pub fn landed(&mut self, handed: Handed, now: Instant) {
        let Handed { rows, apart, trouble, .. } = handed;
        self.apart_calls -= usize::from(apart);
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let organisation = first.0.organisation.clone();
            let mut own = vec![first];
            own.extend(std::iter::from_fn(|| rows.next_if(|(row, _)| row.organisation == organisation)));
            self.landed_of(&organisation, own, (apart, trouble), now);
        }
    }

    fn landed_of(
        &mut self,
        organisation: &OrganisationId,
        rows: Vec<(Row, Option<Handover>)>,
        (apart, trouble): (bool, Option<Trouble>),
        now: Instant,
    ) {
        let Some(line) = self.lines.get_mut(organisation) else { return };
        let sent = rows.iter().filter(|(_, handover)| handover.is_some()).count();
        let failed = rows.iter().any(|(_, handover)| *handover == Some(Handover::Failed));
        // What takes too long has to wait; for what fails, the one row is looked for.
        let to_blame =
            apart && trouble != Some(Trouble::OfAll) && (trouble == Some(Trouble::Late) || sent == 1);
        let sign = match (failed, trouble) {
            (true, Some(Trouble::OfAll)) => Sign::None,
            (true, _) => Sign::Failed,
            (false, _) => Sign::Answered,
        };
        let mut landed = Landed { apart, sent, sign, ..Landed::default() };
        for (mut row, handover) in rows {
            match handover {
                Some(Handover::Recorded | Handover::NotOurs | Handover::SetAside) => {
                    landed.worked = true;
                    self.memory_bytes -= row.memory_bytes();
                    self.known.remove(&row.id);
                }
                Some(Handover::Failed) if !to_blame => landed.again.push(row),
                None => landed.again.push(row),
                Some(Handover::Deferred | Handover::Failed) => {
                    landed.waits = true;
                    self.memory_bytes -= row.memory_bytes();
                    row.message = None;
                    if line.deferred_rows() + landed.deferred.len() < DEFERRED_MAX {
                        landed.deferred.push(row);
                    } else {
                        self.known.remove(&row.id);
                    }
                }
            }
        }
        self.ready.remove(line.sums());
        line.landed(landed, now);
        self.ready.add(line.sums());
        if line.is_empty() {
            self.lines.remove(organisation);
        } else {
            self.turns.push_back(organisation.clone());
        }
    }
}

#[cfg(test)]
mod tests;
