//! What waits for the lanes, by organisation: taken in turns, so that one that floods
//! delays nobody but itself, and bounded, so that there is room for a newcomer at
//! any time. What must stay in order has a key in common: while a batch with it is out,
//! it waits. Pure; the committer puts a lock around it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter::Sum,
};

use sluice_service::OrganisationId;

/// How much one turn takes of a batch: a tenth of its items or of its bytes.
const TURN_SHARE: usize = 10;

/// What a job takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Observations.
    pub items: usize,
    /// Their content.
    pub bytes: usize,
}

/// Jobs, and what they take up together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub jobs: usize,
    /// What they take up.
    pub size: Size,
}

impl Sum for Load {
    fn sum<I: Iterator<Item = Self>>(loads: I) -> Self {
        loads.fold(Self::default(), |sum, load| Self {
            jobs: sum.jobs + load.jobs,
            size: Size { items: sum.size.items + load.size.items, bytes: sum.size.bytes + load.size.bytes },
        })
    }
}

/// Bounds of a queue, or of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most jobs that wait.
    pub jobs_max: usize,
    /// Most content bytes that wait.
    pub bytes_max: usize,
    /// Most observations in a batch.
    pub batch_items_max: usize,
    /// Most content bytes in a batch.
    pub batch_bytes_max: usize,
}

impl Bounds {
    /// A size as parts of a batch: a batch is full at `PARTS`.
    fn parts(&self, size: Size) -> usize {
        let of = |part: usize, whole: usize| part.saturating_mul(PARTS).div_ceil(whole.max(1));
        of(size.items, self.batch_items_max).max(of(size.bytes, self.batch_bytes_max)).max(1)
    }
}

const PARTS: usize = 10_000;

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its organisation has too many jobs waiting.
    Jobs,
    /// Its organisation has too many bytes waiting.
    Bytes,
}

/// What a job must not overtake: no two batches that are out have one in common.
pub type Keys = Vec<u64>;

/// A job that waits.
struct Waiting<T> {
    job: T,
    size: Size,
    keys: Keys,
}

/// What is taken at once.
pub struct Batch<T> {
    /// Each organisation's in the order they came.
    pub jobs: Vec<T>,
    /// Their sizes' sum.
    pub size: Size,
    /// Their keys, until they are given back.
    pub keys: Keys,
}

struct Line<T> {
    jobs: VecDeque<Waiting<T>>,
    bytes: usize,
    /// Parts of a batch it may still take in this turn.
    credit: usize,
}

/// Jobs of several organisations; each one's in the order they came.
pub struct LaneQueue<T> {
    bounds: Bounds,
    lines: HashMap<OrganisationId, Line<T>>,
    /// Organisations with jobs, the one whose turn it is first.
    turns: VecDeque<OrganisationId>,
    waiting: Load,
    /// The keys of all batches that are out.
    held: HashSet<u64>,
    /// All that waits has to wait for a batch that is out.
    stuck: bool,
}

impl<T> LaneQueue<T> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            turns: VecDeque::new(),
            waiting: Load::default(),
            held: HashSet::new(),
            stuck: false,
        }
    }

    /// What waits, of all organisations.
    pub fn waiting(&self) -> Load {
        self.waiting
    }

    /// Whether the next batch may have something in it.
    pub fn has_more(&self) -> bool {
        !self.turns.is_empty() && !self.stuck
    }

    /// Appends a job. An organisation may have as much waiting as is still free: one
    /// alone fills half, several share, and a newcomer always finds room. Who has
    /// nothing waiting is taken whatever the size.
    ///
    /// # Errors
    /// If the organisation has too much waiting.
    pub fn push(
        &mut self,
        organisation: &OrganisationId,
        job: T,
        size: Size,
        keys: Keys,
    ) -> Result<(), Full> {
        let line = match self.lines.get_mut(organisation) {
            Some(line) => {
                if line.jobs.len() >= self.bounds.jobs_max.saturating_sub(self.waiting.jobs) {
                    return Err(Full::Jobs);
                }
                if line.bytes + size.bytes > self.bounds.bytes_max.saturating_sub(self.waiting.size.bytes) {
                    return Err(Full::Bytes);
                }
                line
            }
            None => {
                self.turns.push_back(organisation.clone());
                self.stuck &= is_held(&self.held, &keys);
                let line = Line { jobs: VecDeque::new(), bytes: 0, credit: 0 };
                self.lines.entry(organisation.clone()).or_insert(line)
            }
        };
        line.jobs.push_back(Waiting { job, size, keys });
        line.bytes += size.bytes;
        self.waiting.jobs += 1;
        self.waiting.size.items += size.items;
        self.waiting.size.bytes += size.bytes;
        Ok(())
    }

    /// The next batch: organisations in turns; those whose next job has to wait keep
    /// their place. A single job is never split, however large. Empty if there is none
    /// that may go.
    pub fn take_batch(&mut self) -> Batch<T> {
        let mut batch = Batch { jobs: Vec::new(), size: Size::default(), keys: Keys::new() };
        let mut wait = VecDeque::new();
        while let Some(organisation) = self.turns.front() {
            // Every organisation in turn has a job.
            let Some(line) = self.lines.get_mut(organisation) else { break };
            let Some(Waiting { size, keys, .. }) = line.jobs.front() else { break };
            if is_held(&self.held, keys) {
                wait.extend(self.turns.pop_front());
                continue;
            }
            let size = *size;
            let parts = self.bounds.parts(size);
            if line.credit < parts {
                // The next turn adds up to what was left.
                line.credit += PARTS / TURN_SHARE;
                self.turns.rotate_left(1);
                continue;
            }
            let (items, bytes) = (batch.size.items + size.items, batch.size.bytes + size.bytes);
            let fits = items <= self.bounds.batch_items_max && bytes <= self.bounds.batch_bytes_max;
            if !fits && !batch.jobs.is_empty() {
                // The first of the next batch.
                break;
            }
            line.credit -= parts;
            line.bytes -= size.bytes;
            if let Some(Waiting { job, keys, .. }) = line.jobs.pop_front() {
                batch.jobs.push(job);
                batch.keys.extend(keys);
            }
            batch.size = Size { items, bytes };
            self.waiting.jobs -= 1;
            self.waiting.size.items -= size.items;
            self.waiting.size.bytes -= size.bytes;
            if line.jobs.is_empty() {
                // What is left of its turn is not saved up.
                let gone = self.turns.pop_front();
                gone.and_then(|organisation| self.lines.remove(&organisation));
            }
        }
        self.stuck = self.turns.is_empty();
        wait.append(&mut self.turns);
        self.turns = wait;
        self.held.extend(&batch.keys);
        batch
    }

    /// A batch is out no more: what has its keys may go.
    pub fn give_back(&mut self, keys: &[u64]) {
        for key in keys {
            self.held.remove(key);
        }
        self.stuck = false;
    }
}

fn is_held(held: &HashSet<u64>, keys: &[u64]) -> bool {
    keys.iter().any(|key| held.contains(key))
}

#[cfg(test)]
#[path = "lane_queue_tests.rs"]
mod tests;
