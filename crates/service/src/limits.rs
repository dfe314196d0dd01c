//! The limits that both services have, as settings: one place, one meaning. Those
//! of the whole process hold over all connections and callers.

use crate::settings;

/// Least room for bodies: a message between the services must find some.
const BODY_BYTES_LEAST: usize = 32 * 1024 * 1024;

settings! {
    /// What callers may take up.
    pub struct Limits {
        request_bytes_max: usize = Some("16777216"), "Largest request, or message of a stream, in bytes, decompressed.";
        body_bytes_in_flight_max: usize = Some("67108864"), "Bytes of requests that are being received or worked on, in the whole process, decompressed; above, callers are told to come again. At least 32 MiB, and twice request_bytes_max.";
    }
    checks {
        request_bytes_max, body_bytes_in_flight_max => body_faults(*request_bytes_max, *body_bytes_in_flight_max);
    }
}

fn body_faults(request_bytes_max: usize, in_flight_max: usize) -> Option<String> {
    let least = request_bytes_max.saturating_mul(2).max(BODY_BYTES_LEAST);
    let fault = "body_bytes_in_flight_max: must be at least 33554432 and twice request_bytes_max";
    (in_flight_max < least).then(|| fault.into())
}
