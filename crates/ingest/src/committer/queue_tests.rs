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
use tokio::time::advance;

use super::*;

const BATCH_ITEMS_MAX: usize = 1000;
const BOUNDS: Bounds = Bounds {
    jobs_max: 10_000,
    bytes_max: 1_000_000,
    batch_items_max: BATCH_ITEMS_MAX,
    batch_bytes_max: 4 * BATCH_ITEMS_MAX,
};
const SMALL: Size = Size { items: 1, bytes: 1 };

/// What a job must stay in order by, and its number.
type Job = (u64, usize);
type Taken<'a> = (Vec<Job>, Underway<'a, Job>);

fn queue(lanes: usize) -> Queue<Job> {
    Queue::new(BOUNDS, lanes, LanesWaiting::default())
}

/// A job of an organisation of its key.
fn push_sized(queue: &Queue<Job>, job: Job, size: Size) {
    queue.push(&format!("org-{}", job.0).parse().unwrap(), job, size, vec![job.0]).unwrap();
}

/// Small jobs of a key, with these numbers.
fn push(queue: &Queue<Job>, key: u64, numbers: impl IntoIterator<Item = usize>) {
    numbers.into_iter().for_each(|number| push_sized(queue, (key, number), SMALL));
}

fn take(queue: &Queue<Job>, lane: usize) -> Taken<'_> {
    queue.take(lane).now_or_never().expect("not to wait").expect("not to end")
}

fn waits(queue: &Queue<Job>, lane: usize) -> bool {
    queue.take(lane).now_or_never().is_none()
}

#[tokio::test(start_paused = true)]
async fn one_more_begins_when_as_many_wait_as_are_being_committed() {
    let queue = queue(4);
    push(&queue, 0, 0..1);
    let (_, _first) = take(&queue, 0);
    push(&queue, 1, 0..1);
    let (jobs, second) = take(&queue, 1);
    assert_eq!(jobs, [(1, 0)], "one beside one");
    push(&queue, 2, 0..1);
    assert!(waits(&queue, 2), "one beside two");
    push(&queue, 2, 1..2);
    let (jobs, _third) = take(&queue, 2);
    assert_eq!(jobs, [(2, 0), (2, 1)]);
    push(&queue, 3, 0..3);
    assert!(waits(&queue, 3), "three beside four");
    drop(second);
    let (jobs, _fourth) = take(&queue, 1);
    assert_eq!(jobs.len(), 3, "beside three");
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_waited_for_for_so_long_and_then_counts_no_more() {
    let queue = queue(3);
    let mut others = [1, 2].map(|lane| Runner::new(&queue, lane));
    assert!(others.iter_mut().all(|lane| lane.run().is_none()));
    push(&queue, 0, 0..9);
    let (_, _long) = take(&queue, 0);
    push(&queue, 1, 0..1);
    assert!(others[0].run().is_none());
    push(&queue, 2, 0..1);
    assert!(!others[1].is_woken(), "one has it in view already");
    advance(PATIENCE - Duration::from_millis(1)).await;
    assert!(!others[0].is_woken());
    advance(Duration::from_millis(1)).await;
    let (jobs, _underway) = others[0].run().flatten().expect("a look without being told");
    assert_eq!(jobs, [(1, 0), (2, 0)]);
    push(&queue, 3, 0..2);
    let (jobs, _underway) = others[1].run().flatten().expect("two beside two");
    assert_eq!(jobs.len(), 2);
}

/// Two jobs are being committed: another lane has nothing to do with one more, and then with two.
fn begins_with_the_second(queue: &Queue<Job>, other: &mut Runner<'_>) {
    push(queue, 1, 0..1);
    assert!(other.run().is_none(), "one beside two");
    push(queue, 1, 1..2);
    let (jobs, _underway) = other.run().flatten().expect("two beside two");
    assert_eq!(jobs, [(1, 0), (1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn who_has_a_commit_in_view_is_told_as_any_other() {
    let queue = queue(2);
    let mut other = Runner::new(&queue, 1);
    push(&queue, 0, 0..2);
    let (_, _underway) = take(&queue, 0);
    begins_with_the_second(&queue, &mut other);
}

#[tokio::test]
async fn what_must_stay_in_order_waits_for_the_commit_before_and_nobody_else_does() {
    let queue = queue(3);
    push(&queue, 0, 0..1);
    let (_, underway) = take(&queue, 0);
    push(&queue, 0, 1..2);
    assert!(waits(&queue, 1));
    push(&queue, 1, 0..1);
    let (jobs, _underway) = take(&queue, 1);
    assert_eq!(jobs, [(1, 0)]);
    drop(underway);
    let (jobs, _underway) = take(&queue, 2);
    assert_eq!(jobs, [(0, 1)]);
}

#[tokio::test]
async fn the_first_free_lane_is_woken_and_wakes_the_next_where_more_is_left() {
    let queue = queue(3);
    let mut lanes = [0, 1, 2].map(|lane| Runner::new(&queue, lane));
    assert!(lanes.iter_mut().all(|lane| lane.run().is_none()));
    let half = Size { items: BATCH_ITEMS_MAX / 2, bytes: 1 };
    (0..4).for_each(|key| push_sized(&queue, (key, 0), half));
    assert_eq!([0, 1, 2].map(|lane| lanes[lane].is_woken()), [true, false, false]);
    let (first, _underway) = lanes[0].run().flatten().unwrap();
    assert_eq!([1, 2].map(|lane| lanes[lane].is_woken()), [true, false]);
    let (second, _underway) = lanes[1].run().flatten().unwrap();
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(!lanes[2].is_woken(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn what_has_to_wait_does_not_make_others_begin() {
    let queue = queue(2);
    let mut other = Runner::new(&queue, 1);
    push(&queue, 0, 0..2);
    let (_, _underway) = take(&queue, 0);
    push(&queue, 0, 2..9);
    assert!(other.run().is_none());
    begins_with_the_second(&queue, &mut other);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_rests_leaves_all_to_the_others_until_then() {
    let queue = queue(2);
    let mut other = Runner::new(&queue, 1);
    push(&queue, 0, 0..1);
    let (_, underway) = take(&queue, 0);
    assert!(other.run().is_none());
    push(&queue, 0, 1..2);
    drop(underway);
    queue.leave_to_others();
    let mut resting = Box::pin(queue.rest(0, Instant::now() + Duration::from_millis(10)));
    assert!(resting.as_mut().now_or_never().is_none());
    let (jobs, _underway) = other.run().flatten().expect("to be told by the one that rests");
    assert_eq!(jobs, [(0, 1)]);
    push(&queue, 1, 0..1);
    assert!(resting.as_mut().now_or_never().is_none());
    advance(Duration::from_millis(10)).await;
    assert_eq!(resting.now_or_never(), Some(true));
    let (jobs, _underway) = take(&queue, 0);
    assert_eq!(jobs, [(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_rests_no_longer_when_no_more_will_come() {
    let queue = queue(1);
    let mut resting = Box::pin(queue.rest(0, Instant::now() + Duration::from_secs(1)));
    assert!(resting.as_mut().now_or_never().is_none());
    queue.close();
    assert_eq!(resting.now_or_never(), Some(false));
    assert!(queue.take(0).now_or_never().expect("an end").is_none());
}

#[tokio::test]
async fn what_is_taken_is_not_shown_as_waiting() {
    let queue = queue(1);
    push(&queue, 0, 0..3);
    assert_eq!(queue.gauges.get(), (3, 3));
    let (_, _underway) = take(&queue, 0);
    assert_eq!(queue.gauges.get(), (0, 0));
}

#[tokio::test]
async fn lanes_end_when_closed_and_empty_whoever_took_the_last() {
    let queue = queue(2);
    let mut other = Runner::new(&queue, 1);
    push(&queue, 0, 0..1);
    let (_, underway) = take(&queue, 0);
    push(&queue, 0, 1..2);
    queue.close();
    assert!(other.run().is_none(), "there is one more, and its turn is not yet");
    drop(underway);
    let (jobs, underway) = take(&queue, 0);
    assert_eq!(jobs, [(0, 1)]);
    drop(underway);
    assert!(queue.take(0).now_or_never().expect("an end").is_none());
    assert!(other.run().expect("an end").is_none());
}

/// A lane that runs as far as it can, but only if it was woken since.
struct Runner<'a> {
    queue: &'a Queue<Job>,
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
    fn new(queue: &'a Queue<Job>, lane: usize) -> Self {
        Self { queue, lane, taking: None, woken: Arc::new(Woken(AtomicBool::new(false))) }
    }

    fn is_woken(&self) -> bool {
        self.taking.is_none() || self.woken.0.load(SeqCst)
    }

    /// What it takes, or its end; `None`: it waits.
    fn run(&mut self) -> Option<Option<Taken<'a>>> {
        while self.is_woken() {
            self.woken.0.store(false, SeqCst);
            let (queue, lane) = (self.queue, self.lane);
            let taking = self.taking.get_or_insert_with(|| Box::pin(queue.take(lane)));
            let waker = Waker::from(self.woken.clone());
            if let Poll::Ready(taken) = taking.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.taking = None;
                return Some(taken);
            }
        }
        None
    }
}

/// What one lane is at.
struct Lane<'a> {
    runner: Runner<'a>,
    /// What it commits.
    commit: Option<Taken<'a>>,
    ended: bool,
}

/// Of each key the jobs that wait, as number and items, in order.
type Model = Vec<VecDeque<(usize, usize)>>;

/// Lets a lane go on, if nothing of its is being committed, and compares what it takes.
fn step(lanes: &mut [Lane<'_>], at: usize, model: &mut Model) -> Result<(), TestCaseError> {
    if lanes[at].ended || lanes[at].commit.is_some() {
        return Ok(());
    }
    match lanes[at].runner.run() {
        None => {}
        Some(None) => {
            prop_assert!(model.iter().all(VecDeque::is_empty), "ended while something waits");
            lanes[at].ended = true;
        }
        Some(Some(taken)) => {
            prop_assert!(!taken.0.is_empty());
            let mut total = 0;
            for &(key, number) in &taken.0 {
                let committed = lanes.iter().filter_map(|other| other.commit.as_ref());
                prop_assert!(committed.flat_map(|(jobs, _)| jobs).all(|job| job.0 != key), "two at a time");
                let line = &mut model[usize::try_from(key).unwrap()];
                let (expected, items) = line.pop_front().expect("a job that waits");
                prop_assert_eq!(number, expected);
                total += items;
            }
            prop_assert!(total <= BATCH_ITEMS_MAX);
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
    Push(u64, usize),
    Run(usize),
    EndCommit(usize),
    /// Time passes.
    Wait(u64),
}

const KEYS: u64 = 4;

fn steps() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let items = prop_oneof![20 => Just(1_usize), 1 => 100..400_usize];
    let step = prop_oneof![
        4 => (0..KEYS, items).prop_map(|(key, items)| Step::Push(key, items)),
        2 => (0..4_usize).prop_map(Step::Run),
        1 => (0..4_usize).prop_map(Step::EndCommit),
        1 => (1..60_u64).prop_map(Step::Wait),
    ];
    (1..4_usize, prop::collection::vec(step, 1..200))
}

proptest! {
    /// Against the obvious: every job comes out once, each key's in order, and in one
    /// commit at a time. Lanes run only when they are woken, so none is forgotten.
    #[test]
    fn all_come_out_in_order_and_nothing_waits_forever((count, steps) in steps(), close in any::<bool>()) {
        let mut paused = tokio::runtime::Builder::new_current_thread();
        let clock = paused.enable_time().start_paused(true).build().unwrap();
        let _clock = clock.enter();
        let queue = queue(count);
        let mut model: Model = (0..KEYS).map(|_| VecDeque::new()).collect();
        let new = |lane| Lane { runner: Runner::new(&queue, lane), commit: None, ended: false };
        let mut lanes: Vec<_> = (0..count).map(new).collect();
        for (number, next) in steps.into_iter().enumerate() {
            match next {
                Step::Push(key, items) => {
                    push_sized(&queue, (key, number), Size { items, bytes: items });
                    model[usize::try_from(key).unwrap()].push_back((number, items));
                }
                Step::Run(lane) => step(&mut lanes, lane % count, &mut model)?,
                Step::EndCommit(lane) => drop(lanes[lane % count].commit.take()),
                Step::Wait(millis) => clock.block_on(advance(Duration::from_millis(millis))),
            }
        }
        // Nothing waits for a commit that takes long, but what must stay in order.
        for _ in 0..count {
            clock.block_on(advance(PATIENCE));
            (0..count).try_for_each(|at| step(&mut lanes, at, &mut model))?;
        }
        if lanes.iter().any(|lane| lane.commit.is_none()) {
            let out = |key| lanes.iter().flat_map(|lane| &lane.commit).flat_map(|(jobs, _)| jobs).any(|job| job.0 == key);
            let left = (0..KEYS).zip(&model).find(|(key, line)| !line.is_empty() && !out(*key));
            prop_assert!(left.is_none(), "waits beside a free lane: {:?}", left);
        }
        if !close {
            drain(&mut lanes, &mut model)?;
            prop_assert!(model.iter().all(VecDeque::is_empty), "forgotten: {:?}", model);
        }
        queue.close();
        drain(&mut lanes, &mut model)?;
        prop_assert!(model.iter().all(VecDeque::is_empty), "lost: {:?}", model);
        prop_assert!(lanes.iter().all(|lane| lane.ended));
        let state = queue.state();
        prop_assert_eq!(state.waiting.waiting(), 0);
        prop_assert!(state.commits.iter().all(Option::is_none));
    }
}
