//! What a list asks for: filters, the way to walk, and the place in the walk.
//! Pure. All bounds on (date_created, id), the page token's among them, end as
//! one open interval, which an index scan starts and stops at.

use md5::{Digest, Md5};
use prost_types::Timestamp;
use sluice_service::{Error, Kind, OrganisationId};
use uuid::Uuid;

use crate::{result::Checksum, time::Micros};

/// The shape of a page token: version, walk, moment, id.
const TOKEN_BYTES: usize = 1 + WALK_BYTES + 8 + 16;
const TOKEN_VERSION: u8 = 1;
const WALK_BYTES: usize = 8;

/// A place in the order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `date_created`.
    pub date: Micros,
    /// `id`.
    pub id: Uuid,
}

impl Key {
    const LAST: Self = Self { date: Micros::AFTER_ALL, id: Uuid::max() };
}

/// In which direction to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Descending by (date_created, id).
    NewestFirst,
    /// Ascending by (date_created, id).
    OldestFirst,
}

/// A range of whole microseconds: `from` is in it, `until` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first moment in it.
    pub from: Micros,
    /// The first moment after it.
    pub until: Micros,
}

impl Range {
    /// Everything there is.
    pub const ALL: Self = Self { from: Micros::BEFORE_ALL, until: Micros::AFTER_ALL };

    /// Narrows to what is later than a bound, or at it too with `or_at`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if it is no valid timestamp.
    pub fn after(&mut self, field: &str, bound: Option<&Timestamp>, or_at: bool) -> Result<(), Error> {
        if let Some((floor, exact)) = parse(field, bound)? {
            let from = if or_at && exact { floor } else { floor.next() };
            self.from = self.from.max(from);
        }
        Ok(())
    }

    /// Narrows to what is earlier than a bound, or at it too with `or_at`.
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn before(&mut self, field: &str, bound: Option<&Timestamp>, or_at: bool) -> Result<(), Error> {
        if let Some((floor, exact)) = parse(field, bound)? {
            let until = if exact && !or_at { floor } else { floor.next() };
            self.until = self.until.min(until);
        }
        Ok(())
    }
}

fn parse(field: &str, bound: Option<&Timestamp>) -> Result<Option<(Micros, bool)>, Error> {
    let Some(timestamp) = bound else { return Ok(None) };
    match Micros::floor(timestamp) {
        Some(moment) => Ok(Some(moment)),
        None => Err(Error::invalid(field, "must be a timestamp of the years 1 to 9999")),
    }
}

/// Which states are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    /// AVAILABLE ones.
    pub available: bool,
    /// CONSUMED ones.
    pub consumed: bool,
    /// EXPIRED ones.
    pub expired: bool,
}

impl States {
    /// What a list without `states` means.
    pub const AVAILABLE: Self = Self { available: true, consumed: false, expired: false };
}

/// Which results are asked for. All that is given applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Only of this poll.
    pub poll: Option<String>,
    /// Only of this task; empty: only those without one.
    pub task: Option<String>,
    /// Only with this identifier.
    pub identifier: Option<String>,
    /// Only with this checksum.
    pub checksum: Option<Checksum>,
    /// Only in these states.
    pub states: States,
    /// Only created in this range.
    pub date_created: Range,
    /// Only consumed in this range.
    pub date_consumed: Option<Range>,
    /// Only with their data removed in this range.
    pub date_deleted: Option<Range>,
}

/// Where a list is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The narrow table of what is AVAILABLE.
    Available,
    /// The batches of one poll.
    Poll,
    /// All of the organisation's batches.
    All,
}

impl Filter {
    /// Where to read it from.
    #[must_use]
    pub fn source(&self) -> Source {
        match (&self.poll, self.states) {
            (Some(_), _) => Source::Poll,
            (None, States::AVAILABLE) => Source::Available,
            (None, _) => Source::All,
        }
    }

    /// Whether nothing can match: what is only AVAILABLE was neither consumed
    /// nor deleted.
    #[must_use]
    pub fn is_void(&self) -> bool {
        let dated = self.date_consumed.is_some() || self.date_deleted.is_some();
        let empty = self.date_created.from >= self.date_created.until;
        empty || (dated && self.states == States::AVAILABLE)
    }
}

/// One walk over the pages of a list.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The tenant.
    pub organisation: OrganisationId,
    /// What matches.
    pub filter: Filter,
    /// In which direction.
    pub order: Order,
}

impl Walk {
    /// The open interval of keys a page is read from: the filter's range, less
    /// what the pages before `token` covered.
    ///
    /// # Errors
    /// INVALID_ARGUMENT (`INVALID_PAGE_TOKEN`) if it is no token of this walk.
    pub fn interval(&self, token: &str) -> Result<(Key, Key), Error> {
        let range = self.filter.date_created;
        // Open bounds: the nil id is below, and the max id above, every UUIDv7.
        let mut low = Key { date: range.from, id: Uuid::nil() };
        let mut high = match range.until {
            Micros::AFTER_ALL => Key::LAST,
            until => Key { date: until, id: Uuid::nil() },
        };
        if !token.is_empty() {
            let last = self.read_token(token).ok_or_else(|| {
                let text = "page_token: not one of a walk with these filters, order and organisation";
                Error::new(Kind::InvalidArgument, "INVALID_PAGE_TOKEN", text).violating("page_token", text)
            })?;
            match self.order {
                Order::NewestFirst => high = high.min(last),
                Order::OldestFirst => low = low.max(last),
            }
        }
        Ok((low, high))
    }

    /// The token of the page that begins after `last`. It says nothing that
    /// the caller was not told, and grants nothing.
    #[must_use]
    pub fn token(&self, last: Key) -> String {
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(TOKEN_VERSION);
        bytes.extend_from_slice(&self.digest());
        bytes.extend_from_slice(&last.date.raw().to_be_bytes());
        bytes.extend_from_slice(last.id.as_bytes());
        hex::encode(bytes)
    }

    fn read_token(&self, token: &str) -> Option<Key> {
        let mut bytes = [0; TOKEN_BYTES];
        hex::decode_to_slice(token, &mut bytes).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (walk, rest) = rest.split_first_chunk::<WALK_BYTES>()?;
        let (date, id) = rest.split_first_chunk::<8>()?;
        let date = Micros::from_raw(i64::from_be_bytes(*date));
        // A place that no result can have was never told.
        let told = *version == TOKEN_VERSION && *walk == self.digest() && date.is_tellable();
        told.then_some(Key { date, id: Uuid::from_slice(id).ok()? })
    }

    /// What tells this walk from others. Stable over builds, since the next
    /// page may be asked of another replica.
    fn digest(&self) -> [u8; WALK_BYTES] {
        let Filter { poll, task, identifier, checksum, states, .. } = &self.filter;
        let mut hash = Md5::new();
        for text in
            [Some(self.organisation.as_str()), poll.as_deref(), task.as_deref(), identifier.as_deref()]
        {
            match text {
                // Lengths first, so that no two lists of texts look the same.
                Some(text) => {
                    hash.update((text.len() as u64).to_be_bytes());
                    hash.update(text);
                }
                None => hash.update(u64::MAX.to_be_bytes()),
            }
        }
        let checksum = checksum.map(|sum| sum.to_uuid()).unwrap_or_default();
        hash.update(checksum.as_bytes());
        hash.update([
            u8::from(self.filter.checksum.is_some()),
            u8::from(states.available),
            u8::from(states.consumed),
            u8::from(states.expired),
            u8::from(self.order == Order::OldestFirst),
            u8::from(self.filter.date_consumed.is_some()),
            u8::from(self.filter.date_deleted.is_some()),
        ]);
        let consumed = self.filter.date_consumed.unwrap_or(Range::ALL);
        let deleted = self.filter.date_deleted.unwrap_or(Range::ALL);
        for range in [self.filter.date_created, consumed, deleted] {
            hash.update(range.from.raw().to_be_bytes());
            hash.update(range.until.raw().to_be_bytes());
        }
        let mut digest = [0; WALK_BYTES];
        digest.copy_from_slice(&hash.finalize()[..WALK_BYTES]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        Filter {
            poll: None,
            task: None,
            identifier: None,
            checksum: None,
            states: States::AVAILABLE,
            date_created: Range::ALL,
            date_consumed: None,
            date_deleted: None,
        }
    }

    fn walk(change: impl FnOnce(&mut Walk)) -> Walk {
        let mut walk =
            Walk { organisation: "acme".parse().unwrap(), filter: filter(), order: Order::NewestFirst };
        change(&mut walk);
        walk
    }

    const FIRST: Key = Key { date: Micros::BEFORE_ALL, id: Uuid::nil() };

    fn key(date: i64) -> Key {
        Key { date: Micros::from_raw(date), id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_token_bounds_the_next_page_on_the_side_it_came_from() {
        let newest = walk(|_| {});
        assert_eq!(newest.interval("").unwrap(), (FIRST, Key::LAST));
        assert_eq!(newest.interval(&newest.token(key(5))).unwrap(), (FIRST, key(5)));
        let oldest = walk(|w| w.order = Order::OldestFirst);
        assert_eq!(oldest.interval(&oldest.token(key(5))).unwrap(), (key(5), Key::LAST));
    }

    #[test]
    fn a_token_of_another_walk_is_refused() {
        let range = Range { from: Micros::from_raw(1), until: Micros::from_raw(2) };
        let text = |value: &str| Some(value.to_owned());
        let walks = [
            walk(|_| {}),
            walk(|w| w.organisation = "other".parse().unwrap()),
            walk(|w| w.order = Order::OldestFirst),
            walk(|w| w.filter.poll = text("")),
            walk(|w| w.filter.poll = text("p")),
            walk(|w| w.filter.task = text("p")),
            walk(|w| w.filter.identifier = text("p")),
            walk(|w| w.filter.checksum = Checksum::parse(&"0".repeat(32))),
            walk(|w| w.filter.states.consumed = true),
            walk(|w| w.filter.states.expired = true),
            walk(|w| w.filter.date_created = range),
            walk(|w| w.filter.date_consumed = Some(range)),
            walk(|w| w.filter.date_consumed = Some(Range::ALL)),
            walk(|w| w.filter.date_deleted = Some(range)),
        ];
        for (i, a) in walks.iter().enumerate() {
            for (j, b) in walks.iter().enumerate() {
                assert_eq!(a.interval(&b.token(key(5))).is_ok(), i == j, "{i} {j}");
            }
        }
    }

    #[test]
    fn nonsense_is_no_token() {
        let walk = walk(|_| {});
        let token = walk.token(key(5));
        for bad in ["x", &token[2..], &format!("{token}00"), &format!("02{}", &token[2..])] {
            assert_eq!(walk.interval(bad).unwrap_err().reason(), "INVALID_PAGE_TOKEN");
        }
    }

    #[test]
    fn a_place_that_no_result_can_have_is_no_token() {
        let walk = walk(|_| {});
        // Some 12,000 years from now.
        let far = 380_000_000_000_000_000;
        for date in [i64::MIN, i64::MIN + 1, -far, far, i64::MAX - 1, i64::MAX] {
            assert_eq!(walk.interval(&walk.token(key(date))).unwrap_err().reason(), "INVALID_PAGE_TOKEN");
        }
    }

    #[test]
    fn bounds_mean_what_they_say_to_the_nanosecond() {
        let at = |nanos| Timestamp { seconds: 946_684_800, nanos };
        let range = |lower: Option<(i32, bool)>, upper: Option<(i32, bool)>| {
            let mut range = Range::ALL;
            if let Some((nanos, or_at)) = lower {
                range.after("f", Some(&at(nanos)), or_at).unwrap();
            }
            if let Some((nanos, or_at)) = upper {
                range.before("f", Some(&at(nanos)), or_at).unwrap();
            }
            (range.from.raw(), range.until.raw())
        };
        assert_eq!(range(Some((2000, true)), Some((4000, true))), (2, 5));
        assert_eq!(range(Some((2000, false)), Some((4000, false))), (3, 4));
        assert_eq!(range(Some((2001, true)), Some((4001, false))), (3, 5));
        assert_eq!(range(Some((2001, false)), Some((4001, true))), (3, 5));
    }

    #[test]
    fn the_default_list_walks_the_narrow_table() {
        assert_eq!(filter().source(), Source::Available);
        assert_eq!(Filter { poll: Some("p".into()), ..filter() }.source(), Source::Poll);
        let states = States { expired: true, ..States::AVAILABLE };
        assert_eq!(Filter { states, ..filter() }.source(), Source::All);
    }

    #[test]
    fn what_waits_was_never_consumed() {
        assert!(!filter().is_void());
        assert!(Filter { date_consumed: Some(Range::ALL), ..filter() }.is_void());
        let range = Range { from: Micros::from_raw(3), until: Micros::from_raw(3) };
        assert!(Filter { date_created: range, ..filter() }.is_void());
    }
}
