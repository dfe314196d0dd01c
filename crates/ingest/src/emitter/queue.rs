//! What waits to be emitted, by organisation: fair between them, bounded in
//! memory. Rows beyond the bound keep only their id and are read back from the
//! database when their turn comes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use sluice_proto::results::v1::ResultBatch;
use sluice_service::OrganisationId;
use tokio::time::Instant;
use uuid::Uuid;

use crate::outbox::{DISCARD_BYTES, RESULT_OVERHEAD_BYTES};

/// Kept messages beyond this are let go of.
const MEMORY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Bounds of one call.
const CALL_ITEMS_MAX: usize = 1000;
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A call begins so long after the one before at the earliest, with many results and with
/// few: each is a commit of the results service, which costs about the same for one result
/// as for a hundred, and time of whoever publishes meanwhile.
const GATHER_MIN: Duration = Duration::from_millis(10);
pub const GATHER_MAX: Duration = Duration::from_millis(50);
const MANY_ITEMS: usize = CALL_ITEMS_MAX / 20;
const MANY_BYTES: usize = CALL_BYTES_MAX / 20;
/// What a row counts for when it is not in memory: as much as it can hold.
const UNKNOWN_ITEMS: usize = CALL_ITEMS_MAX;
/// First and longest pause of a single organisation.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A row on its way.
#[derive(Debug)]
pub struct Row {
    /// Its key in the outbox.
    pub id: Uuid,
    /// Whose results they are.
    pub organisation: OrganisationId,
    /// Size as kept.
    pub bytes: usize,
    /// The message, if it is in memory.
    pub message: Option<Arc<ResultBatch>>,
}

impl Row {
    fn memory_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| {
            let results = message.results.iter().map(|r| r.data.len() + RESULT_OVERHEAD_BYTES);
            results.sum::<usize>() + message.discarded_files.len() * DISCARD_BYTES
        })
    }

    /// How much of a call it takes: results and discarded files.
    fn items(&self) -> usize {
        let of = |message: &Arc<ResultBatch>| message.results.len() + message.discarded_files.len();
        self.message.as_ref().map_or(UNKNOWN_ITEMS, of)
    }

    /// How many bytes of a call it takes.
    fn weight(&self) -> usize {
        self.memory_bytes().max(self.bytes)
    }
}

#[derive(Debug, Default)]
struct Line {
    rows: VecDeque<Row>,
    in_flight: usize,
    failures: u32,
    not_before: Option<Instant>,
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
    /// Results and discarded files of the rows that wait, and their bytes.
    waiting_items: usize,
    waiting_bytes: usize,
}

impl Queue {
    /// Appends a row, unless it is known already.
    pub fn push_back(&mut self, mut row: Row) {
        if !self.known.insert(row.id) {
            return;
        }
        let bytes = row.memory_bytes();
        if self.memory_bytes + bytes > MEMORY_BYTES_MAX {
            row.message = None;
        } else {
            self.memory_bytes += bytes;
        }
        self.waiting_items += row.items();
        self.waiting_bytes += row.weight();
        let organisation = row.organisation.clone();
        let line = self.lines.entry(organisation.clone()).or_default();
        line.rows.push_back(row);
        if line.rows.len() == 1 && line.in_flight == 0 {
            self.turns.push_back(organisation);
        }
    }

    /// The rows of the next call: organisations in turn, all that each has and
    /// that fits. Empty when nobody is ready.
    pub fn next_call(&mut self) -> Vec<Row> {
        let now = Instant::now();
        let (mut call, mut items, mut bytes) = (Vec::new(), 0, 0);
        let mut later = VecDeque::new();
        while let Some(organisation) = self.turns.pop_front() {
            let Some(line) = self.lines.get_mut(&organisation) else { continue };
            if line.not_before.is_some_and(|at| at > now) {
                later.push_back(organisation);
                continue;
            }
            line.not_before = None;
            while let Some(row) = line.rows.front() {
                let (more, weight) = (row.items(), row.weight());
                if !call.is_empty() && (items + more > CALL_ITEMS_MAX || bytes + weight > CALL_BYTES_MAX) {
                    break;
                }
                items += more;
                bytes += weight;
                self.waiting_items -= more;
                self.waiting_bytes -= weight;
                call.extend(line.rows.pop_front());
                line.in_flight += 1;
            }
            if line.in_flight == 0 {
                // It did not fit at all: first in the next call.
                later.push_front(organisation);
                break;
            }
            if items >= CALL_ITEMS_MAX || bytes >= CALL_BYTES_MAX {
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

    /// How long after the last one a call is to begin: at once if what waits is enough for
    /// one that takes no more, should all of it be ready.
    #[must_use]
    pub fn gather(&self) -> Duration {
        let (items, bytes) = (self.waiting_items, self.waiting_bytes);
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
        let ready =
            |organisation| Some(self.lines.get(organisation)?.not_before.unwrap_or(earliest).max(earliest));
        self.turns.iter().filter_map(ready).min()
    }

    /// A row that was in flight needs no more.
    pub fn settled(&mut self, row: &Row) {
        self.known.remove(&row.id);
        self.memory_bytes = self.memory_bytes.saturating_sub(row.memory_bytes());
        self.landed(&row.organisation, |line| line.failures = 0);
    }

    /// A row that was in flight has to go again, ahead of the others.
    pub fn give_back(&mut self, row: Row) {
        self.wait_again(row, |_| {});
    }

    /// Like [`Self::give_back`], after a pause of its organisation.
    pub fn defer(&mut self, row: Row) {
        self.wait_again(row, |line| {
            line.failures += 1;
            line.not_before = Some(Instant::now() + super::pause(line.failures, PAUSE_MIN, PAUSE_MAX));
        });
    }

    fn wait_again(&mut self, row: Row, change: impl FnOnce(&mut Line)) {
        let (organisation, items, weight) = (row.organisation.clone(), row.items(), row.weight());
        let landed = self.landed(&organisation, |line| {
            change(line);
            line.rows.push_front(row);
        });
        if landed {
            self.waiting_items += items;
            self.waiting_bytes += weight;
        }
    }

    /// A row that was in flight is so no more; `false`: it was of before a release,
    /// after which the queue knows nothing of what was in flight.
    fn landed(&mut self, organisation: &OrganisationId, change: impl FnOnce(&mut Line)) -> bool {
        let Some(line) = self.lines.get_mut(organisation) else { return false };
        line.in_flight = line.in_flight.saturating_sub(1);
        change(line);
        match (line.in_flight, line.rows.is_empty()) {
            (0, true) => drop(self.lines.remove(organisation)),
            (0, false) if !self.turns.contains(organisation) => self.turns.push_back(organisation.clone()),
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::results::v1::NewResult;

    use super::*;

    fn row(organisation: &str, results: usize, data: usize) -> Row {
        let result = NewResult { data: vec![0; data].into(), ..NewResult::default() };
        let message = ResultBatch { results: vec![result; results], ..ResultBatch::default() };
        Row {
            id: Uuid::now_v7(),
            organisation: organisation.parse().unwrap(),
            bytes: 100,
            message: Some(Arc::new(message)),
        }
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.organisation.as_str()).collect()
    }

    #[test]
    fn one_organisation_has_one_call_in_flight() {
        let mut queue = Queue::default();
        queue.push_back(row("a", 1, 1));
        let call = queue.next_call();
        queue.push_back(row("a", 1, 1));
        queue.push_back(row("b", 1, 1));
        assert_eq!(names(&queue.next_call()), ["b"]);
        assert!(queue.next_call().is_empty());
        queue.settled(&call[0]);
        assert_eq!(names(&queue.next_call()), ["a"]);
    }

    #[test]
    fn a_call_is_bounded_in_results_and_bytes() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push_back(row("a", 500, 1));
        }
        assert_eq!(queue.next_call().len(), 2);
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push_back(row("a", 1, 2_000_000));
        }
        assert_eq!(queue.next_call().len(), 2);
        let mut queue = Queue::default();
        queue.push_back(row("a", 1, 5_000_000));
        assert_eq!(queue.next_call().len(), 1);
    }

    #[test]
    fn the_more_waits_the_sooner_it_goes() {
        let mut queue = Queue::default();
        let now = Instant::now();
        assert_eq!(queue.next_ready(now), None);
        queue.push_back(row("a", 49, 1));
        assert_eq!(queue.gather(), GATHER_MAX);
        assert_eq!(queue.next_ready(now), Some(now));
        queue.push_back(row("a", 1, 1));
        assert_eq!(queue.gather(), GATHER_MIN);
        queue.push_back(row("b", 949, 1));
        assert_eq!(queue.gather(), GATHER_MIN);
        queue.push_back(row("b", 1, 1));
        assert_eq!(queue.gather(), Duration::ZERO);
        assert_eq!(queue.next_call().len(), 4);
        assert_eq!(queue.gather(), GATHER_MAX);
        let of_bytes = |bytes| row("c", 1, bytes - RESULT_OVERHEAD_BYTES);
        for (bytes, gather) in [
            (MANY_BYTES - 1, GATHER_MAX),
            (MANY_BYTES, GATHER_MIN),
            (CALL_BYTES_MAX - 1, GATHER_MIN),
            (CALL_BYTES_MAX, Duration::ZERO),
        ] {
            let mut queue = Queue::default();
            queue.push_back(of_bytes(bytes));
            assert_eq!(queue.gather(), gather, "{bytes}");
        }
        assert_eq!(queue.next_ready(now), None, "what is in flight is waited for");
    }

    #[test]
    fn discarded_files_count_like_results() {
        let discarding = |files: usize| {
            let message =
                ResultBatch { discarded_files: vec![String::new(); files], ..ResultBatch::default() };
            Row { message: Some(Arc::new(message)), ..row("a", 0, 0) }
        };
        let mut queue = Queue::default();
        for files in [600, 400, 1] {
            queue.push_back(discarding(files));
        }
        assert!(queue.memory_bytes > 0);
        let call = queue.next_call();
        assert_eq!(call.len(), 2);
        call.iter().for_each(|row| queue.settled(row));
        assert_eq!(queue.next_call().len(), 1);
    }

    #[test]
    fn what_goes_back_keeps_its_place_and_a_deferred_organisation_pauses() {
        let mut queue = Queue::default();
        queue.push_back(row("a", 600, 1));
        queue.push_back(row("a", 600, 1));
        let first = queue.next_call().remove(0);
        let id = first.id;
        queue.give_back(first);
        let again = queue.next_call().remove(0);
        assert_eq!(again.id, id);
        queue.defer(again);
        assert!(queue.next_call().is_empty());
        let now = Instant::now();
        assert!(queue.next_ready(now).unwrap() > now);
        assert_eq!(queue.waiting_items, 1200);
    }

    #[test]
    fn a_row_that_is_known_is_passed_over_until_it_is_settled() {
        let mut queue = Queue::default();
        let again = |row: &Row| Row { message: None, organisation: row.organisation.clone(), ..*row };
        let first = row("a", 1, 1);
        let (second, third) = (again(&first), again(&first));
        queue.push_back(first);
        queue.push_back(second);
        let call = queue.next_call();
        assert_eq!(call.len(), 1);
        queue.push_back(third);
        queue.settled(&call[0]);
        assert!(queue.is_empty());
        queue.push_back(again(&call[0]));
        assert_eq!(queue.next_call().len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut queue = Queue::default();
        for _ in 0..8 {
            queue.push_back(row("a", 1, 4_000_000));
        }
        assert!(queue.memory_bytes <= MEMORY_BYTES_MAX);
        loop {
            let call = queue.next_call();
            if call.is_empty() {
                break;
            }
            call.iter().for_each(|row| queue.settled(row));
        }
        assert_eq!(queue.memory_bytes, 0);
        assert!(queue.lines.is_empty());
    }
}
