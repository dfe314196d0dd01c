//! What became of an observation: one of six outcomes, never two.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

/// An outcome that a marker remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Final {
    /// Accepted.
    Success = 1,
    /// An equal one was accepted lately.
    Suppressed = 2,
    /// The throttle window was full.
    Throttled = 3,
}

impl Final {
    /// As kept in the marker table.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// From the marker table.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        [Self::Success, Self::Suppressed, Self::Throttled].into_iter().find(|o| o.code() == code)
    }
}

/// What the gate decided about an observation that passed the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Accepted under its own id.
    Success,
    /// Its marker was processed before.
    Duplicate {
        /// How it ended then.
        original: Final,
        /// The id that was told then.
        ingest_id: Option<Uuid>,
        /// Whether this content is another one.
        content_differs: bool,
    },
    /// Equal to an accepted one.
    Suppressed {
        /// That one's id.
        ingest_id: Uuid,
    },
    /// Over the throttle.
    Throttled {
        /// When the window ends.
        window_ends: SystemTime,
    },
}

/// Why the caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable, upper snake case.
    pub reason: &'static str,
    /// Which rule and where.
    pub details: String,
    /// Whether a change of definitions could take it away.
    pub depends_on_definition: bool,
}

/// Why the service can't decide now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// Nothing was kept.
    NotKept,
    /// It may have been kept.
    OutcomeUnknown,
}

sluice_service::label! {
    /// What keeps the service from deciding, for those who run it.
    pub enum Cause {
        /// Too much of all organisations is accepted and not yet recorded.
        Backlog = "backlog",
        /// Too much of this organisation is.
        OrganisationBacklog = "organisation_backlog",
        /// The queue before the lanes is full, or all places for files are taken.
        Queue = "queue",
        /// Most of what waits there is this organisation's, while others have less, or it has as
        /// many places for files as are left for others.
        OrganisationQueue = "organisation_queue",
        /// The database is away, busy, or broke off.
        Database = "database",
        /// A file can't be stored.
        Storage = "storage",
        /// A file's bytes came too slowly, or its time was over.
        Publisher = "publisher",
    }
}

/// The longest time that a caller is told to wait, before jitter.
const DELAY_SECONDS_MAX: f64 = 30.0;

/// Asks the caller to retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// What is known of this try.
    pub reason: RetryReason,
    /// Where it lies.
    pub cause: Cause,
    /// For people.
    pub details: &'static str,
    /// Whole seconds, at least 1.
    pub delay: Duration,
}

impl Retry {
    /// Nothing was kept; retry in a second.
    #[must_use]
    pub fn not_kept(cause: Cause, details: &'static str) -> Self {
        Self { reason: RetryReason::NotKept, cause, details, delay: Duration::from_secs(1) }
    }

    /// Nothing was kept; retry when the work ahead of this caller is likely to be done:
    /// from 1 to 30 seconds, and up to half as long again, so that not all who are
    /// told come back together.
    #[must_use]
    pub fn not_kept_for(cause: Cause, details: &'static str, estimate: Duration) -> Self {
        let seconds = estimate.as_secs_f64().ceil().clamp(1.0, DELAY_SECONDS_MAX);
        let jitter = rand::random_range(0.0..=seconds / 2.0).floor();
        Self { delay: Duration::from_secs_f64(seconds + jitter), ..Self::not_kept(cause, details) }
    }

    /// It may have been kept; retry in a second with the same marker.
    #[must_use]
    pub fn outcome_unknown() -> Self {
        Self {
            reason: RetryReason::OutcomeUnknown,
            cause: Cause::Database,
            details: "the database broke off during the commit: resend with the same chkpt or request_id",
            delay: Duration::from_secs(1),
        }
    }
}

/// The outcome of one observation, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The gate decided.
    Decided {
        /// What it decided.
        decision: Decision,
        /// The id, if the observation was accepted.
        id: Uuid,
        /// The etag of the definition applied.
        etag: String,
        /// Content bytes.
        bytes: u64,
    },
    /// The caller's fault.
    Error {
        /// Which one.
        fault: Fault,
        /// The etag of the definition applied, if there was one.
        etag: String,
    },
    /// Not decided now.
    Retry(Retry),
}
