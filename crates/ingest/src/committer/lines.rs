//! What waits for the lanes, by organisation: taken in turns, so that one that floods
//! delays nobody but itself, and bounded, so that there is room for a newcomer at
//! any time. What must stay in order has a key in common: while a batch with it is out,
//! it waits, and so does what came behind it from the same organisation. Pure; the queue
//! puts a lock around it.

use std::collections::{HashMap, VecDeque};

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

/// Bounds of what waits, and of a batch.
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

/// Why a job is not taken: its organisation has too much of this waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub of: Of,
    /// Whether others have something waiting, too, and less of it all together: then it is
    /// not that too much comes of all.
    pub is_its_own_doing: bool,
}

/// What there is a bound of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Jobs,
    Bytes,
}

impl Full {
    /// An organisation has so much waiting, of so much.
    fn of(of: Of, own: usize, all: usize) -> Self {
        let others = all - own;
        Self { of, is_its_own_doing: 0 < others && others < own }
    }
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
pub struct Sealed<T> {
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
    /// Whether it waits for a batch that is out.
    is_aside: bool,
}

/// Jobs of several organisations; each one's in the order they came.
pub struct Lines<T> {
    bounds: Bounds,
    lines: HashMap<OrganisationId, Line<T>>,
    /// Organisations with jobs, the one whose turn it is first; without those aside.
    turns: VecDeque<OrganisationId>,
    /// The keys of all batches that are out, and which organisations wait for each.
    out: HashMap<u64, Vec<OrganisationId>>,
    jobs: usize,
    bytes: usize,
    jobs_aside: usize,
}

impl<T> Lines<T> {
    /// No jobs.
    pub fn new(bounds: Bounds) -> Self {
        let (lines, turns, out) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { bounds, lines, turns, out, jobs: 0, bytes: 0, jobs_aside: 0 }
    }

    /// How many jobs wait, of all organisations.
    pub fn waiting(&self) -> usize {
        self.jobs
    }

    /// How many of them may go, as far as is known.
    pub fn ready(&self) -> usize {
        self.jobs - self.jobs_aside
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
                if line.jobs.len() >= self.bounds.jobs_max.saturating_sub(self.jobs) {
                    return Err(Full::of(Of::Jobs, line.jobs.len(), self.jobs));
                }
                if line.bytes + size.bytes > self.bounds.bytes_max.saturating_sub(self.bytes) {
                    return Err(Full::of(Of::Bytes, line.bytes, self.bytes));
                }
                line
            }
            None => {
                self.turns.push_back(organisation.clone());
                let line = Line { jobs: VecDeque::new(), bytes: 0, credit: 0, is_aside: false };
                self.lines.entry(organisation.clone()).or_insert(line)
            }
        };
        line.jobs.push_back(Waiting { job, size, keys });
        line.bytes += size.bytes;
        self.jobs += 1;
        self.bytes += size.bytes;
        self.jobs_aside += usize::from(line.is_aside);
        Ok(())
    }

    /// The next batch: organisations in turns; those whose next job has to wait step
    /// aside. A single job is never split, however large. Empty if none may go.
    pub fn take_batch(&mut self) -> Sealed<T> {
        let mut batch = Sealed { jobs: Vec::new(), size: Size::default(), keys: Keys::new() };
        while let Some(organisation) = self.turns.front() {
            // Every organisation in turn has a job.
            let Some(line) = self.lines.get_mut(organisation) else { break };
            let Some(Waiting { size, keys, .. }) = line.jobs.front() else { break };
            let (size, key) = (*size, keys.iter().copied().find(|key| self.out.contains_key(key)));
            if let Some(key) = key {
                line.is_aside = true;
                self.jobs_aside += line.jobs.len();
                self.out.entry(key).or_default().extend(self.turns.pop_front());
                continue;
            }
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
            self.jobs -= 1;
            self.bytes -= size.bytes;
            if line.jobs.is_empty() {
                // What is left of its turn is not saved up.
                let gone = self.turns.pop_front();
                gone.and_then(|organisation| self.lines.remove(&organisation));
            }
        }
        self.out.extend(batch.keys.iter().map(|key| (*key, Vec::new())));
        batch
    }

    /// A batch is out no more. Who waited for it has the next turns.
    pub fn give_back(&mut self, keys: &[u64]) {
        let waited: Vec<_> = keys.iter().filter_map(|key| self.out.remove(key)).flatten().collect();
        for organisation in waited.into_iter().rev() {
            if let Some(line) = self.lines.get_mut(&organisation) {
                line.is_aside = false;
                self.jobs_aside -= line.jobs.len();
            }
            self.turns.push_front(organisation);
        }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
