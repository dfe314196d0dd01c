//! The bounds of what may wait for a lane. No lane runs here: nothing is taken.

use std::time::SystemTime;

use bytes::Bytes;

use super::*;
use crate::{
    definition::{Definition, RawDraft},
    metrics::Metrics,
};

/// The way into a lane that does not run; the lane has to be kept.
fn committer() -> (Committer, Vec<Lane>) {
    let database = Database::parse("postgres://nobody@127.0.0.1:1/none").unwrap();
    let (registry, _) = Registry::new(database.pool(crate::POOL_SESSION, 1).unwrap());
    let (emit, _) = mpsc::unbounded_channel();
    let metrics = Metrics::register(&mut sluice_service::metrics::Registry::new("test", "0"), 0).commits;
    let backlog = Arc::new(Backlog::new(u64::MAX, u64::MAX));
    let context = LaneContext { database, registry, emit, backlog, instance: Uuid::nil(), metrics };
    Committer::new(1, &context)
}

fn candidate(bytes: usize) -> Candidate {
    let raw = RawDraft { path: "p".into(), ..RawDraft::default() };
    let draft = raw.check(Duration::from_secs(1)).unwrap();
    let (id, etag, epoch) = (Uuid::nil(), String::new(), SystemTime::UNIX_EPOCH);
    Candidate {
        organisation: "acme".parse().unwrap(),
        definition: Arc::new(Definition::new(id, etag, draft, epoch, epoch).unwrap()),
        id,
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

fn submit(committer: &Committer, bytes: usize) -> Result<(), Retry> {
    let (reply, _) = oneshot::channel();
    let job = Job { candidates: vec![candidate(bytes)], revision: 0, reply, origin: Origin::default() };
    committer.submit(0, job)
}

#[tokio::test]
async fn bytes_wait_up_to_their_bound() {
    let (committer, _lanes) = committer();
    assert!(submit(&committer, WAITING_BYTES_MAX - 1).is_ok());
    assert_eq!(submit(&committer, 2), Err(Retry::not_kept("too many bytes wait")));
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
    for _ in 0..WAITING_JOBS_MAX {
        assert!(submit(&committer, 0).is_ok());
    }
    assert_eq!(submit(&committer, 0), Err(Retry::not_kept("too many requests wait")));
}

#[tokio::test]
async fn what_is_sealed_makes_room() {
    let (committer, mut lanes) = committer();
    assert!(submit(&committer, WAITING_BYTES_MAX).is_ok());
    assert!(submit(&committer, 1).is_err());
    lanes[0].seal().await;
    assert!(submit(&committer, 1).is_ok());
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
