//! What was measured, as text and as JSON.

use serde_json::{Value, json};
use sluice_proto::ingest::v1::Outcome;

use super::{
    load::Seen,
    usage::{Cpu, Used},
};
use crate::publish::{OUTCOMES, outcome_name};

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Percentiles {
    /// Of microseconds; `None` if there are none.
    pub(super) fn of(mut micros: Vec<u32>) -> Option<Self> {
        micros.sort_unstable();
        let last = micros.len().checked_sub(1)?;
        // The nearest rank: the smallest value that so many are not above.
        let at = |percent: usize| {
            let rank = (micros.len() * percent).div_ceil(100).max(1) - 1;
            f64::from(micros[rank.min(last)]) / 1000.0
        };
        Some(Self { p50: at(50), p95: at(95), p99: at(99), max: at(100) })
    }

    pub(super) fn to_json(self) -> Value {
        json!({"p50": self.p50, "p95": self.p95, "p99": self.p99, "max": self.max})
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p95, p99, max } = self;
        write!(f, "p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
    }
}

/// One run's figures.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    pub(super) batch: usize,
    pub(super) concurrency: usize,
    pub(super) size: usize,
    /// Seconds that were measured.
    pub(super) elapsed: f64,
    /// What publishers saw; absent when only acknowledging was measured.
    pub(super) seen: Option<Seen>,
    /// Results acknowledged, where there were consumers.
    pub(super) acknowledged: Option<u64>,
    /// Of each measured call.
    pub(super) latency: Option<Percentiles>,
    /// From sending to being listed.
    pub(super) available: Option<Percentiles>,
    /// Results whose data was not what was published.
    pub(super) corrupt: u64,
    /// Accepted, but not to be had by consumers in time.
    pub(super) missing: u64,
    pub(super) used: Used,
    /// Peak memory in MiB of ingest and results, where they are on this machine.
    pub(super) peak_mib: [Option<f64>; 2],
}

impl Report {
    /// The scenario's last step, per second.
    pub(super) fn per_second(&self) -> f64 {
        self.rate(self.done())
    }

    fn rate(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = count as f64;
        count / self.elapsed.max(1e-9)
    }

    /// What the throughput is counted in: the scenario's last step.
    pub(super) fn done(&self) -> u64 {
        let decided = |seen: &Seen| {
            OUTCOMES
                .iter()
                .filter(|outcome| !matches!(outcome, Outcome::Retry | Outcome::Error))
                .map(|outcome| seen.count(*outcome))
                .sum()
        };
        self.acknowledged.unwrap_or_else(|| self.seen.as_ref().map_or(0, decided))
    }

    /// Whether the figures mean anything: nothing failed, nothing was corrupt.
    pub(super) fn is_clean(&self) -> bool {
        let refused =
            |seen: &Seen| seen.failed_calls + seen.count(Outcome::Error) + seen.count(Outcome::Retry);
        self.corrupt == 0
            && self.missing == 0
            && self.done() > 0
            && self.seen.as_ref().map_or(0, refused) == 0
    }

    pub(super) fn to_json(&self) -> Value {
        let outcomes: serde_json::Map<String, Value> = self
            .seen
            .iter()
            .flat_map(|seen| {
                OUTCOMES.map(|outcome| (outcome_name(outcome).to_owned(), seen.count(outcome).into()))
            })
            .collect();
        json!({
            "scenario": self.scenario,
            "batch": self.batch,
            "concurrency": self.concurrency,
            "size_bytes": self.size,
            "seconds": self.elapsed,
            "per_second": self.rate(self.done()),
            "published_per_second": self.seen.as_ref().map(|seen| self.rate(seen.count(Outcome::Success))),
            "outcomes": outcomes,
            "failed_calls": self.seen.as_ref().map(|seen| seen.failed_calls),
            "acknowledged": self.acknowledged,
            "latency_ms": self.latency.map(Percentiles::to_json),
            "publish_to_available_ms": self.available.map(Percentiles::to_json),
            "corrupt": self.corrupt,
            "missing": self.missing,
            "cpu_seconds": self.used.cpu.to_json(),
            "wal_bytes": self.used.wal_bytes,
            "generator_cpu_share": self.used.cpu.generator_share(self.elapsed),
            "peak_mib": {"ingest": self.peak_mib[0], "results": self.peak_mib[1]},
        })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scenario, batch, concurrency, size, elapsed, .. } = self;
        writeln!(
            f,
            "{scenario}: batches of {batch}, {concurrency} callers, {size} bytes each, {elapsed:.1} s"
        )?;
        writeln!(f, "  {:.0}/s", self.rate(self.done()))?;
        if let Some(seen) = &self.seen {
            let counts = OUTCOMES.map(|outcome| (outcome_name(outcome), seen.count(outcome)));
            let shown: Vec<String> =
                counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            writeln!(
                f,
                "  published: {} ({:.0}/s)",
                shown.join(", "),
                self.rate(seen.count(Outcome::Success))
            )?;
            if seen.failed_calls > 0 {
                writeln!(f, "  failed calls: {}", seen.failed_calls)?;
            }
        }
        if let Some(latency) = self.latency {
            writeln!(f, "  a call: {latency}")?;
        }
        if let Some(available) = self.available {
            writeln!(f, "  publish to available: {available}")?;
        }
        if self.corrupt > 0 {
            writeln!(f, "  CORRUPT: {} results are not what was published", self.corrupt)?;
        }
        if self.missing > 0 {
            writeln!(f, "  MISSING: {} accepted observations did not become results in time", self.missing)?;
        }
        let Cpu { generator, ingest, results, postgres } = self.used.cpu;
        let share = 100.0 * self.used.cpu.generator_share(*elapsed);
        write!(f, "  CPU: generator {generator:.1} s ({share:.0} % of the machine)")?;
        if ingest + results + postgres > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let per = 100_000.0 / (self.done().max(1) as f64);
            write!(
                f,
                "; per 100,000: ingest {:.2} s, results {:.2} s, PostgreSQL {:.2} s",
                ingest * per,
                results * per,
                postgres * per
            )?;
        }
        writeln!(f)?;
        if let [Some(ingest), Some(results)] = self.peak_mib {
            writeln!(f, "  peak memory: ingest {ingest:.0} MiB, results {results:.0} MiB")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let percentiles = Percentiles::of((1..=100).rev().map(|ms| ms * 1000).collect()).unwrap();
        assert_eq!(percentiles, Percentiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        let one = Percentiles::of(vec![5000]).unwrap();
        assert_eq!((one.p50, one.max), (5.0, 5.0));
        assert_eq!(Percentiles::of(vec![]), None);
    }
}
