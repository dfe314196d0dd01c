//! The bounds of what may wait for the lanes; lanes that panic or have no session.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::{
    entry::{Rate, WAITING_BYTES_MAX, WAITING_JOBS_MAX},
    *,
};
use crate::{
    definition::{Definition, RawDraft},
    metrics::Metrics,
    warnings::at_warnings,
};

/// The way to a lane that does not run; the lane has to be kept.
fn committer() -> (Committer, Vec<Lane>) {
    let database = Database::parse("postgres://nobody@127.0.0.1:1/none").unwrap();
    let (registry, _) = Registry::new(database.pool(crate::sessions::DEFINITIONS, 1).unwrap());
    let (emit, _) = mpsc::unbounded_channel();
    let metrics = Metrics::register(&mut sluice_service::metrics::Registry::new("test", "0"), 0).commits;
    let backlog = Arc::new(Backlog::new(u64::MAX, u64::MAX));
    let at_gate = Arc::new(AtGate::default());
    let context = LaneContext { database, registry, emit, backlog, at_gate, instance: Uuid::nil(), metrics };
    Committer::new(1, &context)
}

pub(crate) fn candidate(bytes: usize) -> Candidate {
    let raw = RawDraft { path: "p".into(), ..RawDraft::default() };
    let draft = raw.check(Duration::from_secs(1)).unwrap();
    Candidate {
        organisation: "acme".parse().unwrap(),
        definition: Arc::new(Definition::of("", draft)),
        id: Uuid::nil(),
        identifier: String::new(),
        poll: String::new(),
        task: String::new(),
        media_type: String::new(),
        data: Bytes::from(vec![0; bytes]),
        file: None,
        marker: None,
        fingerprint: 0,
        window: None,
        throttle: None,
    }
}

fn submit(committer: &Committer, bytes: usize) -> Result<(), &'static str> {
    let (reply, _) = oneshot::channel();
    let job = Job { candidates: vec![candidate(bytes)], revision: 0, reply, origin: Origin::default() };
    committer.submit(job).map_err(|retry| retry.details)
}

/// Of one organisation alone: as much as is still free when it comes.
const ALONE_BYTES_MAX: usize = WAITING_BYTES_MAX / 2;

#[tokio::test]
async fn bytes_wait_up_to_their_bound() {
    let (committer, _lanes) = committer();
    assert!(submit(&committer, ALONE_BYTES_MAX - 1).is_ok());
    assert_eq!(submit(&committer, 3), Err("too many bytes wait"));
    assert!(submit(&committer, 1).is_ok());
}

#[tokio::test]
async fn a_single_request_is_taken_whatever_its_size() {
    let (committer, _lanes) = committer();
    assert!(submit(&committer, WAITING_BYTES_MAX + 1).is_ok());
}

#[tokio::test]
async fn requests_wait_up_to_their_bound() {
    let (committer, _lanes) = committer();
    for _ in 0..WAITING_JOBS_MAX / 2 {
        assert!(submit(&committer, 0).is_ok());
    }
    assert_eq!(submit(&committer, 0), Err("too many requests wait"));
}

#[tokio::test]
async fn what_is_sealed_makes_room() {
    let (committer, lanes) = committer();
    assert!(submit(&committer, ALONE_BYTES_MAX).is_ok());
    assert!(submit(&committer, 1).is_err());
    lanes[0].shared.seal(0).await;
    assert!(submit(&committer, 1).is_ok());
}

#[tokio::test]
async fn who_has_gone_is_dropped_when_sealed() {
    let (committer, lanes) = committer();
    let (reply, _answer) = oneshot::channel();
    submit(&committer, 1).unwrap();
    let job = Job { candidates: vec![candidate(2)], revision: 0, reply, origin: Origin::default() };
    committer.submit(job).unwrap();
    let (jobs, _underway) = lanes[0].shared.seal(0).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.candidates[0].data.len()).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn lanes_end_when_nobody_can_come_any_more_and_nothing_waits() {
    let (committer, lanes) = committer();
    submit(&committer, 1).unwrap();
    let other = committer.clone();
    drop(committer);
    assert!(lanes[0].shared.seal(0).await.is_some());
    let ending = async {
        tokio::task::yield_now().await;
        drop(other);
    };
    let (end, ()) = tokio::join!(lanes[0].shared.seal(0), ending);
    assert!(end.is_none());
}

#[tokio::test]
async fn a_lane_outlives_a_panic() {
    // There is no database: the commit warns, and panics.
    let panicked = AtomicBool::new(false);
    let _fragile = at_warnings(move || assert!(panicked.swap(true, Relaxed), "a commit that panics"));
    let (committer, mut lanes) = committer();
    let mut lane = tokio::spawn(lanes.remove(0).run());
    let mut told = Vec::new();
    for _ in 0..2 {
        let (reply, answer) = oneshot::channel();
        let job = Job { candidates: vec![candidate(0)], revision: 0, reply, origin: Origin::default() };
        committer.submit(job).unwrap();
        tokio::select! {
            answer = answer => told.push(answer),
            ended = &mut lane => panic!("the lane ended: {ended:?}"),
        }
    }
    assert!(matches!(told[..], [Err(_), Ok(Reply::Retry(_))]), "{told:?}");
    drop(committer);
    lane.await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_database_is_told_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let _counting = at_warnings(move || _ = counted.fetch_add(1, Relaxed));
    let (_committer, mut lanes) = committer();
    for _ in 0..3 {
        assert!(lanes[0].session().await.is_err());
        let rests_until = lanes[0].reconnect.rests_until().unwrap();
        tokio::time::pause();
        tokio::time::advance(rests_until - tokio::time::Instant::now()).await;
        tokio::time::resume();
    }
    assert_eq!(told.load(Relaxed), 1);
}

#[test]
fn who_finds_no_room_is_told_how_long_the_others_will_take() {
    let rate = Rate::default();
    assert_eq!(rate.estimate(1000), Duration::ZERO, "nothing is known yet");
    rate.committed(100, Duration::from_millis(10));
    assert_eq!(rate.estimate(50_000), Duration::from_secs(5));
    for (estimate, least, most) in [(0, 1, 1), (1, 1, 1), (5, 5, 7), (1000, 30, 45)] {
        let delays = (0..100)
            .map(|_| Retry::not_kept_for(Cause::Queue, "", Duration::from_secs(estimate)).delay.as_secs());
        let delays: std::collections::BTreeSet<_> = delays.collect();
        assert!(delays.iter().all(|delay| (least..=most).contains(delay)), "{estimate}: {delays:?}");
        assert!(least == most || delays.len() > 1, "{delays:?}");
    }
}

#[tokio::test]
async fn who_can_not_be_decided_fails_alone() {
    let (mut jobs, mut answers) = (Vec::new(), Vec::new());
    for candidates in [1, 3, 2, 1] {
        let (reply, answer) = oneshot::channel();
        jobs.push(Job {
            candidates: vec![candidate(0); candidates],
            revision: 0,
            reply,
            origin: Origin::default(),
        });
        answers.push(answer);
    }
    // Two of the second job, and the last.
    let fit = refuse_unfit(jobs, &Unfit(vec![1, 3, 6]));
    assert_eq!(fit.iter().map(|job| job.candidates.len()).collect::<Vec<_>>(), [1, 2]);
    let told = answers.iter_mut().map(|answer| matches!(answer.try_recv(), Ok(Reply::Retry(_))));
    assert_eq!(told.collect::<Vec<_>>(), [false, true, false, true]);
}
