//! What everybody who calls writes down, and the clock by which they do.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use md5::{Digest, Md5};
use sluice_proto::{ingest::v1 as ingest, results::v1 as results};
use sluice_tests::history::{
    Answer, Call, Data, Did, Event, History, Labels, Micros, Outcome, Record, State, Told,
};
use tonic::{Code, Status};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shared by all callers.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    began: Micros,
    clock: Instant,
    events: Mutex<Vec<Event>>,
    /// Ids that were told or seen, by organisation: also for others to try.
    ids: Mutex<Vec<(&'static str, String)>>,
    /// Statuses that a service must never answer with.
    wrong: Mutex<Vec<String>>,
}

impl Recorder {
    pub fn new() -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        Self(Arc::new(Shared {
            began: Micros::try_from(began).unwrap(),
            clock: Instant::now(),
            events: Mutex::default(),
            ids: Mutex::default(),
            wrong: Mutex::default(),
        }))
    }

    /// Never steps.
    pub fn now(&self) -> Micros {
        self.0.began + Micros::try_from(self.0.clock.elapsed().as_micros()).unwrap()
    }

    pub fn add(&self, event: Event) {
        self.0.events.lock().unwrap().push(event);
    }

    pub fn call(&self, process: &str, organisation: &'static str, began: Micros, did: Did) {
        if let Did::Publish { told: Answer::Said(told), .. } = &did {
            let fresh = told.iter().filter(|told| told.outcome == Outcome::Success);
            let fresh = fresh.map(|told| (organisation, told.id.clone()));
            self.0.ids.lock().unwrap().extend(fresh);
        }
        let (process, organisation, ended) = (process.to_owned(), organisation.to_owned(), self.now());
        self.add(Event::Call(Call { process, organisation, began, ended, did }));
    }

    pub fn fault(&self, did: impl Into<String>) {
        self.add(Event::Fault { at: self.now(), did: did.into() });
    }

    /// One of the latest ids, whosever it is.
    pub fn recent_id(&self, random: &mut super::random::Random) -> Option<String> {
        let ids = self.0.ids.lock().unwrap();
        let latest = &ids[ids.len().saturating_sub(200)..];
        random.pick(latest).map(|(_, id)| id.clone())
    }

    /// What was written down after so much of it.
    pub fn since(&self, seen: usize) -> Vec<Event> {
        self.0.events.lock().unwrap()[seen..].to_vec()
    }

    /// All that was written down.
    pub fn history(&self) -> History {
        History { events: self.0.events.lock().unwrap().clone() }
    }

    pub fn wrong(&self) -> Vec<String> {
        self.0.wrong.lock().unwrap().clone()
    }

    /// What a call comes to; a status, or silence, says nothing of what was done.
    pub async fn answer<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Answer<T> {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(said)) => Answer::Said(said),
            Ok(Err(status)) => {
                self.judge(&status);
                Answer::Unknown(format!("{:?}: {}", status.code(), status.message()))
            }
            Err(_) => Answer::Unknown("no answer".into()),
        }
    }

    /// [`Self::answer`], of what may not be there.
    pub async fn find<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Answer<Option<T>> {
        let found = async {
            match call.await {
                Ok(found) => Ok(Some(found)),
                Err(status) if status.code() == Code::NotFound => Ok(None),
                Err(status) => Err(status),
            }
        };
        self.answer(found).await
    }

    /// Broken connections and services that can't answer now are borne; and nothing
    /// else.
    fn judge(&self, status: &Status) {
        let borne = match status.code() {
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => true,
            // A connection that broke, as the client's own transport says it.
            Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
            _ => false,
        };
        if !borne {
            self.0.wrong.lock().unwrap().push(format!("{status:?}"));
        }
    }
}

pub fn data(bytes: &[u8]) -> Data {
    Data { md5: hex::encode(Md5::digest(bytes)), size: bytes.len() as u64 }
}

pub fn told(said: &ingest::PublicationOutcome) -> Told {
    let final_of = |outcome| match outcome {
        ingest::Outcome::Success => Some(Outcome::Success),
        ingest::Outcome::Suppressed => Some(Outcome::Suppressed),
        ingest::Outcome::Throttled => Some(Outcome::Throttled),
        _ => None,
    };
    let outcome = match said.outcome() {
        ingest::Outcome::Duplicate => Outcome::Duplicate,
        ingest::Outcome::Error => Outcome::Error,
        ingest::Outcome::Retry if said.reason == "NOT_KEPT" => Outcome::NotKept,
        ingest::Outcome::Retry => Outcome::OutcomeUnknown,
        other => final_of(other).expect("an outcome"),
    };
    let window_ends = said.details.strip_prefix("the window ends at ").map(|at| {
        let at: prost_types::Timestamp = at.parse().expect("when it ends");
        micros(&at)
    });
    Told {
        outcome,
        id: said.ingest_id.clone(),
        reason: said.reason.clone(),
        original: final_of(said.original_outcome()),
        window_ends,
    }
}

pub fn micros(at: &prost_types::Timestamp) -> Micros {
    at.seconds * 1_000_000 + Micros::from(at.nanos) / 1000
}

pub fn record(of: &results::Result) -> Record {
    let state = match of.state() {
        results::result::State::Available => State::Available,
        results::result::State::Consumed => State::Consumed,
        other => panic!("{other:?} of {of:?}"),
    };
    Record {
        id: of.id.clone(),
        organisation: of.organisation.clone(),
        definition: of.definition.clone(),
        nonce: of.identifier.clone(),
        labels: Labels { poll: of.poll.clone(), task: of.task.clone(), r#type: of.r#type.clone() },
        data: Data { md5: of.checksum.clone(), size: of.size },
        state,
        date_created: micros(of.date_created.as_ref().expect("a date")),
        date_consumed: of.date_consumed.as_ref().map(micros),
    }
}
