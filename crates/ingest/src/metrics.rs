//! The metrics of the ingest service, all of them in one place but for those of
//! observations ([`crate::tally`]). What the whole database holds is told by
//! every replica: take the largest, not the sum.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sluice_service::{
    label,
    metrics::{By, Counter, Family, FloatGauge, Gauge, Histogram, Registry, grpc_code_name, items, seconds},
};
use tonic::Code;
use uuid::Uuid;

use crate::{doubt::Ended, emitter::call::Handover, tally::Tally};

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Observations and outcomes.
    pub tally: Tally,
    /// Lanes and gate transactions.
    pub commits: Arc<Commits>,
    /// What the gate keeps.
    pub gate: Arc<Gate>,
    /// The outbox as measured.
    pub outbox: Arc<Outbox>,
    /// From the outbox to the results service.
    pub emission: Arc<Emission>,
}

impl Metrics {
    /// Adds them to a registry. `outbox_bytes_max` is the bound of the outbox.
    #[must_use]
    pub fn register(registry: &mut Registry, outbox_bytes_max: u64) -> Self {
        Self {
            tally: Tally::register(registry),
            commits: Arc::new(Commits::register(registry)),
            gate: Arc::new(Gate::register(registry)),
            outbox: Arc::new(Outbox::register(registry, outbox_bytes_max)),
            emission: Arc::new(Emission::register(registry)),
        }
    }
}

label! {
    /// How a try at a gate transaction ended; all but the first are a
    /// [`GateError`](crate::gate::error::GateError).
    pub enum Try {
        /// With COMMIT.
        Committed = "committed",
        /// Definitions had changed since the check.
        Stale = "stale",
        /// Some candidates could not be decided.
        Unfit = "unfit",
        /// A deadlock or serialization failure.
        Conflict = "conflict",
        /// Something presumed was there.
        Known = "known",
        /// A lock was not to be had, or the server is short of something.
        Busy = "busy",
        /// The session broke before the commit.
        Disconnected = "disconnected",
        /// Others ended the session.
        Ended = "ended",
        /// A statement failed on its values.
        Refused = "refused",
        /// Nobody knows.
        InDoubt = "in_doubt",
    }
}

/// Lanes and gate transactions.
#[derive(Debug)]
pub struct Commits {
    tries: By<Try, Counter>,
    seconds: Histogram,
    observations: Histogram,
    requests: Histogram,
    doubts: By<Ended, Counter>,
    /// What waits for the lanes.
    pub waiting: LanesWaiting,
}

impl Commits {
    fn register(registry: &mut Registry) -> Self {
        Self {
            tries: registry.add_by(
                "sluice_commits_total",
                "Tries at a gate transaction, by how they ended",
                "result",
                Counter::default,
            ),
            seconds: registry.add(
                "sluice_commit_duration_seconds",
                "Time of a gate transaction that was committed, seconds",
                seconds(),
            ),
            observations: registry.add(
                "sluice_commit_observations",
                "Observations in a gate transaction that was committed",
                items(),
            ),
            requests: registry.add(
                "sluice_commit_requests",
                "Requests merged into a gate transaction that was committed",
                items(),
            ),
            doubts: registry.add_by(
                "sluice_commit_doubts_total",
                "Commits whose connection broke, by what was found out about them",
                "ended",
                Counter::default,
            ),
            waiting: LanesWaiting {
                requests: registry.add(
                    "sluice_lane_waiting_requests",
                    "Requests that wait for a lane",
                    Gauge::default(),
                ),
                bytes: registry.add(
                    "sluice_lane_waiting_bytes",
                    "Content bytes that wait for a lane",
                    Gauge::default(),
                ),
            },
        }
    }

    /// A try at a gate transaction ended without COMMIT, or nobody knows.
    pub fn failed(&self, result: Try) {
        self.tries.of(result).inc();
    }

    /// A gate transaction was committed.
    pub fn committed(&self, requests: usize, observations: usize, took: Duration) {
        self.tries.of(Try::Committed).inc();
        self.seconds.observe(took.as_secs_f64());
        self.observations.observe(float(observations));
        self.requests.observe(float(requests));
    }

    /// A commit in doubt was looked into.
    pub fn resolved(&self, ended: Ended) {
        self.doubts.of(ended).inc();
    }
}

/// What waits for the lanes.
#[derive(Clone, Debug, Default)]
pub struct LanesWaiting {
    requests: Gauge,
    bytes: Gauge,
}

impl LanesWaiting {
    /// A request was handed in.
    pub fn add(&self, bytes: usize) {
        self.requests.inc();
        self.bytes.inc_by(signed(bytes));
    }

    /// Requests were taken.
    pub fn remove(&self, requests: usize, bytes: usize) {
        self.requests.dec_by(signed(requests));
        self.bytes.dec_by(signed(bytes));
    }

    /// Requests, and bytes.
    #[cfg(test)]
    pub fn get(&self) -> (i64, i64) {
        (self.requests.get(), self.bytes.get())
    }
}

/// What the gate keeps.
#[derive(Debug)]
pub struct Gate {
    lag_seconds: FloatGauge,
}

impl Gate {
    fn register(registry: &mut Registry) -> Self {
        Self {
            lag_seconds: registry.add(
                "sluice_gate_cleanup_lag_seconds",
                "How long the gate's oldest markers and windows should have been gone, seconds",
                FloatGauge::default(),
            ),
        }
    }

    /// Since when the oldest state could have been removed; below 0, not yet.
    pub fn roll_over_due(&self, since_seconds: f64) {
        self.lag_seconds.set(since_seconds.max(0.0));
    }
}

/// The outbox as measured now and then.
#[derive(Debug)]
pub struct Outbox {
    rows: Gauge,
    bytes: Gauge,
    oldest_age_seconds: FloatGauge,
    set_aside_rows: Gauge,
}

impl Outbox {
    fn register(registry: &mut Registry, bytes_max: u64) -> Self {
        let bound = "Bytes in the outbox from which on nothing more is accepted";
        registry
            .add("sluice_outbox_bytes_max", bound, <Gauge>::default())
            .set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        Self {
            rows: registry.add(
                "sluice_outbox_rows",
                "Accepted batches not yet recorded, of all replicas",
                Gauge::default(),
            ),
            bytes: registry.add(
                "sluice_outbox_bytes",
                "Bytes accepted and not yet recorded, compressed, of all replicas",
                Gauge::default(),
            ),
            oldest_age_seconds: registry.add(
                "sluice_outbox_oldest_age_seconds",
                "Age of the oldest accepted batch that is neither recorded nor set aside, of all replicas, \
                 seconds; 0 without one",
                FloatGauge::default(),
            ),
            set_aside_rows: registry.add(
                "sluice_outbox_set_aside_rows",
                "Accepted batches that can't be recorded as they are and wait for an operator, of all replicas",
                Gauge::default(),
            ),
        }
    }

    /// What the database holds now, and for how long.
    pub fn measured(&self, rows: i64, bytes: i64, set_aside: i64, oldest_age_seconds: f64) {
        self.rows.set(rows);
        self.bytes.set(bytes);
        self.set_aside_rows.set(set_aside);
        self.oldest_age_seconds.set(oldest_age_seconds.max(0.0));
    }
}

/// From the outbox to the results service.
#[derive(Debug)]
pub struct Emission {
    calls: Family<[(&'static str, &'static str); 1], Counter>,
    call_seconds: Histogram,
    batches: By<Handover, Counter>,
    results: By<Handover, Counter>,
    lag_seconds: Histogram,
}

impl Emission {
    fn register(registry: &mut Registry) -> Self {
        let calls = Family::default();
        // The usual ones are shown from the beginning.
        for code in [Code::Ok, Code::Unavailable] {
            drop(calls.get_or_create(&[("code", grpc_code_name(code))]));
        }
        Self {
            calls: registry.add(
                "sluice_emission_calls_total",
                "Calls to the results service, by gRPC status",
                calls,
            ),
            call_seconds: registry.add(
                "sluice_emission_call_duration_seconds",
                "Time of a call to the results service, seconds",
                seconds(),
            ),
            batches: registry.add_by(
                "sluice_emission_batches_total",
                "Accepted batches handed over, by what became of them",
                "handover",
                Counter::default,
            ),
            results: registry.add_by(
                "sluice_emission_results_total",
                "Results handed over, by what became of their batch",
                "handover",
                Counter::default,
            ),
            lag_seconds: registry.add(
                "sluice_emission_lag_seconds",
                "From the commit of an accepted batch until it is recorded, seconds",
                seconds(),
            ),
        }
    }

    /// A call to the results service was answered.
    pub fn called(&self, code: Code, took: Duration) {
        self.calls.get_or_create(&[("code", grpc_code_name(code))]).inc();
        self.call_seconds.observe(took.as_secs_f64());
    }

    /// A row of the outbox was handed over. Its id tells when it was committed.
    pub fn handed_over(&self, row: Uuid, results: usize, handover: Handover) {
        self.batches.of(handover).inc();
        self.results.of(handover).inc_by(results as u64);
        if let (Handover::Recorded, Some(age)) = (handover, age(row)) {
            self.lag_seconds.observe(age.as_secs_f64());
        }
    }
}

/// How long ago a UUIDv7 was made.
fn age(id: Uuid) -> Option<Duration> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    let made = UNIX_EPOCH + Duration::new(seconds, nanos);
    Some(SystemTime::now().duration_since(made).unwrap_or_default())
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of batches")]
fn float(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use sluice_service::metrics::Label as _;

    use super::*;

    #[test]
    fn a_row_s_age_is_told_by_its_id() {
        assert!(age(Uuid::now_v7()).unwrap() < Duration::from_secs(5));
        assert_eq!(age(Uuid::nil()), None);
    }

    #[test]
    fn what_may_end_a_commit_is_exposed_from_the_start() {
        let mut registry = Registry::new("ingest", "0");
        let _metrics = Metrics::register(&mut registry, 1);
        let text = registry.expose().unwrap();
        for ended in Try::ALL {
            let series = format!("sluice_commits_total{{result=\"{}\"}} 0", ended.word());
            assert!(text.lines().any(|line| line == series), "{series} in\n{text}");
        }
    }
}
