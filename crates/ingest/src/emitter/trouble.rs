//! What an error of a whole call says about what was in it.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The results service is away or takes nothing from anybody now: it would be the
    /// same without any of the rows.
    OfAll,
    /// It took too long, maybe because of one organisation's storage.
    Late,
    /// It can't take this as it is, now or later.
    Refused,
    /// It failed, and what it failed at may be in one row.
    Fault,
}

impl Trouble {
    /// By the status; by whether the results service itself gave a reason for it, since a
    /// connection that broke gives none; and by whether all the time it had is over.
    #[must_use]
    pub fn of(status: &Status, late: bool) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().is_some();
        match status.code() {
            Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => {
                Self::OfAll
            }
            // It says when to retry: it has no room, whatever is sent.
            _ if details.retry_info().is_some() => Self::OfAll,
            Code::DeadlineExceeded => Self::Late,
            // By tonic's client, if its clock is the first.
            Code::Cancelled if late || reason => Self::Late,
            // A connection that was cut.
            Code::Cancelled | Code::Unknown if !reason => Self::OfAll,
            Code::ResourceExhausted | Code::InvalidArgument if reason => Self::Refused,
            _ => Self::Fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_service::{Error, Kind};

    use super::*;

    #[test]
    fn what_an_error_says_of_the_rows() {
        let error = |kind, reason| Status::from(Error::new(kind, reason, "why"));
        let overloaded = Error::new(Kind::ResourceExhausted, "OVERLOADED", "").retry_after(Duration::MAX);
        for (status, trouble) in [
            (Error::unavailable("away").into(), Trouble::OfAll),
            (error(Kind::PermissionDenied, "MISSING_SCOPE"), Trouble::OfAll),
            (Status::unauthenticated(""), Trouble::OfAll),
            (Status::unimplemented("by a service that is no results service"), Trouble::OfAll),
            (overloaded.into(), Trouble::OfAll),
            (error(Kind::DeadlineExceeded, "DEADLINE_EXCEEDED"), Trouble::Late),
            (error(Kind::ResourceExhausted, "REQUEST_TOO_LARGE"), Trouble::Refused),
            (Error::malformed_request().into(), Trouble::Refused),
            (Status::resource_exhausted("by a proxy"), Trouble::Fault),
            (Error::internal("why").into(), Trouble::Fault),
            (Status::internal("h2 protocol error"), Trouble::Fault),
            (Status::unknown("transport error"), Trouble::OfAll),
            (Status::cancelled("connection closed"), Trouble::OfAll),
        ] {
            assert_eq!(Trouble::of(&status, false), trouble, "{status:?}");
        }
        assert_eq!(Trouble::of(&Status::cancelled("Timeout expired"), true), Trouble::Late);
    }
}
