//! Who takes what, and when. No lane runs here, and nothing is committed: a commit ends
//! when the test says so.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    jobs_max: 10_000,
    bytes_max: 100 * BATCH_BYTES_MAX,
    batch_items_max: BATCH_ITEMS_MAX,
    batch_bytes_max: BATCH_BYTES_MAX,
};
/// Of two lanes.
const CROWD: usize = 2 * CROWD_JOBS_PER_LANE;

/// The lane a job is for, and which of its jobs it is.
type Job = (usize, usize);
type Taken<'a> = (Vec<Job>, Underway<'a, Job>);

fn queues(lanes: usize) -> Queues<Job> {
    Queues::new(BOUNDS, (0..lanes).map(|_| LaneWaiting::default()))
}

fn push_sized(queues: &Queues<Job>, job: Job, size: Size) {
    queues.push(job.0, &"acme".parse().unwrap(), job, size).unwrap();
}

/// Small jobs, with these numbers.
fn push(queues: &Queues<Job>, lane: usize, numbers: impl IntoIterator<Item = usize>) {
    numbers.into_iter().for_each(|number| push_sized(queues, (lane, number), Size { items: 1, bytes: 1 }));
}

fn take(queues: &Queues<Job>, lane: usize) -> Taken<'_> {
    queues.take(lane).now_or_never().expect("not to wait").expect("not to end")
}

/// A commit of lane 0 in a crowd, and lane 1, which waits for its end with a job.
fn waiting_in_a_crowd(
    queues: &Queues<Job>,
) -> (Underway<'_, Job>, Pin<Box<impl Future<Output = Option<Taken<'_>>>>>) {
    push(queues, 0, 0..CROWD);
    let (_, underway) = take(queues, 0);
    push(queues, 1, 0..1);
    let mut taking = Box::pin(queues.take(1));
    assert!(taking.as_mut().now_or_never().is_none());
    (underway, taking)
}

fn numbers(jobs: &[Job], lane: usize) -> Vec<usize> {
    jobs.iter().filter(|job| job.0 == lane).map(|job| job.1).collect()
}

#[test]
fn few_are_taken_by_their_own_lanes_at_the_same_time() {
    let queues = queues(2);
    push(&queues, 0, 0..3);
    push(&queues, 1, 0..CROWD - 4);
    let (first, _underway) = take(&queues, 0);
    let (second, _underway) = take(&queues, 1);
    assert_eq!((numbers(&first, 0), numbers(&first, 1)), (vec![0, 1, 2], vec![]));
    assert_eq!((numbers(&second, 0), numbers(&second, 1)), (vec![], vec![0, 1, 2, 3]));
}

#[test]
fn a_crowd_is_taken_by_one_lane() {
    let queues = queues(2);
    push(&queues, 0, 0..3);
    push(&queues, 1, 0..CROWD - 3);
    let (jobs, _underway) = take(&queues, 1);
    assert_eq!(jobs[0].0, 1, "its own first");
    assert_eq!((numbers(&jobs, 0), numbers(&jobs, 1)), (vec![0, 1, 2], vec![0, 1, 2, 3, 4]));
}

#[test]
fn what_is_taken_from_a_lane_is_not_shown_as_waiting_for_it() {
    let queues = queues(2);
    push(&queues, 0, 0..3);
    push(&queues, 1, 0..CROWD);
    let shown = || [&queues.lanes[0], &queues.lanes[1]].map(|lane| lane.gauges.get().0);
    assert_eq!(shown(), [3, 8]);
    let (_, _underway) = take(&queues, 1);
    assert_eq!(shown(), [0, 0]);
}

#[test]
fn what_is_being_committed_counts_as_outstanding_until_it_has_ended() {
    let queues = queues(2);
    push(&queues, 0, 0..CROWD - 2);
    let (_, underway) = take(&queues, 0);
    push(&queues, 1, 0..1);
    assert_eq!(queues.waiting().next(1), Next::Own);
    push(&queues, 1, 1..2);
    assert_eq!(queues.waiting().next(1), Next::All);
    drop(underway);
    assert_eq!(queues.waiting().next(1), Next::Own);
}

#[test]
fn lanes_of_a_crowd_commit_one_after_the_other() {
    let queues = queues(2);
    let (underway, taking) = waiting_in_a_crowd(&queues);
    push(&queues, 0, CROWD..CROWD + 1);
    drop(underway);
    // A crowd no more, but now it has waited.
    let (jobs, _underway) = taking.now_or_never().flatten().unwrap();
    assert_eq!(jobs, [(1, 0), (0, CROWD)]);
}

/// What a lane of two does if jobs of this size wait for each, and its number otherwise.
fn next_with(waiting: Size, underway: Size) -> Next {
    let mut waiting_of = Waiting::new(BOUNDS, 2);
    let organisation = "acme".parse().unwrap();
    waiting_of.underway[1] = Load { jobs: CROWD, size: underway };
    let half = Size { items: waiting.items / 2, bytes: waiting.bytes / 2 };
    let rest = Size { items: waiting.items - half.items, bytes: waiting.bytes - half.bytes };
    waiting_of.queues[0].push(&organisation, (), half).unwrap();
    waiting_of.queues[1].push(&organisation, (), rest).unwrap();
    waiting_of.next(0)
}

#[test]
fn a_crowd_with_much_is_none() {
    let little = Size { items: LITTLE_ITEMS_MAX, bytes: LITTLE_BYTES_MAX };
    let many = Size { items: LITTLE_ITEMS_MAX + 1, ..little };
    let large = Size { bytes: LITTLE_BYTES_MAX + 1, ..little };
    assert_eq!(next_with(little, little), Next::All);
    for much in [many, large] {
        assert_eq!(next_with(much, little), Next::Own, "nothing is gained");
        assert_eq!(next_with(little, much), Next::Own, "it would wait for long");
    }
}

#[test]
fn jobs_of_a_lane_stay_in_order_whoever_takes_them() {
    let queues = queues(2);
    push(&queues, 0, 0..CROWD);
    push(&queues, 1, 0..1);
    let (jobs, underway) = take(&queues, 1);
    assert_eq!(numbers(&jobs, 0), Vec::from_iter(0..CROWD));
    // Alone, but those before it are not through.
    push(&queues, 0, CROWD..CROWD + 1);
    let mut taking = Box::pin(queues.take(0));
    assert!(taking.as_mut().now_or_never().is_none());
    drop(underway);
    let (jobs, _underway) = taking.now_or_never().flatten().unwrap();
    assert_eq!(jobs, [(0, CROWD)]);
}

#[test]
fn where_there_is_much_a_lane_takes_a_batch_of_its_own() {
    let (items, bytes) = (Size { items: BATCH_ITEMS_MAX / 2, bytes: 0 }, BATCH_BYTES_MAX / 2);
    for (size, one) in
        [(items, Size { items: 1, bytes: 0 }), (Size { items: 1, bytes }, Size { items: 0, bytes: 1 })]
    {
        let queues = queues(2);
        push_sized(&queues, (0, 0), size);
        push_sized(&queues, (0, 1), size);
        push_sized(&queues, (0, 2), one);
        push(&queues, 1, 0..CROWD);
        let (jobs, _underway) = take(&queues, 0);
        assert_eq!(jobs, [(0, 0), (0, 1)], "full");
        let (jobs, _underway) = take(&queues, 1);
        assert_eq!(numbers(&jobs, 1), Vec::from_iter(0..CROWD));
    }
}

#[test]
fn who_waits_for_the_others_goes_on_alone_once_there_is_much() {
    let queues = queues(2);
    let (_underway, mut taking) = waiting_in_a_crowd(&queues);
    push(&queues, 1, 1..LITTLE_ITEMS_MAX);
    assert!(taking.as_mut().now_or_never().is_none(), "still little");
    push(&queues, 1, LITTLE_ITEMS_MAX..LITTLE_ITEMS_MAX + 1);
    let (jobs, _underway) = taking.now_or_never().flatten().unwrap();
    assert_eq!(numbers(&jobs, 1), Vec::from_iter(0..=LITTLE_ITEMS_MAX));
}

#[test]
fn who_holds_all_gives_the_others_back_if_there_is_much_by_then() {
    let queues = queues(2);
    let (underway, taking) = waiting_in_a_crowd(&queues);
    // Not for the one that waits, so it is not told.
    push(&queues, 0, CROWD..=CROWD + LITTLE_ITEMS_MAX);
    drop(underway);
    let (jobs, _underway) = taking.now_or_never().flatten().unwrap();
    assert_eq!(jobs, [(1, 0)]);
    let (jobs, _underway) = take(&queues, 0);
    assert_eq!(jobs.len(), LITTLE_ITEMS_MAX + 1);
}

#[test]
fn a_lane_whose_queue_was_emptied_waits_for_the_next() {
    let queues = queues(2);
    push(&queues, 0, 0..1);
    push(&queues, 1, 0..CROWD);
    let (_, underway) = take(&queues, 1);
    let mut lane = Runner::new(&queues, 0);
    assert!(lane.run().is_none());
    drop(underway);
    assert!(lane.run().is_none());
    push(&queues, 0, 1..2);
    assert!(lane.is_woken());
    let (jobs, _underway) = lane.run().flatten().unwrap();
    assert_eq!(jobs, [(0, 1)]);
}

#[test]
fn lanes_end_when_closed_and_empty_whoever_took_the_last() {
    let queues = queues(2);
    let mut lane = Runner::new(&queues, 0);
    assert!(lane.run().is_none());
    push(&queues, 0, 0..1);
    push(&queues, 1, 0..CROWD);
    let (jobs, underway) = take(&queues, 1);
    assert_eq!(jobs.len(), CROWD + 1);
    push(&queues, 0, 1..2);
    queues.close();
    assert!(lane.run().is_none(), "there is one more, and its turn is not yet");
    drop(underway);
    assert!(queues.take(1).now_or_never().expect("an end").is_none());
    let (jobs, underway) = lane.run().flatten().unwrap();
    assert_eq!(jobs, [(0, 1)]);
    drop(underway);
    assert!(lane.run().expect("an end").is_none());
}

/// A lane that runs as far as it can, but only if it was woken since.
struct Runner<'a> {
    queues: &'a Queues<Job>,
    lane: usize,
    taking: Option<Pin<Box<dyn Future<Output = Option<Taken<'a>>> + 'a>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

impl<'a> Runner<'a> {
    fn new(queues: &'a Queues<Job>, lane: usize) -> Self {
        Self { queues, lane, taking: None, woken: Arc::new(Woken(AtomicBool::new(false))) }
    }

    fn is_woken(&self) -> bool {
        self.taking.is_none() || self.woken.0.load(SeqCst)
    }

    /// What it takes, or its end; `None`: it waits.
    fn run(&mut self) -> Option<Option<Taken<'a>>> {
        if !self.is_woken() {
            return None;
        }
        self.woken.0.store(false, SeqCst);
        let (queues, lane) = (self.queues, self.lane);
        let taking = self.taking.get_or_insert_with(|| Box::pin(queues.take(lane)));
        let waker = Waker::from(self.woken.clone());
        let Poll::Ready(taken) = taking.as_mut().poll(&mut Context::from_waker(&waker)) else { return None };
        self.taking = None;
        Some(taken)
    }
}

/// What one lane is at.
struct Lane<'a> {
    runner: Runner<'a>,
    /// What it commits.
    commit: Option<Taken<'a>>,
    ended: bool,
}

/// Of each lane the jobs that wait, as number and items, in order.
type Model = Vec<VecDeque<(usize, usize)>>;

/// Lets a lane go on, if nothing of its is being committed, and compares what it takes.
fn step(lanes: &mut [Lane<'_>], at: usize, model: &mut Model) -> Result<(), TestCaseError> {
    if lanes[at].ended || lanes[at].commit.is_some() {
        return Ok(());
    }
    match lanes[at].runner.run() {
        None => {}
        Some(None) => {
            prop_assert!(model[at].is_empty(), "ended while something waits");
            lanes[at].ended = true;
        }
        Some(Some(taken)) => {
            prop_assert!(!taken.0.is_empty());
            let mut total = 0;
            for &(lane, number) in &taken.0 {
                let committed = lanes.iter().filter_map(|other| other.commit.as_ref());
                prop_assert!(committed.flat_map(|(jobs, _)| jobs).all(|job| job.0 != lane), "two at a time");
                let (expected, items) = model[lane].pop_front().expect("a job that waits");
                prop_assert_eq!(number, expected);
                total += items;
            }
            let merged = taken.0.iter().any(|job| job.0 != at);
            let items_max = if merged { LITTLE_ITEMS_MAX } else { BATCH_ITEMS_MAX };
            prop_assert!(total <= items_max);
            lanes[at].commit = Some(taken);
        }
    }
    Ok(())
}

/// Runs lanes and ends commits until nothing happens any more.
fn drain(lanes: &mut [Lane<'_>], model: &mut Model) -> Result<(), TestCaseError> {
    loop {
        for at in 0..lanes.len() {
            step(lanes, at, model)?;
        }
        let ended = lanes.iter_mut().filter_map(|lane| lane.commit.take()).count();
        let woken = lanes.iter().any(|lane| !lane.ended && lane.runner.is_woken());
        if ended == 0 && !woken {
            return Ok(());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, usize),
    Run(usize),
    EndCommit(usize),
}

fn steps() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let items = prop_oneof![20 => Just(1_usize), 1 => 100..400_usize];
    let step = prop_oneof![
        4 => (0..4_usize, items).prop_map(|(lane, items)| Step::Push(lane, items)),
        2 => (0..4_usize).prop_map(Step::Run),
        1 => (0..4_usize).prop_map(Step::EndCommit),
    ];
    (1..4_usize, prop::collection::vec(step, 1..200))
}

proptest! {
    /// Against the obvious: every job comes out once, each lane's in order, and by one
    /// lane at a time. Lanes run only when they are woken, so none is forgotten.
    #[test]
    fn all_come_out_in_order_and_nothing_waits_forever((count, steps) in steps(), close in any::<bool>()) {
        let queues = queues(count);
        let mut model: Model = vec![VecDeque::new(); count];
        let new = |lane| Lane { runner: Runner::new(&queues, lane), commit: None, ended: false };
        let mut lanes: Vec<_> = (0..count).map(new).collect();
        for (number, next) in steps.into_iter().enumerate() {
            match next {
                Step::Push(lane, items) => {
                    let lane = lane % count;
                    push_sized(&queues, (lane, number), Size { items, bytes: items });
                    model[lane].push_back((number, items));
                }
                Step::Run(lane) => step(&mut lanes, lane % count, &mut model)?,
                Step::EndCommit(lane) => drop(lanes[lane % count].commit.take()),
            }
        }
        if !close {
            drain(&mut lanes, &mut model)?;
            prop_assert!(model.iter().all(VecDeque::is_empty), "forgotten: {:?}", model);
        }
        queues.close();
        drain(&mut lanes, &mut model)?;
        prop_assert!(model.iter().all(VecDeque::is_empty), "lost: {:?}", model);
        prop_assert!(lanes.iter().all(|lane| lane.ended));
        let (waiting, underway) = queues.waiting().loads();
        prop_assert_eq!((waiting, underway), Default::default());
    }
}
