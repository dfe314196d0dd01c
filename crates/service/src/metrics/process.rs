//! What the process uses, under the names that all Prometheus clients give it.
//! Read from /proc when it is scraped; elsewhere than on Linux nothing is known
//! and nothing is exposed.

use std::{
    fmt, fs,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

#[derive(Debug, Default)]
pub(super) struct Process {
    /// Read once: the clocks it is computed from would move it by a second now and then.
    started_seconds: OnceLock<i64>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(used) = Used::now() else { return Ok(()) };
        let started = self.started_seconds.get_or_init(|| used.started_seconds);
        let mut gauge = |name, help, value: i64| {
            let value = ConstGauge::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
        };
        gauge("process_resident_memory_bytes", "Memory in use, bytes", used.resident_bytes)?;
        gauge("process_open_fds", "Open file descriptors", used.open_fds)?;
        gauge("process_threads", "Threads", used.threads)?;
        gauge("process_start_time_seconds", "Start, seconds since 1970", *started)?;
        let cpu = ConstCounter::new(used.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used, seconds",
            None,
            cpu.metric_type(),
        )?)
    }
}

struct Used {
    resident_bytes: i64,
    open_fds: i64,
    threads: i64,
    started_seconds: i64,
    cpu_seconds: f64,
}

impl Used {
    fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let open_fds = i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
        Self::read(&stat, &uptime, since_1970, open_fds)
    }

    /// From the fields that proc(5) numbers from 1; the second, the program's
    /// name, may itself hold spaces and brackets.
    fn read(stat: &str, uptime: &str, since_1970: f64, open_fds: i64) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "ticks since the machine started")]
        let seconds =
            |number: usize| Some(field(number)? as f64 / rustix::param::clock_ticks_per_second() as f64);
        let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "a date")]
        let started_seconds = (since_1970 - up + seconds(22)?) as i64;
        Some(Self {
            resident_bytes: field(24)? * i64::try_from(rustix::param::page_size()).ok()?,
            open_fds,
            threads: field(20)?,
            started_seconds,
            cpu_seconds: seconds(14)? + seconds(15)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc() {
        let mut fields = vec!["S"];
        fields.extend(std::iter::repeat_n("0", 49));
        for (number, value) in [(14, "250"), (15, "50"), (20, "7"), (22, "1000"), (24, "3")] {
            fields[number - 3] = value;
        }
        let used = Used::read(&format!("42 (a) b) {}", fields.join(" ")), "100.5 9.0", 1000.5, 12).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert!((used.cpu_seconds - 300.0 / ticks).abs() < 1e-9);
        assert_eq!((used.open_fds, used.threads), (12, 7));
        assert_eq!(used.resident_bytes, 3 * rustix::param::page_size() as i64);
        assert_eq!(used.started_seconds, (900.0 + 1000.0 / ticks) as i64);
    }

    #[test]
    fn this_process_uses_something() {
        let used = Used::now().unwrap();
        assert!(used.resident_bytes > 0 && used.open_fds > 0 && used.threads > 0);
    }
}
