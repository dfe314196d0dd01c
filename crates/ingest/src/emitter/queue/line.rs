//! What waits of one organisation: rows that nothing is known against, and rows
//! that have to wait, apart, so that they are in nobody's way.

use std::{collections::VecDeque, time::Duration};

use sluice_service::backoff::Backoff;
use tokio::time::Instant;

use super::{CALL_ITEMS_MAX, Call, Row};

/// First and longest pause of what has to wait.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Which rows of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Those that nothing is known against.
    Ready,
    /// Those whose storage could not take them, or whose call failed with nobody else's
    /// in it.
    Deferred,
}

/// What rows count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub items: usize,
    pub bytes: usize,
    /// Rows that are to be read back.
    pub unread: usize,
}

impl Sums {
    pub fn of(row: &Row) -> Self {
        Self { items: row.items, bytes: row.bytes, unread: usize::from(row.message.is_none()) }
    }

    pub fn add(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.unread += other.unread;
    }

    pub fn remove(&mut self, other: Self) {
        self.items -= other.items;
        self.bytes -= other.bytes;
        self.unread -= other.unread;
    }
}

/// Rows that go in the same calls.
#[derive(Debug)]
struct Rows {
    rows: VecDeque<Row>,
    sums: Sums,
    not_before: Option<Instant>,
    /// Most rows of the next call: fewer after each that failed, then more again.
    rows_max: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Self { rows: VecDeque::new(), sums: Sums::default(), not_before: None, rows_max: CALL_ITEMS_MAX }
    }
}

impl Rows {
    fn push_back(&mut self, row: Row) {
        self.sums.add(Sums::of(&row));
        self.rows.push_back(row);
    }

    fn push_front(&mut self, row: Row) {
        self.sums.add(Sums::of(&row));
        self.rows.push_front(row);
    }

    /// When they may go: at once, or at the end of a pause.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        (!self.rows.is_empty()).then(|| self.not_before.unwrap_or(now).max(now))
    }

    fn is_narrowed(&self) -> bool {
        self.rows_max < CALL_ITEMS_MAX
    }

    /// A call of so many failed.
    fn narrow(&mut self, sent: usize) {
        self.rows_max = (sent / 2).max(1);
    }

    /// A call was answered.
    fn widen(&mut self) {
        let wider = self.rows_max.saturating_mul(2).min(CALL_ITEMS_MAX);
        self.rows_max = if self.rows.is_empty() { CALL_ITEMS_MAX } else { wider };
    }

    fn fill(&mut self, call: &mut Call) -> bool {
        let before = call.rows.len();
        while call.rows.len() - before < self.rows_max {
            let Some(row) = self.rows.pop_front_if(|row| call.size.fits(row)) else { break };
            self.sums.remove(Sums::of(&row));
            call.size.add(&row);
            call.rows.push(row);
        }
        call.rows.len() > before
    }
}

/// What a call's end says about an organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    #[default]
    None,
    /// It was answered for.
    Answered,
    /// It failed, and that may be its doing.
    Failed,
}

/// How a call ended for one organisation.
#[derive(Debug, Default)]
pub struct Landed {
    /// Nobody else's rows were in it.
    pub apart: bool,
    /// How many were sent.
    pub sent: usize,
    /// At least one needs no more.
    pub worked: bool,
    pub sign: Sign,
    /// Rows that go again, ahead of the others.
    pub again: Vec<Row>,
    /// Some have to wait: these, and maybe others that are forgotten.
    pub waits: bool,
    pub deferred: Vec<Row>,
}

/// What waits of one organisation.
#[derive(Debug)]
pub struct Line {
    ready: Rows,
    deferred: Rows,
    /// Of calls of deferred rows, one after the other, that brought nothing.
    backoff: Backoff,
    /// It was in a call that failed: its next one shows whose doing that was.
    suspect: bool,
    in_flight: Option<Part>,
    last: Option<Part>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            ready: Rows::default(),
            deferred: Rows::default(),
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            suspect: false,
            in_flight: None,
            last: None,
        }
    }
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.ready.rows.is_empty() && self.deferred.rows.is_empty()
    }

    /// Whether it has no rows, and none in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.is_empty()
    }

    /// Whether its calls may fail or take long, so that nobody else is to be in them.
    pub fn is_apart(&self) -> bool {
        self.suspect || self.ready.is_narrowed() || !self.deferred.rows.is_empty()
    }

    /// Of the rows that nothing is known against.
    pub fn sums(&self) -> Sums {
        self.ready.sums
    }

    pub fn deferred_rows(&self) -> usize {
        self.deferred.rows.len()
    }

    pub fn push_back(&mut self, row: Row) {
        self.ready.push_back(row);
    }

    /// When it can go on.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        [&self.ready, &self.deferred].into_iter().filter_map(|rows| rows.ready_at(now)).min()
    }

    fn part(&mut self, part: Part) -> &mut Rows {
        match part {
            Part::Ready => &mut self.ready,
            Part::Deferred => &mut self.deferred,
        }
    }

    /// Moves into a call the rows whose turn it is and that fit; whether there are any.
    pub fn fill(&mut self, call: &mut Call, now: Instant) -> bool {
        let is_ready = |rows: &Rows| rows.ready_at(now).is_some_and(|at| at <= now);
        let (ready, deferred) = (is_ready(&self.ready), is_ready(&self.deferred));
        let turn = match self.last {
            Some(Part::Deferred) if ready => Part::Ready,
            _ if deferred => Part::Deferred,
            _ => Part::Ready,
        };
        let filled = (ready || deferred) && self.part(turn).fill(call);
        if filled {
            (self.in_flight, self.last) = (Some(turn), Some(turn));
        }
        filled
    }

    /// Its call has ended.
    pub fn landed(&mut self, landed: Landed, now: Instant) {
        let Some(of) = self.in_flight.take() else { return };
        let Landed { apart, sent, worked, sign, again, waits, deferred } = landed;
        match sign {
            Sign::None => {}
            Sign::Answered => {
                self.suspect = false;
                self.part(of).widen();
            }
            Sign::Failed => {
                self.suspect = true;
                if apart {
                    // In smaller calls from now on, wherever its rows go.
                    self.part(if waits { Part::Deferred } else { of }).narrow(sent);
                }
            }
        }
        for row in again.into_iter().rev() {
            self.part(of).push_front(row);
        }
        match of {
            Part::Ready => {
                // What comes later may go where these can't, but not at every moment.
                self.ready.not_before = (waits && !worked).then(|| now + PAUSE_MIN);
                if waits && self.deferred.rows.is_empty() {
                    self.backoff.worked();
                    self.deferred.not_before = Some(now + self.backoff.failed());
                }
            }
            Part::Deferred => {
                if worked {
                    self.backoff.worked();
                }
                self.deferred.not_before = waits.then(|| now + self.backoff.failed());
            }
        }
        for row in deferred {
            self.deferred.push_back(row);
        }
    }
}
