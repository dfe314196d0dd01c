//! What processes used: CPU seconds and peak memory, from /proc. Elsewhere than
//! on Linux nothing is known, and the report says nothing.

use std::{fs, sync::Arc};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::{
    failure::{Context, Failure},
    ready::Pids,
};

/// How much the server has written to its log of changes, in bytes.
const WAL_POSITION: &str = include_str!("wal_position.sql");

/// Reads what is used.
#[derive(Clone, Default)]
pub(super) struct Meter {
    /// Of a pair on this machine.
    pub(super) pids: Option<Pids>,
    /// A session of a superuser, where there is one.
    pub(super) postgres: Option<Arc<Client>>,
}

/// What was used up to a moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) cpu: Cpu,
    /// Bytes of PostgreSQL's log of changes, where known.
    pub(super) wal_bytes: Option<u64>,
}

impl Meter {
    /// What has been used up to now.
    pub(super) async fn now(&self) -> Result<Used, Failure> {
        let wal_bytes = match &self.postgres {
            Some(client) => {
                let row = client.query_one(WAL_POSITION, &[]).await.context("WAL position")?;
                u64::try_from(row.get::<_, i64>(0)).ok()
            }
            None => None,
        };
        Ok(Used { cpu: Cpu::now(self.pids), wal_bytes })
    }
}

impl Used {
    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        let wal_bytes = self.wal_bytes.zip(before.wal_bytes).map(|(now, then)| now.saturating_sub(then));
        Self { cpu: self.cpu.since(before.cpu), wal_bytes }
    }
}

/// CPU seconds used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    pub(super) generator: f64,
    pub(super) ingest: f64,
    pub(super) results: f64,
    pub(super) postgres: f64,
}

impl Cpu {
    /// Of this process and, where they run on this machine, of the pair's.
    pub(super) fn now(pids: Option<Pids>) -> Self {
        let pids = pids.unwrap_or_default();
        Self {
            generator: seconds(std::process::id()).map_or(0.0, |(own, _)| own),
            ingest: seconds(pids.ingest).map_or(0.0, |(own, _)| own),
            results: seconds(pids.results).map_or(0.0, |(own, _)| own),
            postgres: family_seconds(pids.postgres),
        }
    }

    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            generator: self.generator - before.generator,
            ingest: self.ingest - before.ingest,
            results: self.results - before.results,
            postgres: self.postgres - before.postgres,
        }
    }

    /// The generator's share of what all cores could do in `elapsed` seconds.
    pub(super) fn generator_share(self, elapsed: f64) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let possible = elapsed * cores as f64;
        self.generator / possible.max(1e-9)
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "generator": self.generator, "ingest": self.ingest,
            "results": self.results, "postgres": self.postgres,
        })
    }
}

/// Peak resident memory of a process in MiB.
pub(super) fn peak_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmHWM:")
}

/// Resident memory of a process in MiB, now.
pub(super) fn resident_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmRSS:")
}

fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// CPU seconds of a process itself, and of its children that ended.
fn seconds(pid: u32) -> Option<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|(own, ended)| (to_seconds(own), to_seconds(ended)))
}

/// User and system ticks of a process and of its ended children. The fields are
/// counted after the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((field(11)? + field(12)?, field(13)? + field(14)?))
}

fn to_seconds(ticks: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (ticks, per_second) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
    ticks / per_second
}

/// PostgreSQL's: its first process, that one's ended children, and the living.
fn family_seconds(parent: u32) -> f64 {
    let Some((own, ended)) = seconds(parent).filter(|_| parent != 0) else { return 0.0 };
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let living = children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(seconds);
    own + ended + living.map(|(own, _)| own).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0";
        assert_eq!(ticks(stat), Some((120, 7)));
        assert_eq!(ticks("nonsense"), None);
    }
}
