//! What becomes of a call that failed: whether it may succeed later, and how long
//! to wait before.

use std::time::Duration;

use sluice_proto::ingest::v1::{Outcome, PublicationOutcome};
use sluice_service::backoff;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The first wait after a call that failed; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Nothing was kept by this try.
pub(crate) const NOT_KEPT: &str = "NOT_KEPT";
/// It may have been kept.
pub(crate) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// The waits between calls that fail one after the other.
#[derive(Debug)]
pub(crate) struct Backoff(backoff::Backoff);

impl Backoff {
    /// Nothing failed yet, or not any more.
    pub(crate) fn new() -> Self {
        Self(backoff::Backoff::new(BACKOFF_FIRST, BACKOFF_MAX))
    }

    /// How long to wait after one more failed call: at least as long as the
    /// service advises.
    pub(crate) fn after(&mut self, status: &Status) -> Duration {
        let advised = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        advised.unwrap_or_default().max(self.0.failed())
    }
}

/// Whether a call that failed so may succeed later. What a broken connection
/// looks like counts too.
pub(crate) fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::Unknown => true,
        // A service that is full says when to come again; a request that is too large
        // never gets smaller. A proxy gives no reason.
        Code::ResourceExhausted => {
            let details = status.get_error_details();
            details.retry_info().is_some() || details.error_info().is_none()
        }
        Code::Internal => status.message().contains("h2 protocol error"),
        _ => false,
    }
}

/// Whether the service refused a call that failed for good, which [`may_pass`] says,
/// before it decided anything.
pub(crate) fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

/// What is known of an observation whose call failed.
pub(crate) fn undecided(status: &Status, reason: &str) -> PublicationOutcome {
    PublicationOutcome {
        outcome: Outcome::Retry.into(),
        reason: reason.into(),
        details: format!("{:?}: {}", status.code(), status.message()),
        ..PublicationOutcome::default()
    }
}

/// What is known after one more try that decided nothing: that it kept nothing
/// says nothing of an earlier one that may have.
pub(crate) fn still(before: PublicationOutcome, now: PublicationOutcome) -> PublicationOutcome {
    if before.reason == OUTCOME_UNKNOWN { before } else { now }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn what_may_have_been_kept_is_never_told_as_not_kept() {
        let of = |reason| undecided(&Status::unavailable(""), reason);
        for (before, now, known) in [
            (OUTCOME_UNKNOWN, NOT_KEPT, OUTCOME_UNKNOWN),
            (NOT_KEPT, OUTCOME_UNKNOWN, OUTCOME_UNKNOWN),
            (NOT_KEPT, NOT_KEPT, NOT_KEPT),
        ] {
            assert_eq!(still(of(before), of(now)).reason, known, "{before}, {now}");
        }
    }

    #[test]
    fn the_callers_own_faults_are_final_and_the_services_are_not() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Unknown] {
            assert!(may_pass(&Status::new(code, "")), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Internal] {
            assert!(!may_pass(&Status::new(code, "")), "{code:?}");
        }
        let exhausted = |details| Status::with_error_details(Code::ResourceExhausted, "", details);
        let too_large = ErrorDetails::with_error_info("REQUEST_TOO_LARGE", "sluice", HashMap::new());
        let mut full = ErrorDetails::with_error_info("OVERLOADED", "sluice", HashMap::new());
        full.set_retry_info(Some(Duration::from_secs(1)));
        assert!(may_pass(&exhausted(full)));
        assert!(!may_pass(&exhausted(too_large.clone())) && is_refused(&exhausted(too_large)));
        // Neither means that it decided nothing.
        for code in [Code::Internal, Code::DataLoss, Code::OutOfRange] {
            assert!(!is_refused(&Status::new(code, "")), "{code:?}");
        }
    }

    #[test]
    fn a_wait_is_never_longer_than_said() {
        let mut backoff = Backoff::new();
        // It has doubled up to the longest.
        for _ in 0..10 {
            backoff.after(&Status::unavailable(""));
        }
        for _ in 0..100 {
            let wait = backoff.after(&Status::unavailable(""));
            assert!(wait <= BACKOFF_MAX && wait >= BACKOFF_MAX / 2);
        }
    }
}
