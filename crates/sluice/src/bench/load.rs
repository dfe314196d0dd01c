//! The load: requests built from templates by patching digits, so that the
//! generator stays light beside what it measures.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_proto::ingest::v1::{
    Observation, Outcome, PublicationOutcome, PublishObservationsRequest,
    ingest_service_client::IngestServiceClient, observation::Content,
};

use super::pace::{Flow, Schedule};
use crate::connection::Authorised;

/// Digits of an observation's number: chkpt and unique key are made of them.
const NUMBER_DIGITS: usize = 32;
/// Digits of the time of sending, in microseconds since the start.
const SENT_DIGITS: usize = 16;
/// What stands before the time of sending.
const SENT_FIELD: &[u8] = b"\"sent\":\"";
/// Where all definitions are that a benchmark publishes to.
pub(super) const DEFINITIONS_FOLDER: &str = "bench/";
/// The shortest content: what every observation has.
pub(super) const SIZE_MIN: u16 = 93;
/// How long to leave a service alone that refused a call.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// What every request looks like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) organisations: Vec<String>,
    pub(super) definitions: Vec<String>,
    pub(super) batch: usize,
    /// Content bytes of one observation.
    pub(super) size: usize,
    /// Share of observations that repeat an earlier one's marker.
    pub(super) duplicates: f64,
    /// Without markers and unique keys.
    pub(super) plain: bool,
}

/// JSON with room for a number and a time.
struct Template {
    bytes: Vec<u8>,
    number_at: usize,
    sent_at: usize,
}

impl Template {
    fn new(size: usize) -> Self {
        let mut bytes = b"{\"keys\":{\"number\":\"".to_vec();
        let number_at = bytes.len();
        bytes.extend([b'0'; NUMBER_DIGITS]);
        bytes.extend(b"\"},");
        bytes.extend(SENT_FIELD);
        let sent_at = bytes.len();
        bytes.extend([b'0'; SENT_DIGITS]);
        bytes.extend(b"\",\"padding\":\"");
        let end = b"\"}";
        // Text with some entropy: nobody's observations are all zeros.
        let filler = b"abcdefghijklmnopqrstuvwxyz 0123456789 ";
        let missing = size.saturating_sub(bytes.len() + end.len());
        bytes.extend((0..missing).map(|at| filler[(at * 7 + at / 31) % filler.len()]));
        bytes.extend(end);
        Self { bytes, number_at, sent_at }
    }

    fn fill(&mut self, number: &str, sent: Duration) -> Bytes {
        self.bytes[self.number_at..self.number_at + NUMBER_DIGITS].copy_from_slice(number.as_bytes());
        let sent = format!("{:0width$x}", sent.as_micros(), width = SENT_DIGITS);
        self.bytes[self.sent_at..self.sent_at + SENT_DIGITS].copy_from_slice(sent.as_bytes());
        Bytes::copy_from_slice(&self.bytes)
    }
}

/// When an observation was sent, since the start, as its content says.
pub(super) fn sent_of(data: &[u8]) -> Option<Duration> {
    let at = data.windows(SENT_FIELD.len()).position(|part| part == SENT_FIELD)? + SENT_FIELD.len();
    let digits = std::str::from_utf8(data.get(at..at + SENT_DIGITS)?).ok()?;
    u64::from_str_radix(digits, 16).ok().map(Duration::from_micros)
}

/// Makes one worker's requests.
pub(super) struct Maker {
    shape: Shape,
    template: Template,
    run: u64,
    worker: u16,
    requests: usize,
    /// The next number in each organisation: repeats are of its own.
    next: Vec<u64>,
}

impl Maker {
    /// `run` tells apart the observations of different runs.
    pub(super) fn new(shape: Shape, run: u64, worker: u16) -> Self {
        let (template, next) = (Template::new(shape.size), vec![0; shape.organisations.len()]);
        Self { shape, template, run, worker, requests: 0, next }
    }

    /// The next request, to be sent at `sent` since the start.
    pub(super) fn request(&mut self, sent: Duration) -> PublishObservationsRequest {
        let at = (self.requests + usize::from(self.worker)) % self.shape.organisations.len();
        self.requests += 1;
        let organisation = self.shape.organisations[at].clone();
        let observations = (0..self.shape.batch).map(|_| self.observation(at, sent)).collect();
        PublishObservationsRequest { organisation, request_id: String::new(), observations }
    }

    fn observation(&mut self, organisation: usize, sent: Duration) -> Observation {
        let mut number = self.next[organisation];
        if number > 0 && rand::random_bool(self.shape.duplicates) {
            // Not itself, and lately: what a publisher resends.
            number -= rand::random_range(1..=number.min(1000));
        } else {
            self.next[organisation] += 1;
        }
        let kind = usize::try_from(number).unwrap_or(0) % self.shape.definitions.len();
        let number = format!("{:016x}{:04x}{number:012x}", self.run, self.worker);
        Observation {
            definition: self.shape.definitions[kind].clone(),
            content: Some(Content::Data(self.template.fill(&number, sent))),
            chkpt: if self.shape.plain { String::new() } else { number },
            ..Observation::default()
        }
    }
}

/// What one worker saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Observations by outcome, by the outcome's number in the contract.
    pub(super) outcomes: [u64; 7],
    /// Calls that failed as a whole.
    pub(super) failed_calls: u64,
    /// Microseconds of each answered call.
    pub(super) latencies: Vec<u32>,
}

impl Seen {
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        usize::try_from(i32::from(outcome)).ok().and_then(|at| self.outcomes.get(at)).copied().unwrap_or(0)
    }

    /// Takes an answer's outcomes in; only accepted ones are told, and only what
    /// counts is kept.
    fn take(&mut self, outcomes: &[PublicationOutcome], counts: bool) -> u64 {
        let mut accepted = 0;
        for outcome in outcomes {
            accepted += u64::from(outcome.outcome == i32::from(Outcome::Success));
            if counts {
                let at = usize::try_from(outcome.outcome).unwrap_or(0);
                self.outcomes[at.min(6)] += 1;
            }
        }
        accepted
    }

    /// Counts outcomes of a kind.
    pub(super) fn count_as(&mut self, outcome: Outcome, observations: u64) {
        let at = usize::try_from(i32::from(outcome)).unwrap_or(0);
        self.outcomes[at.min(6)] += observations;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, more)| *sum += more);
        self.failed_calls += other.failed_calls;
        self.latencies.extend(other.latencies);
    }
}

/// Microseconds since a moment.
pub(super) fn micros_since(began: Instant) -> u32 {
    u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Publishes until the end.
pub(super) async fn publish(
    mut client: IngestServiceClient<Authorised>,
    mut maker: Maker,
    schedule: Schedule,
    flow: &Flow,
) -> Seen {
    let mut seen = Seen::default();
    let mut due = schedule.start;
    while flow.room(&schedule).await && due < schedule.end {
        // At a given rate latency counts from when a request was due: a slow
        // answer must not hide the requests that it delayed.
        let began = match schedule.interval {
            Some(interval) => {
                tokio::time::sleep_until(due.into()).await;
                let began = due;
                due += interval;
                began
            }
            None => Instant::now(),
        };
        let request = maker.request(began.duration_since(schedule.start));
        match client.publish_observations(request).await {
            Ok(answer) => {
                let counts = schedule.counts();
                let accepted = seen.take(&answer.into_inner().observations, counts);
                flow.publish(accepted);
                if counts {
                    seen.latencies.push(micros_since(began));
                }
            }
            Err(_) => {
                seen.failed_calls += 1;
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker(duplicates: f64) -> Maker {
        let shape = Shape {
            organisations: vec!["a".into(), "b".into()],
            definitions: vec!["x".into(), "y".into()],
            batch: 10,
            size: 600,
            duplicates,
            plain: false,
        };
        Maker::new(shape, 7, 0)
    }

    fn data(observation: &Observation) -> &[u8] {
        match &observation.content {
            Some(Content::Data(data)) => data,
            _ => panic!("no data"),
        }
    }

    #[test]
    fn a_body_is_json_of_the_wanted_size_that_says_when_it_was_sent() {
        let request = maker(0.0).request(Duration::from_micros(1234));
        let body = data(&request.observations[0]);
        assert_eq!(body.len(), 600);
        assert!(serde_json::from_slice::<serde_json::Value>(body).is_ok());
        assert_eq!(sent_of(body), Some(Duration::from_micros(1234)));
        assert_eq!(sent_of(b"{}"), None);
    }

    #[test]
    fn content_is_as_long_as_wanted_from_the_shortest_on() {
        for size in [usize::from(SIZE_MIN), usize::from(SIZE_MIN) + 1] {
            assert_eq!(Template::new(size).bytes.len(), size);
        }
        assert!(Template::new(usize::from(SIZE_MIN) - 1).bytes.len() >= usize::from(SIZE_MIN));
    }

    #[test]
    fn markers_differ_unless_duplicates_are_wanted() {
        let markers = |duplicates| {
            let mut maker = maker(duplicates);
            let requests = (0..10).map(|_| maker.request(Duration::ZERO));
            let of_one = |request: PublishObservationsRequest| {
                let PublishObservationsRequest { organisation, observations, .. } = request;
                observations.into_iter().map(move |one| (organisation.clone(), one.chkpt))
            };
            requests.flat_map(of_one).collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(markers(0.0), 100);
        assert!((20..80).contains(&markers(0.5)));
    }

    #[test]
    fn organisations_and_definitions_take_turns() {
        let mut maker = maker(0.0);
        let (first, second) = (maker.request(Duration::ZERO), maker.request(Duration::ZERO));
        assert_ne!(first.organisation, second.organisation);
        assert_ne!(first.observations[0].definition, first.observations[1].definition);
    }
}
