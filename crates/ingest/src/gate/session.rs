//! The gate's transaction on one database session: one round trip where nothing is
//! known (`pass`), else two. First all presumed rows, locks and reads; then, after the
//! decision, the corrections, the outbox and COMMIT. Where something presumed was there
//! before, a trip between them reads it. Statements of one trip are pipelined, and few:
//! each costs as much as some rows.

use sluice_service::{
    Error,
    postgres::{Database, Meaning, Wary, classify, is_known},
};
use tokio_postgres::{Client, Error as PgError, Statement};
use uuid::Uuid;

use super::{
    decide::{Presumed, Verdict, decide},
    error::{GateError, Who, in_doubt},
    rows::{OutboxColumns, columns},
    trip::{Answer, TRIP_TIMEOUT, Trip},
};
use crate::{check::Candidate, outbox::OutboxRow, sessions};

/// The advisory lock gates hold shared and the roll-over exclusively.
pub const GATE_LOCK: i64 = 0x67_61_74_65;
pub(super) const BEGIN: &str = include_str!("../sql/gate_begin.sql");

macro_rules! statements {
    ($($name:ident: $sql:expr,)*) => {
        pub(super) struct Statements { $(pub(super) $name: Statement,)* }
        impl Statements {
            async fn prepare(client: &Client) -> Result<Self, PgError> {
                Ok(Self { $($name: client.prepare($sql).await?,)* })
            }
        }
    };
}
statements! {
    pass: include_str!("../sql/gate_pass.sql"),
    lock_uploads: include_str!("../sql/lock_uploads.sql"),
    presume: include_str!("../sql/presume.sql"),
    insert_markers: include_str!("../sql/insert_markers.sql"),
    insert_windows: include_str!("../sql/insert_windows.sql"),
    insert_counters: include_str!("../sql/insert_counters.sql"),
    select_markers: include_str!("../sql/select_markers.sql"),
    lock_windows: include_str!("../sql/lock_windows.sql"),
    select_old_markers: include_str!("../sql/select_old_markers.sql"),
    select_old_windows: include_str!("../sql/select_old_windows.sql"),
    lock_counters: include_str!("../sql/lock_counters.sql"),
    moment: include_str!("../sql/gate_moment.sql"),
    correct_markers: include_str!("../sql/correct_markers.sql"),
    correct_windows: include_str!("../sql/correct_windows.sql"),
    update_counters: include_str!("../sql/update_counters.sql"),
    delete_uploads: include_str!("../sql/delete_uploads.sql"),
    insert_outbox: include_str!("../sql/insert_outbox.sql"),
}

/// A session with the gate's statements prepared.
pub struct GateSession {
    pub(super) id: Uuid,
    pub(super) instance: Uuid,
    pub(super) client: Client,
    pub(super) statements: Statements,
    pub(super) wary: Wary,
}

impl GateSession {
    /// Opens a session of an instance, after the last one of its lane, and prepares every
    /// statement.
    ///
    /// # Errors
    /// If the database can't be reached or the schema does not fit.
    pub async fn open(
        database: &Database,
        id: Uuid,
        instance: Uuid,
        last: Option<Uuid>,
    ) -> Result<Self, PgError> {
        let client = database.connect(sessions::GATE).await?;
        let statements = Statements::prepare(&client).await?;
        client.execute(include_str!("../sql/open_gate_session.sql"), &[&id, &instance, &last]).await?;
        Ok(Self { id, instance, client, statements, wary: Wary::default() })
    }

    /// Whether the connection is known to be gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Decides candidates, all checked against definitions of at least
    /// `minimum_revision`, and commits. `outbox_of` makes the outbox rows of
    /// what was decided.
    ///
    /// # Errors
    /// See [`GateError`]. After any but `Disconnected`, `Ended` and `InDoubt` the
    /// session is fit for another try.
    pub async fn decide(
        &self,
        candidates: &[&Candidate],
        minimum_revision: i64,
        outbox_of: impl Fn(&Verdict) -> Result<Vec<OutboxRow>, Error>,
    ) -> Result<(Verdict, Vec<OutboxRow>), GateError> {
        let presumed = Presumed::of(candidates);
        let looks_first = self.wary.looks_first();
        if !looks_first
            && let Some(passed) = self.pass(candidates, &presumed, minimum_revision, &outbox_of).await?
        {
            return Ok(passed);
        }
        let (seen, moment) = self.look(&presumed, !looks_first).await?;
        if moment.revision > minimum_revision {
            return Err(self.given_up(GateError::Stale { revision: moment.revision }).await);
        }
        let verdict = match decide(candidates, &presumed, &seen) {
            Ok(verdict) => verdict,
            Err(unfit) => return Err(self.given_up(GateError::Unfit(unfit)).await),
        };
        let outbox = match outbox_of(&verdict) {
            Ok(outbox) => outbox,
            Err(error) => return Err(self.given_up(GateError::Statement(error)).await),
        };
        match self.commit(&verdict, &presumed.uploads, &outbox).await {
            Ok(()) => Ok((verdict, outbox)),
            Err(CommitError::RolledBack(error)) => Err(error),
            Err(CommitError::InDoubt) => {
                Err(in_doubt(Who::Transaction(moment.xid), &presumed, verdict, outbox))
            }
        }
    }

    /// Makes a trip before COMMIT. Rolls back if a statement of it fails.
    pub(super) async fn answers(&self, trip: &Trip<'_>) -> Result<Vec<Answer>, GateError> {
        let answers = trip.run(&self.client).await.ok_or(GateError::Disconnected)?;
        match answers.into_iter().collect() {
            Ok(answers) => Ok(answers),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// The last round trip: corrections, counters, uploads, outbox, COMMIT. (A COMMIT of
    /// an aborted transaction rolls back without an error; but then a statement of this
    /// trip has failed, or one before it, after which there is none.)
    async fn commit(
        &self,
        verdict: &Verdict,
        uploads: &[Uuid],
        outbox: &[OutboxRow],
    ) -> Result<(), CommitError> {
        let s = &self.statements;
        let (marker_keys, markers) = columns(&verdict.markers);
        let marker_ids: Vec<_> = markers.iter().map(|marker| marker.ingest_id).collect();
        let fingerprints: Vec<_> = markers.iter().map(|marker| marker.fingerprint).collect();
        let outcomes: Vec<_> = markers.iter().map(|marker| marker.outcome.code()).collect();
        let (window_keys, windows) = columns(&verdict.windows);
        let window_ids: Vec<_> = windows.iter().map(|window| window.ingest_id).collect();
        let accepted: Vec<_> = windows.iter().map(|window| window.accepted_at).collect();
        let (counter_keys, counters) = columns(&verdict.counters);
        let starts: Vec<_> = counters.iter().map(|counter| counter.window_start).collect();
        let used: Vec<_> = counters.iter().map(|counter| counter.used).collect();
        let outbox = OutboxColumns::of(outbox, self.instance);

        let mut trip = Trip::default();
        if !verdict.markers.is_empty() {
            trip.add(&s.correct_markers, vec![&marker_keys, &marker_ids, &fingerprints, &outcomes]);
        }
        if !verdict.windows.is_empty() {
            trip.add(&s.correct_windows, vec![&window_keys, &window_ids, &accepted]);
        }
        if !verdict.counters.is_empty() {
            trip.add(&s.update_counters, vec![&counter_keys, &starts, &used]);
        }
        if !uploads.is_empty() {
            trip.add(&s.delete_uploads, vec![&uploads]);
        }
        if !outbox.ids.is_empty() {
            trip.add(&s.insert_outbox, outbox.params());
        }
        trip.control("COMMIT");

        let mut answers = trip.run(&self.client).await.ok_or(CommitError::InDoubt)?;
        // A COMMIT that fails says nothing about how it ended, whatever the error.
        let is_committed = answers.pop().is_some_and(|commit| commit.is_ok());
        match answers.into_iter().find_map(Result::err) {
            Some(error) if classify(&error) == Meaning::Connection => Err(CommitError::InDoubt),
            Some(error) => Err(CommitError::RolledBack(self.failed(error).await)),
            None if is_committed => Ok(()),
            None => Err(CommitError::InDoubt),
        }
    }

    /// Rolls back after an error and says what kind it was.
    async fn failed(&self, error: PgError) -> GateError {
        if classify(&error) == Meaning::Connection || self.rollback().await.is_err() {
            tracing::warn!(%error, "the gate's session broke before its commit");
            return GateError::Disconnected;
        }
        self.refused(error)
    }

    /// What kind of error it was that left nothing.
    pub(super) fn refused(&self, error: PgError) -> GateError {
        if is_known(&error) {
            self.wary.rouse();
            return GateError::Known;
        }
        match classify(&error) {
            Meaning::Conflict => GateError::Conflict,
            Meaning::Connection => GateError::Disconnected,
            Meaning::Busy => {
                tracing::warn!(%error, "the gate could not be passed in time");
                GateError::Busy
            }
            Meaning::Statement => GateError::Statement(Error::internal(error)),
        }
    }

    /// Rolls back for this reason.
    pub(super) async fn given_up(&self, why: GateError) -> GateError {
        self.rollback().await.err().unwrap_or(why)
    }

    async fn rollback(&self) -> Result<(), GateError> {
        let rollback = self.client.batch_execute("ROLLBACK");
        match tokio::time::timeout(TRIP_TIMEOUT, rollback).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(GateError::Disconnected),
        }
    }
}

enum CommitError {
    RolledBack(GateError),
    InDoubt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_taken_as_the_transaction_begins() {
        assert!(BEGIN.ends_with(&format!("SELECT pg_advisory_xact_lock_shared(x'{GATE_LOCK:x}'::bigint)\n")));
    }
}
