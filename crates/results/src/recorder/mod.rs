//! The recorder: merges what concurrent `RecordResults` calls hand over into
//! few commits. While one is in flight the next gathers; there is no timer, so
//! a lone call waits for nobody, and groups grow under load.
//!
//! Lanes take from one bounded queue; one that has no session leaves what waits to those
//! that have one. A caller that gives up cancels nothing that was taken already; since
//! recording is idempotent that harms nobody. Results whose data is elsewhere are recorded
//! `apart`.

pub mod apart;
mod columns;
mod lane;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures_util::FutureExt as _;
use sluice_service::{
    Error, Kind, RETRY_AFTER,
    postgres::Database,
    trace::{self, Origin},
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{Instrument as _, Span};

use crate::{metrics::Recordings, recent::Recent, result::NewRecord};
use lane::Lane;

/// Two fill the database's commits without fighting over its processors.
const LANES: usize = 2;
/// A group is sealed at this many records,
const GROUP_RECORDS_MAX: usize = 1000;
/// or at this many bytes. A single larger request is a group of its own.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Calls that may wait for a lane.
const QUEUE_CALLS_MAX: usize = 1024;
/// What waiting calls may hold altogether, in KiB.
const QUEUE_KIBIBYTES_MAX: u32 = 32 * 1024;

/// What became of one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Recording {
    /// It is recorded, now or before.
    Recorded,
    /// Its storage can't take it now.
    Deferred,
    /// It can never be recorded as it is.
    Refused,
}

/// Puts what a part was answered in the places that it has among all.
pub fn put(answers: &mut [Recording], places: Vec<usize>, told: Vec<Recording>) {
    for (place, recording) in places.into_iter().zip(told) {
        answers[place] = recording;
    }
}

/// One call's records on their way to a lane.
#[derive(Debug)]
struct Job {
    records: Vec<NewRecord>,
    bytes: usize,
    answer: oneshot::Sender<Result<Vec<Recording>, Error>>,
    /// Its share of what may wait; freed when the job is answered.
    share: OwnedSemaphorePermit,
    /// The call, for traces.
    origin: Origin,
}

/// Hands records to the lanes. Cheap to clone; the lanes end when the last
/// clone is gone and the queue is empty.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Job>,
    budget: Arc<Semaphore>,
    metrics: Arc<Recordings>,
}

impl Recorder {
    /// Starts the lanes. What they record is kept in `recent`, too.
    #[must_use]
    pub fn start(
        database: &Database,
        recent: &Recent,
        metrics: &Arc<Recordings>,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let (queue, jobs) = mpsc::channel(QUEUE_CALLS_MAX);
        let gather = Arc::new(Mutex::new(Gather { jobs, carried: None }));
        let sessions = Arc::default();
        let lane = || Lane::new(database.clone(), &sessions, recent.clone());
        let lanes =
            (0..LANES).map(|_| tokio::spawn(drive(lane(), gather.clone(), metrics.clone()))).collect();
        let budget = Arc::new(Semaphore::new(QUEUE_KIBIBYTES_MAX as usize));
        (Self { queue, budget, metrics: metrics.clone() }, lanes)
    }

    /// Records what is not recorded yet, and answers after the commit, for each
    /// in order.
    ///
    /// # Errors
    /// UNAVAILABLE if the queue is full or the database can't answer: some may
    /// be recorded, and all may be handed over again.
    pub async fn record(&self, records: Vec<NewRecord>) -> Result<Vec<Recording>, Error> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = records.iter().map(NewRecord::bytes).sum::<usize>();
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(QUEUE_KIBIBYTES_MAX);
        let full = || Error::unavailable("too much is waiting to be recorded");
        let share = self.budget.clone().try_acquire_many_owned(kibibytes).map_err(|_| full())?;
        let (answer, answered) = oneshot::channel();
        let job = Job { records, bytes, answer, share, origin: Origin::current() };
        self.metrics.waits();
        self.queue.try_send(job).map_err(|_| {
            self.metrics.taken(1);
            full()
        })?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> Error {
    Error::new(Kind::Unavailable, "STOPPING", "the service is stopping").retry_after(RETRY_AFTER)
}

/// The end of the queue that lanes take from, one at a time.
#[derive(Debug)]
struct Gather {
    jobs: mpsc::Receiver<Job>,
    /// The job that is the first of the next group.
    carried: Option<Job>,
}

impl Gather {
    /// Waits for a job; `false` when there will be no more.
    async fn wait(&mut self) -> bool {
        if self.carried.is_none() {
            self.carried = self.jobs.recv().await;
        }
        self.carried.is_some()
    }

    /// The job that was waited for and all that wait behind it, up to a group's size.
    fn take(&mut self) -> Vec<Job> {
        let Some(first) = self.carried.take() else { return Vec::new() };
        let (mut records, mut bytes) = (first.records.len(), first.bytes);
        let mut group = vec![first];
        while let Ok(job) = self.jobs.try_recv() {
            records += job.records.len();
            bytes += job.bytes;
            if records > GROUP_RECORDS_MAX || bytes > GROUP_BYTES_MAX {
                self.carried = Some(job);
                break;
            }
            group.push(job);
        }
        group
    }
}

/// What a lane records next. `None` when there will be no more.
async fn take(lane: &mut Lane, gather: &Mutex<Gather>) -> Option<Vec<Job>> {
    loop {
        lane.prepare().await;
        let mut gather = gather.lock().await;
        if !gather.wait().await {
            return None;
        }
        // Its session may have gone meanwhile.
        if lane.may_take() {
            return Some(gather.take());
        }
    }
}

/// Takes groups and commits them until the queue has ended.
async fn drive(mut lane: Lane, gather: Arc<Mutex<Gather>>, metrics: Arc<Recordings>) {
    while let Some(mut group) = take(&mut lane, &gather).await {
        metrics.taken(group.len());
        // Whoever gave up waiting hands over again: spare the work.
        group.retain(|job| !job.answer.is_closed());
        if !group.is_empty() {
            let (calls, results) = (group.len(), group.iter().map(|job| job.records.len()).sum());
            let (started, span) = (Instant::now(), record_span(&group, results));
            let committing = AssertUnwindSafe(lane.commit(group)).catch_unwind();
            if committing.instrument(span).await.is_err() {
                // Logged by the panic hook; callers retry.
                lane.panicked();
            }
            metrics.worked(calls, results, started.elapsed());
        }
    }
}

/// The span of one group, which is the work of all its calls.
fn record_span(group: &[Job], results: usize) -> Span {
    let span = tracing::info_span!("record", otel.name = "record results", sluice.results = results);
    trace::gather(&span, group.iter().map(|job| &job.origin));
    span
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use bytes::Bytes;
    use sluice_service::metrics::Registry;
    use tracing::{
        Dispatch, Event, Level, Metadata, Subscriber, span,
        subscriber::{self, NoSubscriber},
    };
    use uuid::Uuid;

    use super::*;
    use crate::{metrics::Metrics, result::Labels};

    pub(super) fn job(records: usize, data_bytes: usize) -> Job {
        let labels = Labels {
            definition: "d".into(),
            poll: "p".into(),
            task: String::new(),
            identifier: "i".into(),
            media_type: "t".into(),
        };
        let record = |_| {
            let data = Bytes::from(vec![0; data_bytes]);
            NewRecord::new("acme", &Uuid::now_v7().to_string(), labels.clone(), data).unwrap()
        };
        let records: Vec<NewRecord> = (0..records).map(record).collect();
        let bytes = records.iter().map(NewRecord::bytes).sum();
        let share = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Job { records, bytes, answer: oneshot::channel().0, share, origin: Origin::default() }
    }

    async fn groups(jobs: Vec<Job>) -> Vec<usize> {
        let (queue, receiver) = mpsc::channel(jobs.len());
        for job in jobs {
            queue.try_send(job).unwrap();
        }
        drop(queue);
        let mut gather = Gather { jobs: receiver, carried: None };
        let mut sizes = Vec::new();
        while gather.wait().await {
            sizes.push(gather.take().len());
        }
        sizes
    }

    #[tokio::test]
    async fn what_waits_becomes_one_group() {
        assert_eq!(groups((0..10).map(|_| job(100, 10)).collect()).await, [10]);
    }

    #[tokio::test]
    async fn groups_are_sealed_by_records_and_by_bytes() {
        assert_eq!(groups((0..4).map(|_| job(400, 1)).collect()).await, [2, 2]);
        let megabyte = 1024 * 1024;
        assert_eq!(groups((0..4).map(|_| job(1, 3 * megabyte / 2)).collect()).await, [2, 2]);
        assert_eq!(groups(vec![job(1, 5 * megabyte), job(1, 1)]).await, [1, 1]);
    }

    /// Panics at the first error in the log.
    #[derive(Default)]
    struct Panics(AtomicBool);

    impl Subscriber for Panics {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_event() && *metadata.level() == Level::ERROR
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn event(&self, _: &Event<'_>) {
            assert!(self.0.swap(true, Relaxed), "the first");
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[tokio::test]
    async fn a_lane_that_panics_tells_the_callers_of_its_group_and_goes_on() {
        // An outage is an error in the log, in the middle of a group.
        let nowhere = Database::parse("host=127.0.0.1 port=1 user=nobody dbname=none").unwrap();
        let metrics = Metrics::register(&mut Registry::new("results", "0"));
        let (recorder, lanes) = Recorder::start(&nowhere, &Recent::new(0), &metrics.recording);
        // Two of them, else other tests' threads settle what is logged.
        let _one_more = Dispatch::new(NoSubscriber::default());
        let _panics = subscriber::set_default(Panics::default());
        let mut told = Vec::new();
        for _ in 0..=LANES {
            told.push(recorder.record(job(1, 1).records).await.unwrap_err().reason());
        }
        assert_eq!(told[0], "STOPPING", "its answer was lost");
        assert!(told[1..].iter().all(|reason| *reason != "STOPPING"), "{told:?}");
        drop(recorder);
        for lane in lanes {
            lane.await.unwrap();
        }
    }
}
