//! The queue alone, with calls that end as the tests say.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use sluice_proto::results::v1::{NewResult, ResultBatch};

use super::*;

fn row_of(organisation: &str, message: ResultBatch) -> Row {
    let mut row = found(organisation, 0);
    row.count(&message);
    row.message = Some(Arc::new(message));
    row
}

fn row(organisation: &str, results: usize, data: usize) -> Row {
    let result = NewResult { data: vec![0; data].into(), ..NewResult::default() };
    row_of(organisation, ResultBatch { results: vec![result; results], ..ResultBatch::default() })
}

fn found(organisation: &str, results: usize) -> Row {
    Row::found(Uuid::now_v7(), organisation.parse().unwrap(), results, 100)
}

fn names(call: &Call) -> Vec<&str> {
    call.rows.iter().map(|row| row.organisation.as_str()).collect()
}

fn ids(call: &Call) -> Vec<Uuid> {
    call.rows.iter().map(|row| row.id).collect()
}

/// A queue and its time.
struct Timed {
    queue: Queue,
    now: Instant,
}

impl Default for Timed {
    fn default() -> Self {
        Self { queue: Queue::default(), now: Instant::now() }
    }
}

impl Deref for Timed {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl DerefMut for Timed {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

impl Timed {
    fn next_call(&mut self) -> Call {
        self.queue.next_call(self.now)
    }

    fn landed(&mut self, handed: Handed) {
        self.queue.landed(handed, self.now);
    }

    /// Ends a call, with what became of each row.
    fn answered(&mut self, call: Call, became: impl Fn(&Row) -> Handover) {
        let rows = call.rows.into_iter().map(|row| {
            let became = became(&row);
            (row, Some(became))
        });
        self.landed(Handed { rows: rows.collect(), apart: call.apart, trouble: None, works: None });
    }

    fn recorded(&mut self, call: Call) {
        self.answered(call, |_| Handover::Recorded);
    }

    fn failed(&mut self, call: Call, trouble: Trouble) {
        let rows = call.rows.into_iter().map(|row| (row, Some(Handover::Failed)));
        self.landed(Handed { rows: rows.collect(), apart: call.apart, trouble: Some(trouble), works: None });
    }

    /// Makes calls until nobody is ready; those with a row that is `bad` fail. The rows
    /// that were recorded, in order.
    fn drain(&mut self, trouble: Trouble, bad: impl Fn(&Row) -> bool) -> Vec<Uuid> {
        let mut done = Vec::new();
        loop {
            let call = self.next_call();
            if call.rows.is_empty() {
                return done;
            }
            if call.rows.iter().any(&bad) {
                self.failed(call, trouble);
            } else {
                done.extend(ids(&call));
                self.recorded(call);
            }
        }
    }
}

#[test]
fn one_organisation_has_one_call_in_flight() {
    let mut queue = Timed::default();
    queue.push_back(row("a", 1, 1));
    let call = queue.next_call();
    queue.push_back(row("a", 1, 1));
    queue.push_back(row("b", 1, 1));
    assert_eq!(names(&queue.next_call()), ["b"]);
    assert!(queue.next_call().rows.is_empty());
    queue.recorded(call);
    assert_eq!(names(&queue.next_call()), ["a"]);
}

#[test]
fn a_call_is_bounded_in_results_and_bytes() {
    let next = |rows: Vec<Row>| {
        let mut queue = Timed::default();
        rows.into_iter().for_each(|row| queue.push_back(row));
        queue.next_call().rows.len()
    };
    assert_eq!(next((0..3).map(|_| row("a", 500, 1)).collect()), 2);
    assert_eq!(next((0..3).map(|_| row("a", 1, 2_000_000)).collect()), 2);
    assert_eq!(next(vec![row("a", 1, 5_000_000)]), 1);
    assert_eq!(
        next((0..1001).map(|_| found("a", 1)).collect()),
        1000,
        "as kept, each says how many it holds"
    );
}

#[test]
fn the_more_waits_the_sooner_it_goes() {
    let mut queue = Timed::default();
    let now = queue.now;
    assert_eq!(queue.next_ready(now), None);
    queue.push_back(row("a", 99, 1));
    assert_eq!(queue.gather(), GATHER_MAX);
    assert_eq!(queue.next_ready(now), Some(now));
    queue.push_back(row("a", 1, 1));
    assert_eq!(queue.gather(), GATHER_MIN);
    queue.push_back(row("b", 899, 1));
    assert_eq!(queue.gather(), GATHER_MIN);
    queue.push_back(row("b", 1, 1));
    assert_eq!(queue.gather(), Duration::ZERO);
    assert_eq!(queue.next_call().rows.len(), 4);
    assert_eq!(queue.gather(), GATHER_MAX);
    let overhead = row("c", 1, 0).bytes;
    for (bytes, gather) in [
        (MANY_BYTES - 1, GATHER_MAX),
        (MANY_BYTES, GATHER_MIN),
        (CALL_BYTES_MAX - 1, GATHER_MIN),
        (CALL_BYTES_MAX, Duration::ZERO),
    ] {
        let mut queue = Timed::default();
        queue.push_back(row("c", 1, bytes - overhead));
        assert_eq!(queue.gather(), gather, "{bytes}");
    }
    assert_eq!(queue.next_ready(now), None, "what is in flight is waited for");
}

#[test]
fn discarded_files_count_like_results() {
    let discarding =
        |files| ResultBatch { discarded_files: vec![String::new(); files], ..ResultBatch::default() };
    let mut queue = Timed::default();
    for files in [600, 400, 1] {
        queue.push_back(row_of("a", discarding(files)));
    }
    assert!(queue.memory_bytes > 0);
    let call = queue.next_call();
    assert_eq!(call.rows.len(), 2);
    queue.recorded(call);
    assert_eq!(queue.next_call().rows.len(), 1);
}

#[test]
fn what_could_not_be_sent_keeps_its_place() {
    let mut queue = Timed::default();
    (0..3).for_each(|_| queue.push_back(row("a", 300, 1)));
    let call = queue.next_call();
    let order = ids(&call);
    queue.failed(call, Trouble::OfAll);
    let call = queue.next_call();
    assert_eq!(ids(&call), order);
    assert!(!call.apart, "the results service was away for all");
    let mut rows: Vec<_> = call.rows.into_iter().map(|row| (row, Some(Handover::Recorded))).collect();
    // They were larger than was thought.
    rows[1..].iter_mut().for_each(|(_, became)| *became = None);
    queue.landed(Handed { rows, apart: false, trouble: None, works: None });
    assert_eq!(ids(&queue.next_call()), order[1..]);
}

#[test]
fn a_call_that_took_too_long_is_narrowed_down_to_who_made_it_so() {
    let mut queue = Timed::default();
    ["a", "dead", "b"].into_iter().for_each(|name| queue.push_back(row(name, 1, 1)));
    let all = queue.next_call();
    assert_eq!(names(&all), ["a", "dead", "b"]);
    queue.failed(all, Trouble::Late);
    // Each goes alone, of which two are under way at a time, and nobody new joins them.
    queue.push_back(row("new", 1, 1));
    let [first, second, third] = [(); 3].map(|()| queue.next_call());
    assert_eq!([names(&first), names(&second), names(&third)], [["a"], ["dead"], ["new"]]);
    assert!(queue.next_call().rows.is_empty());
    assert_eq!(queue.next_ready(queue.now), None, "the next one waits for the end of a call");
    queue.recorded(first);
    let last = queue.next_call();
    assert_eq!(names(&last), ["b"]);
    queue.recorded(last);
    queue.failed(second, Trouble::Late);
    assert!(queue.next_call().rows.is_empty(), "who failed again waits");
    queue.recorded(third);
    ["a", "b"].into_iter().for_each(|name| queue.push_back(row(name, 1, 1)));
    let both = queue.next_call();
    assert_eq!(names(&both), ["a", "b"]);
    // Its turn comes with all others under way.
    queue.now += Duration::from_secs(1);
    assert_eq!(names(&queue.next_call()), ["dead"]);
}

#[test]
fn a_row_that_fails_alone_waits_alone() {
    let mut queue = Timed::default();
    (0..1000).for_each(|_| queue.push_back(row("a", 1, 1)));
    let call = queue.next_call();
    let (order, bad) = (ids(&call), call.rows[777].id);
    queue.failed(call, Trouble::Fault);
    let mut done = queue.drain(Trouble::Fault, |row| row.id == bad);
    queue.now += Duration::from_millis(250);
    done.extend(queue.drain(Trouble::Fault, |row| row.id == bad));
    let others: Vec<_> = order.into_iter().filter(|id| *id != bad).collect();
    assert!(done == others, "in order");
    // It is tried again by itself, and holds up nobody.
    queue.push_back(row("a", 1, 1));
    assert_eq!(queue.drain(Trouble::Fault, |row| row.id == bad).len(), 1);
    queue.now += PAUSED;
    done = queue.drain(Trouble::Fault, |_| false);
    assert_eq!(done, [bad]);
    assert!(queue.is_empty());
}

/// Longer than any pause.
const PAUSED: Duration = Duration::from_secs(31);

#[test]
fn rows_that_wait_for_their_storage_are_not_in_the_way_of_others() {
    let mut queue = Timed::default();
    let waits = |row: &Row| if row.bytes > 1000 { Handover::Deferred } else { Handover::Recorded };
    // As many as two calls hold.
    (0..2).for_each(|_| queue.push_back(row("a", 900, 1)));
    for _ in 0..2 {
        let call = queue.next_call();
        assert_eq!(call.rows.len(), 1);
        queue.answered(call, waits);
        queue.now += Duration::from_millis(250);
    }
    for _ in 0..5 {
        queue.push_back(row("a", 1, 1));
        let mut went = 0;
        // What waits has its turns, too.
        for _ in 0..2 {
            let call = queue.next_call();
            went += call.rows.iter().filter(|row| row.items == 1).count();
            if !call.rows.is_empty() {
                queue.answered(call, waits);
            }
        }
        assert_eq!(went, 1);
        queue.now += Duration::from_millis(250);
    }
    queue.now += PAUSED;
    assert_eq!(queue.drain(Trouble::Fault, |_| false).len(), 2);
    assert!(queue.is_empty());
}

#[test]
fn a_pause_grows_with_calls_and_not_with_rows() {
    let mut queue = Timed::default();
    (0..7).for_each(|_| queue.push_back(row("a", 1, 1)));
    for bound in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        let call = queue.next_call();
        assert_eq!(call.rows.len(), 7);
        queue.answered(call, |_| Handover::Deferred);
        let pause = queue.next_ready(queue.now).unwrap() - queue.now;
        assert!((bound / 2..=bound).contains(&pause.as_millis()), "{pause:?} for {bound}");
        queue.now += pause;
    }
    let call = queue.next_call();
    queue.recorded(call);
    assert!(queue.is_empty());
}

#[test]
fn a_row_that_is_known_is_passed_over_until_it_is_settled() {
    let mut queue = Timed::default();
    let again = |id| Row { id, ..found("a", 1) };
    let first = row("a", 1, 1);
    let id = first.id;
    queue.push_back(first);
    queue.push_back(again(id));
    let call = queue.next_call();
    assert_eq!(call.rows.len(), 1);
    queue.push_back(again(id));
    queue.recorded(call);
    assert!(queue.is_empty());
    queue.push_back(again(id));
    assert_eq!(queue.next_call().rows.len(), 1);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut queue = Timed::default();
    (0..8).for_each(|_| queue.push_back(row("a", 1, 4_000_000)));
    assert!(queue.memory_bytes <= MEMORY_BYTES_MAX);
    queue.drain(Trouble::Fault, |_| false);
    assert_eq!(queue.memory_bytes, 0);
    assert_eq!(queue.ready, Sums::default());
    assert!(queue.lines.is_empty());
}

#[test]
fn what_has_to_wait_leaves_the_memory_to_others() {
    let mut queue = Timed::default();
    (0..6).for_each(|_| queue.push_back(row("waits", 1, 3_900_000)));
    let full = queue.memory_bytes;
    assert!(full > MEMORY_BYTES_MAX - 3_900_000);
    let call = queue.next_call();
    queue.answered(call, |_| Handover::Deferred);
    assert!(queue.memory_bytes < full);
    // What comes of it later is not kept either, but what it counts for is.
    let items = queue.ready.items;
    queue.push_back(row("waits", 7, 1));
    assert_eq!(queue.ready.items, items + 7);
    queue.push_back(row("other", 1, 3_900_000));
    assert!(queue.next_call().rows.iter().all(|row| row.message.is_some()));
}

#[test]
fn no_more_is_taken_than_is_worked_off() {
    let mut queue = Timed::default();
    let mut taken = 0;
    while queue.has_room() {
        queue.push_back(found("a", 1));
        taken += 1;
    }
    assert_eq!(taken, UNREAD_MAX);
    let call = queue.next_call();
    assert!(queue.has_room());
    queue.answered(call, |_| Handover::Deferred);
    assert!(queue.has_room(), "what has to wait takes nobody's place");
    // Nor does what comes behind it, of which there is so much and no more.
    (0..2 * UNREAD_MAX).for_each(|_| queue.push_back(found("a", 1)));
    assert!(queue.ready.unread <= UNREAD_MAX && queue.has_room());
    assert!(queue.known.len() < 3 * UNREAD_MAX, "the rest is left in the database");
}

#[test]
fn what_waits_beyond_a_bound_is_forgotten_and_found_again() {
    let mut queue = Timed::default();
    let (mut calls, mut pushed) = (0, 0);
    while queue.known.len() == pushed {
        (0..CALL_ITEMS_MAX).for_each(|_| queue.push_back(found("a", 1)));
        pushed += CALL_ITEMS_MAX;
        for _ in 0..2 {
            queue.now += PAUSED;
            let call = queue.next_call();
            queue.answered(call, |_| Handover::Deferred);
        }
        calls += 2;
        assert!(calls <= 3 * DEFERRED_MAX / CALL_ITEMS_MAX);
    }
    assert!((DEFERRED_MAX..=DEFERRED_MAX + UNREAD_MAX).contains(&queue.known.len()));
    // What is new goes all the same.
    let new = row("a", 1, 1);
    let id = new.id;
    queue.push_back(new);
    queue.now += PAUSED;
    let went = (0..2 * (2 + UNREAD_MAX / CALL_ITEMS_MAX)).any(|_| {
        let call = queue.next_call();
        let went = ids(&call).contains(&id);
        queue.recorded(call);
        went
    });
    assert!(went);
}
