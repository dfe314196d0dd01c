//! How tries at a transaction end that was not committed, or may not have been.

use sluice_service::Error;
use uuid::Uuid;

use super::decide::{Presumed, Unfit, Verdict};
use crate::{metrics::Try, outbox::OutboxRow};

/// Why a transaction was not committed, as far as is known.
#[derive(Debug)]
pub enum GateError {
    /// Definitions changed since the check. Rolled back.
    Stale {
        /// The revision the database has.
        revision: i64,
    },
    /// Some candidates, by their places, can't be decided. Rolled back.
    Unfit(Unfit),
    /// Deadlock or serialization failure. Rolled back.
    Conflict,
    /// Something that was presumed is there. Rolled back; the session looks first for
    /// a while.
    Known,
    /// A lock was not to be had in time, or the server is short of something.
    /// Rolled back.
    Busy,
    /// The session broke before the commit was asked for: nothing was kept.
    Disconnected,
    /// The session was ended by who took over rows of this instance: nothing was kept.
    Ended,
    /// A statement failed on its values, a row could not be encoded, or a marker not be
    /// read. Rolled back.
    Statement(Error),
    /// The session broke after the commit was asked for, or said what leaves it open.
    InDoubt(Box<Doubt>),
}

impl GateError {
    /// As metrics count it.
    #[must_use]
    pub fn counted(&self) -> Try {
        match self {
            Self::Stale { .. } => Try::Stale,
            Self::Unfit(_) => Try::Unfit,
            Self::Conflict => Try::Conflict,
            Self::Known => Try::Known,
            Self::Busy => Try::Busy,
            Self::Disconnected => Try::Disconnected,
            Self::Ended => Try::Ended,
            Self::Statement(_) => Try::Refused,
            Self::InDoubt(_) => Try::InDoubt,
        }
    }
}

/// What is needed to find out how a transaction ended.
#[derive(Debug)]
pub struct Doubt {
    /// Who it was.
    pub who: Who,
    /// The outbox rows it wrote.
    pub outbox: Vec<OutboxRow>,
    /// Markers it wrote.
    pub markers: Vec<(Uuid, Uuid)>,
    /// What was decided.
    pub verdict: Verdict,
}

/// A transaction that may have been committed.
#[derive(Debug)]
pub enum Who {
    /// The one with this id.
    Transaction(String),
    /// The last one of this session, which is not used any more.
    Session(Uuid),
}

/// A transaction that may have been committed, and what it wrote.
pub(super) fn in_doubt(who: Who, presumed: &Presumed, verdict: Verdict, outbox: Vec<OutboxRow>) -> GateError {
    let markers = presumed.markers.iter().map(|&(key, id, _)| (key, id)).collect();
    GateError::InDoubt(Box::new(Doubt { who, outbox, markers, verdict }))
}
