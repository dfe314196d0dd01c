//! What waits for a lane, by organisation: taken in turns, so that one that floods
//! delays nobody but itself, and bounded, so that there is room for a newcomer at
//! any time. Pure; the committer puts a lock around it.

use std::{
    collections::{HashMap, VecDeque},
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

struct Line<T> {
    jobs: VecDeque<(T, Size)>,
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
}

impl<T> LaneQueue<T> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, lines: HashMap::new(), turns: VecDeque::new(), waiting: Load::default() }
    }

    /// What waits, of all organisations.
    pub fn waiting(&self) -> Load {
        self.waiting
    }

    /// Appends a job. An organisation may have as much waiting as is still free: one
    /// alone fills half, several share, and a newcomer always finds room. Who has
    /// nothing waiting is taken whatever the size.
    ///
    /// # Errors
    /// If the organisation has too much waiting.
    pub fn push(&mut self, organisation: &OrganisationId, job: T, size: Size) -> Result<(), Full> {
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
                let line = Line { jobs: VecDeque::new(), bytes: 0, credit: 0 };
                self.lines.entry(organisation.clone()).or_insert(line)
            }
        };
        line.jobs.push_back((job, size));
        line.bytes += size.bytes;
        self.waiting.jobs += 1;
        self.waiting.size.items += size.items;
        self.waiting.size.bytes += size.bytes;
        Ok(())
    }

    /// The jobs of the next batch, and their sizes' sum: organisations in turns. A
    /// single job is never split, however large. Empty if nothing waits.
    pub fn take_batch(&mut self) -> (Vec<T>, Size) {
        let (mut batch, mut total) = (Vec::new(), Size::default());
        while let Some(organisation) = self.turns.front() {
            // Every organisation in turn has a job.
            let Some(line) = self.lines.get_mut(organisation) else { break };
            let Some(&(_, size)) = line.jobs.front() else { break };
            let parts = self.bounds.parts(size);
            if line.credit < parts {
                // The next turn adds up to what was left.
                line.credit += PARTS / TURN_SHARE;
                self.turns.rotate_left(1);
                continue;
            }
            let (items, bytes) = (total.items + size.items, total.bytes + size.bytes);
            let fits = items <= self.bounds.batch_items_max && bytes <= self.bounds.batch_bytes_max;
            if !fits && !batch.is_empty() {
                // The first of the next batch.
                break;
            }
            line.credit -= parts;
            line.bytes -= size.bytes;
            batch.extend(line.jobs.pop_front().map(|(job, _)| job));
            total = Size { items, bytes };
            self.waiting.jobs -= 1;
            self.waiting.size.items -= size.items;
            self.waiting.size.bytes -= size.bytes;
            if line.jobs.is_empty() {
                // What is left of its turn is not saved up.
                let gone = self.turns.pop_front();
                gone.and_then(|organisation| self.lines.remove(&organisation));
            }
        }
        (batch, total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds =
        Bounds { jobs_max: 20, bytes_max: 1000, batch_items_max: 100, batch_bytes_max: 400 };

    fn named(name: usize) -> OrganisationId {
        format!("org-{name}").parse().unwrap()
    }

    fn items(items: usize) -> Size {
        Size { items, bytes: items }
    }

    #[test]
    fn one_that_floods_leaves_room_and_others_are_in_the_next_batch() {
        let mut queue = LaneQueue::new(BOUNDS);
        let (flood, other) = (named(0), named(1));
        let mut taken = 0;
        while queue.push(&flood, 0, items(40)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 10, "half of the jobs");
        queue.push(&other, 1, items(1)).unwrap();
        let (batch, size) = queue.take_batch();
        assert_eq!((batch, size), (vec![1, 0, 0], items(81)));
    }

    #[test]
    fn a_large_job_gets_its_turn_and_small_ones_theirs_before_it() {
        let mut queue = LaneQueue::new(BOUNDS);
        queue.push(&named(0), "large", items(100)).unwrap();
        queue.push(&named(1), "small", items(10)).unwrap();
        queue.push(&named(1), "small", items(10)).unwrap();
        assert_eq!(queue.take_batch().0, ["small", "small"]);
        assert_eq!(queue.take_batch().0, ["large"]);
        assert_eq!(queue.take_batch().0.len(), 0);
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let mut queue = LaneQueue::new(BOUNDS);
        let bytes = |bytes| Size { items: 1, bytes };
        let acme = named(0);
        assert_eq!(queue.push(&acme, 0, bytes(5000)), Ok(()), "a first one of any size");
        assert_eq!(queue.push(&acme, 0, bytes(1)), Err(Full::Bytes));
        assert_eq!(queue.push(&named(1), 0, bytes(1)), Ok(()), "a newcomer always");
        let mut queue = LaneQueue::new(BOUNDS);
        assert_eq!(queue.push(&acme, 0, bytes(400)), Ok(()));
        assert_eq!(queue.push(&acme, 0, bytes(201)), Err(Full::Bytes));
        assert_eq!(queue.push(&acme, 0, bytes(200)), Ok(()));
        let mut queue = LaneQueue::new(BOUNDS);
        for _ in 0..10 {
            assert_eq!(queue.push(&acme, 0, bytes(0)), Ok(()));
        }
        assert_eq!(queue.push(&acme, 0, bytes(0)), Err(Full::Jobs));
        assert_eq!(queue.waiting(), Load { jobs: 10, size: Size { items: 10, bytes: 0 } });
    }

    proptest! {
        /// Against the obvious: every job taken comes out once, each organisation's in
        /// order; batches keep their bounds.
        #[test]
        fn all_come_out_in_order(
            steps in prop::collection::vec((0..4_usize, 1..120_usize, any::<bool>()), 1..200),
        ) {
            let mut queue = LaneQueue::new(BOUNDS);
            let mut model: HashMap<usize, VecDeque<(usize, usize)>> = HashMap::new();
            for (number, (name, count, take)) in steps.into_iter().enumerate() {
                if queue.push(&named(name), (name, number), items(count)).is_ok() {
                    model.entry(name).or_default().push_back((number, count));
                }
                if take {
                    check_batch(&mut queue, &mut model)?;
                }
            }
            while model.values().any(|line| !line.is_empty()) {
                check_batch(&mut queue, &mut model)?;
            }
            prop_assert_eq!(queue.waiting(), Load::default());
            prop_assert!(queue.lines.is_empty() && queue.turns.is_empty());
        }
    }

    type Model = HashMap<usize, VecDeque<(usize, usize)>>;

    fn check_batch(queue: &mut LaneQueue<(usize, usize)>, model: &mut Model) -> Result<(), TestCaseError> {
        let (batch, size) = queue.take_batch();
        prop_assert!(!batch.is_empty());
        let mut total = 0;
        for (name, number) in &batch {
            let first = model.get_mut(name).and_then(VecDeque::pop_front);
            let (expected, count) = first.expect("a job that waits");
            prop_assert_eq!(*number, expected);
            total += count;
        }
        prop_assert_eq!(size, items(total));
        prop_assert!(total <= BOUNDS.batch_items_max || batch.len() == 1);
        Ok(())
    }
}
