//! The limits that both services have, as settings: one place, one meaning. Those
//! of the whole process hold over all connections and callers.

use std::{num::NonZeroU32, time::Duration};

use crate::{
    config::bounds::{self, SECONDS_MOST},
    settings,
};

/// Least room for bodies: a message between the services must find some.
const BODY_BYTES_LEAST: usize = 32 * 1024 * 1024;
/// Least room for answers: the largest page of a list must find some.
const ANSWER_BYTES_LEAST: usize = 32 * 1024 * 1024;
/// Least room for the headers of a request: a token and what proxies add.
const HEADER_LIST_BYTES_LEAST: u32 = 1024;

settings! {
    /// What callers may take up.
    pub struct Limits {
        request_bytes_max: usize = Some("16777216"), "Largest request, or message of a stream, in bytes, decompressed. For health and reflection it is 4096.";
        body_bytes_in_flight_max: usize = Some("67108864"), "Bytes of requests being received or processed, in the whole process, decompressed; above, callers are told to retry. One organisation may hold at most as much as is left for the others: half, if it is alone, and one request in any case. What a request becomes when it is decoded counts from its end on. Beside it, open streams keep up to as much again, shared in the same way: each the size of its largest message, less 256 KiB. At least 32 MiB, and twice request_bytes_max. An observation's `body` counts 2.5 times its size; the largest of a request counts 16 times more on top.";
        answer_bytes_in_flight_max: usize = Some("134217728"), "Bytes of answers that callers have not read yet, in the whole process; above, calls whose answer is larger than 16 KiB are told to retry. One organisation may hold at most as much as is left for the others: half, if it is alone. Files don't count. At least 32 MiB.";
        requests_in_flight_max: usize = Some("4096"), "Requests and open streams at the same time, in the whole process; above, callers are told to retry. One organisation may hold at most as many as are left for the others: half, if it is alone. All callers without a valid token count as one. Health and reflection are counted apart: at most 1024 calls of health and 64 of reflection, and half of each by callers without a valid token.";
        organisation_requests_per_second_max: u32 = Some("0"), "Requests per second, and streams when they begin, of one organisation on one replica, by tokens that belong to it; above, it is told when to retry. 0: no limit.";
        organisation_requests_burst_max: u32 = Some("0"), "How many of them may come at once. 0: as many as per second.";
        connections_max: usize = Some("4096"), "Connections at the same time; above, a new one is closed at once. Probes should use health_listen or admin_listen.";
        streams_per_connection_max: u32 = Some("1024"), "Requests at the same time on one HTTP/2 connection; further ones wait at the caller.";
        header_list_bytes_max: u32 = Some("16384"), "Size of a request's headers together, in bytes, with 32 on top for each (RFC 9113, section 10.5.1). At least 1024.";
        connection_age_max_seconds: u64 = Some("1800"), "After this time, plus or minus ten percent, a connection takes no more requests, so that callers spread over new replicas.";
        connection_age_grace_seconds: u64 = Some("86400"), "How long requests that are open then, above all files, may still take before they are cut off. Streams end by themselves.";
        answer_pause_max_seconds: u64 = Some("60"), "A connection ends when its caller reads nothing of a waiting answer for this long (up to a third longer); its other requests get the same time again.";
        keepalive_interval_seconds: u64 = Some("30"), "How often an HTTP/2 connection is pinged.";
        keepalive_timeout_seconds: u64 = Some("10"), "How long a ping may take to be answered before the connection is closed. A connection on which no request was ever made is closed after the sum of both.";
        shutdown_wait_seconds: u64 = Some("5"), "After SIGTERM the service is not ready at once, but takes requests for this long, until callers have gone elsewhere.";
        shutdown_deadline_seconds: u64 = Some("25"), "After SIGTERM, requests still open are cut off after this long. Then what was accepted is flushed, for up to 8 seconds.";
    }
    checks {
        request_bytes_max => bounds::at_least("request_bytes_max", *request_bytes_max, 1);
        request_bytes_max, body_bytes_in_flight_max => body_faults(*request_bytes_max, *body_bytes_in_flight_max);
        answer_bytes_in_flight_max =>
            bounds::at_least("answer_bytes_in_flight_max", *answer_bytes_in_flight_max, ANSWER_BYTES_LEAST);
        header_list_bytes_max =>
            bounds::at_least("header_list_bytes_max", *header_list_bytes_max, HEADER_LIST_BYTES_LEAST);
        requests_in_flight_max => bounds::count("requests_in_flight_max", *requests_in_flight_max);
        connections_max => bounds::count("connections_max", *connections_max);
        streams_per_connection_max =>
            bounds::count("streams_per_connection_max", *streams_per_connection_max as usize);
        connection_age_max_seconds =>
            bounds::seconds("connection_age_max_seconds", *connection_age_max_seconds);
        connection_age_grace_seconds =>
            bounds::within("connection_age_grace_seconds", *connection_age_grace_seconds, 0..=SECONDS_MOST);
        answer_pause_max_seconds => bounds::seconds("answer_pause_max_seconds", *answer_pause_max_seconds);
        keepalive_interval_seconds =>
            bounds::seconds("keepalive_interval_seconds", *keepalive_interval_seconds);
        keepalive_timeout_seconds => bounds::seconds("keepalive_timeout_seconds", *keepalive_timeout_seconds);
        shutdown_wait_seconds, shutdown_deadline_seconds =>
            shutdown_faults(*shutdown_wait_seconds, *shutdown_deadline_seconds);
    }
}

fn body_faults(request_bytes_max: usize, in_flight_max: usize) -> Option<String> {
    let least = request_bytes_max.saturating_mul(2).max(BODY_BYTES_LEAST);
    let fault = "body_bytes_in_flight_max: must be at least 33554432 and twice request_bytes_max";
    (in_flight_max < least).then(|| fault.into())
}

fn shutdown_faults(wait: u64, deadline: u64) -> Option<String> {
    let fits = wait < deadline && deadline <= SECONDS_MOST;
    let fault = "shutdown_deadline_seconds: must be more than shutdown_wait_seconds, and at most 31536000";
    (!fits).then(|| fault.into())
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
    use crate::{config::Part as _, no_token::NoToken, shutdown::ENDING};

    fn meaning(name: &str) -> &'static str {
        Limits::table().into_iter().find(|setting| setting.name == name).unwrap().meaning
    }

    #[test]
    fn the_help_says_how_long_a_stop_takes_after_its_deadline() {
        let text = meaning("shutdown_deadline_seconds");
        assert!(text.contains(&format!("up to {} seconds", ENDING.as_secs())), "{text}");
    }

    #[test]
    fn the_help_says_what_calls_without_a_token_may_take_up() {
        let places =
            format!("{} calls of health and {} of reflection", NoToken::HEALTH_MAX, NoToken::REFLECTION_MAX);
        assert!(meaning("requests_in_flight_max").contains(&places), "{places}");
        let bytes = format!("For health and reflection it is {}.", NoToken::MESSAGE_BYTES_MAX);
        assert!(meaning("request_bytes_max").contains(&bytes), "{bytes}");
    }

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
            "--connection-age-grace-seconds 31536000 --connection-age-max-seconds 31536000",
            "--shutdown-deadline-seconds 31536000",
            "--request-bytes-max 20000000 --body-bytes-in-flight-max 40000000",
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
            ("--streams-per-connection-max 0", vec!["streams_per_connection_max"]),
            ("--connection-age-max-seconds 31536001", vec!["connection_age_max_seconds"]),
            ("--connection-age-grace-seconds 31536001", vec!["connection_age_grace_seconds"]),
            ("--shutdown-deadline-seconds 31536001", vec!["shutdown_deadline_seconds"]),
            ("--body-bytes-in-flight-max 33554431", vec!["body_bytes_in_flight_max"]),
            (
                "--request-bytes-max 20000000 --body-bytes-in-flight-max 39999999",
                vec!["body_bytes_in_flight_max"],
            ),
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
