//! The limits that both services have, as settings: one place, one meaning. Those
//! of the whole process hold over all connections and callers.

use std::{num::NonZeroU32, time::Duration};

use crate::settings;

/// Least room for bodies: a message between the services must find some.
const BODY_BYTES_LEAST: usize = 32 * 1024 * 1024;
/// Least room for answers: the largest page of a list must find some.
const ANSWER_BYTES_LEAST: usize = 32 * 1024 * 1024;
/// Least room for the headers of a request: a token and what proxies add.
const HEADER_LIST_BYTES_LEAST: u32 = 1024;

settings! {
    /// What callers may take up.
    pub struct Limits {
        request_bytes_max: usize = Some("16777216"), "Largest request, or message of a stream, in bytes, decompressed.";
        body_bytes_in_flight_max: usize = Some("67108864"), "Bytes of requests that are being received or worked on, in the whole process, decompressed; above, callers are told to come again. Each organisation may have as much as is still free, or one request. At least 32 MiB, and twice request_bytes_max. An observation's `body` counts two and a half times, and the largest of a request sixteen times more.";
        answer_bytes_in_flight_max: usize = Some("134217728"), "Bytes of answers that callers have not read yet, in the whole process; above, who asks for what is larger than 16 KiB is told to come again. Each organisation may have as much as is still free. Files don't count. At least 32 MiB.";
        requests_in_flight_max: usize = Some("4096"), "Requests and open streams at the same time, in the whole process; above, callers are told to come again. Each organisation may have as many as are still free, and so may all together who show no valid token. Health and reflection don't count.";
        organisation_requests_per_second_max: u32 = Some("0"), "Requests, and streams when they begin, of each organisation and replica in a second, by tokens that belong to it; above, it is told when to come again. 0: no limit.";
        organisation_requests_burst_max: u32 = Some("0"), "How many of them may come at once. 0: as many as in a second.";
        connections_max: usize = Some("4096"), "Connections at the same time; above, a new one is closed at once. Probes go to health_listen or admin_listen.";
        streams_per_connection_max: u32 = Some("1024"), "Requests at the same time on one HTTP/2 connection; its other ones wait with the caller.";
        header_list_bytes_max: u32 = Some("16384"), "Largest sum of a request's headers, in bytes, each with 32 on top (RFC 9113, section 10.5.1). At least 1024.";
        connection_age_max_seconds: u64 = Some("1800"), "After this time, ten percent more or less, a connection takes no more requests, so that callers spread over new replicas.";
        connection_age_grace_seconds: u64 = Some("86400"), "How long the requests that are open then may take, files above all, before they are cut off. Streams end by themselves.";
        answer_pause_max_seconds: u64 = Some("60"), "How long a caller may read nothing of an answer that waits for it, or up to a third longer, before its connection ends; other requests on it have as long once more.";
        keepalive_interval_seconds: u64 = Some("30"), "How often an HTTP/2 connection is asked for a sign of life.";
        keepalive_timeout_seconds: u64 = Some("10"), "How long that may take before the connection is closed. After both times together so is one, of HTTP/1.1 or HTTP/2, on which nothing was ever asked.";
        shutdown_wait_seconds: u64 = Some("5"), "After SIGTERM: not ready at once, but requests are still taken for this long, until callers have gone elsewhere.";
        shutdown_deadline_seconds: u64 = Some("25"), "After SIGTERM: when what is still open is cut off. Then what was accepted is flushed, up to 5 seconds.";
    }
    checks {
        request_bytes_max, body_bytes_in_flight_max => body_faults(*request_bytes_max, *body_bytes_in_flight_max);
        answer_bytes_in_flight_max => (*answer_bytes_in_flight_max < ANSWER_BYTES_LEAST)
            .then(|| format!("answer_bytes_in_flight_max: must be at least {ANSWER_BYTES_LEAST}"));
        header_list_bytes_max => (*header_list_bytes_max < HEADER_LIST_BYTES_LEAST)
            .then(|| format!("header_list_bytes_max: must be at least {HEADER_LIST_BYTES_LEAST}"));
        requests_in_flight_max, connections_max, streams_per_connection_max =>
            [
                ("requests_in_flight_max", *requests_in_flight_max),
                ("connections_max", *connections_max),
                ("streams_per_connection_max", *streams_per_connection_max as usize),
            ]
            .into_iter()
            .filter(|(_, value)| !(1..=COUNT_MOST).contains(value))
            .map(|(name, _)| format!("{name}: must be from 1 to {COUNT_MOST}"));
        connection_age_max_seconds, answer_pause_max_seconds, keepalive_interval_seconds,
        keepalive_timeout_seconds =>
            [
                ("connection_age_max_seconds", *connection_age_max_seconds),
                ("answer_pause_max_seconds", *answer_pause_max_seconds),
                ("keepalive_interval_seconds", *keepalive_interval_seconds),
                ("keepalive_timeout_seconds", *keepalive_timeout_seconds),
            ]
            .into_iter()
            .filter(|(_, value)| !(1..=SECONDS_MOST).contains(value))
            .map(|(name, _)| format!("{name}: must be from 1 to {SECONDS_MOST}"));
        connection_age_grace_seconds => (*connection_age_grace_seconds > SECONDS_MOST)
            .then(|| format!("connection_age_grace_seconds: must be up to {SECONDS_MOST}"));
        shutdown_wait_seconds, shutdown_deadline_seconds =>
            shutdown_faults(*shutdown_wait_seconds, *shutdown_deadline_seconds);
    }
}

/// More than any process has descriptors for.
const COUNT_MOST: usize = 1 << 20;
/// A year: beyond it clocks overflow sooner than anybody waits.
const SECONDS_MOST: u64 = 365 * 24 * 3600;

fn body_faults(request_bytes_max: usize, in_flight_max: usize) -> Option<String> {
    let least = request_bytes_max.saturating_mul(2).max(BODY_BYTES_LEAST);
    let fault = "body_bytes_in_flight_max: must be at least 33554432 and twice request_bytes_max";
    (in_flight_max < least).then(|| fault.into())
}

fn shutdown_faults(wait: u64, deadline: u64) -> Option<String> {
    let fits = wait < deadline && deadline <= SECONDS_MOST;
    (!fits).then(|| "shutdown_deadline_seconds: must be more than shutdown_wait_seconds".into())
}

/// How many requests an organisation may send.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// In a second, in the long run.
    pub per_second: NonZeroU32,
    /// At once.
    pub burst: NonZeroU32,
}

impl Limits {
    /// The rate of each organisation; `None` without a limit.
    #[must_use]
    pub fn organisation_rate(&self) -> Option<Rate> {
        let per_second = NonZeroU32::new(self.organisation_requests_per_second_max)?;
        let burst = NonZeroU32::new(self.organisation_requests_burst_max).unwrap_or(per_second);
        Some(Rate { per_second, burst })
    }

    /// How long requests are still taken after the stop was asked for.
    #[must_use]
    pub fn shutdown_wait(&self) -> Duration {
        Duration::from_secs(self.shutdown_wait_seconds)
    }

    /// How long requests may take once no more are taken.
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.shutdown_deadline_seconds.saturating_sub(self.shutdown_wait_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(flags: &str) -> Vec<String> {
        let flags: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
        Limits::load(flags, []).err().map(|faults| faults.0).unwrap_or_default()
    }

    #[test]
    fn what_can_not_be_kept_is_a_fault() {
        for good in [
            "",
            "--shutdown-wait-seconds 0 --shutdown-deadline-seconds 1",
            "--header-list-bytes-max 1024",
            "--answer-bytes-in-flight-max 33554432",
            "--requests-in-flight-max 1 --connections-max 1048576 --streams-per-connection-max 1",
            "--connection-age-grace-seconds 0 --keepalive-timeout-seconds 1 --answer-pause-max-seconds 1",
        ] {
            assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        }
        for (bad, names) in [
            ("--shutdown-wait-seconds 9 --shutdown-deadline-seconds 9", vec!["shutdown_deadline_seconds"]),
            ("--header-list-bytes-max 1023", vec!["header_list_bytes_max"]),
            (
                "--requests-in-flight-max 0 --connections-max 1048577",
                vec!["requests_in_flight_max", "connections_max"],
            ),
            ("--keepalive-interval-seconds 0", vec!["keepalive_interval_seconds"]),
            ("--answer-pause-max-seconds 0", vec!["answer_pause_max_seconds"]),
            ("--connection-age-max-seconds 31536001", vec!["connection_age_max_seconds"]),
            ("--body-bytes-in-flight-max 33554431", vec!["body_bytes_in_flight_max"]),
            ("--answer-bytes-in-flight-max 33554431", vec!["answer_bytes_in_flight_max"]),
        ] {
            let found = faults(bad);
            let found: Vec<_> = found.iter().map(|fault| fault.split(':').next().unwrap()).collect();
            assert_eq!(found, names, "{bad}");
        }
    }

    #[test]
    fn a_rate_without_a_burst_lets_a_second_s_worth_come_at_once() {
        let rate = |flags: [&str; 2]| {
            let limits = Limits::load(flags.map(str::to_owned), []).unwrap();
            limits.organisation_rate().map(|rate| (rate.per_second.get(), rate.burst.get()))
        };
        assert_eq!(
            rate(["--organisation-requests-per-second-max=0", "--organisation-requests-burst-max=5"]),
            None
        );
        assert_eq!(
            rate(["--organisation-requests-per-second-max=7", "--organisation-requests-burst-max=0"]),
            Some((7, 7))
        );
        assert_eq!(
            rate(["--organisation-requests-per-second-max=7", "--organisation-requests-burst-max=9"]),
            Some((7, 9))
        );
    }
}
