//! The gate's transaction in one round trip: all is decided before, in the belief that
//! nothing is known of any marker and window, and the database refuses where it is.

use sluice_service::{
    Error,
    postgres::{did_nothing, refused_with},
};

use super::{
    decide::{Presumed, Verdict, unless_known},
    error::{GateError, Who, in_doubt},
    rows::{OutboxColumns, PresumedColumns},
    session::{GATE_LOCK, GateSession},
    trip::{Params, TRIP_TIMEOUT},
};
use crate::{check::Candidate, outbox::OutboxRow};

/// SQLSTATEs of `gate_pass`.
const SESSION_ENDED: &str = "SL001";
const OBJECTION: &str = "SL002";

impl GateSession {
    /// Passes the gate in one trip. `None`: this takes two, and nothing was done.
    pub(super) async fn pass(
        &self,
        candidates: &[&Candidate],
        presumed: &Presumed,
        minimum_revision: i64,
        outbox_of: impl Fn(&Verdict) -> Result<Vec<OutboxRow>, Error>,
    ) -> Result<Option<(Verdict, Vec<OutboxRow>)>, GateError> {
        let Some(verdict) = unless_known(candidates, presumed) else { return Ok(None) };
        let rows = outbox_of(&verdict).map_err(GateError::Statement)?;
        let (given, outbox) = (PresumedColumns::of(presumed), OutboxColumns::of(&rows, self.instance));
        let mut params: Params<'_> = vec![&GATE_LOCK, &self.id, &minimum_revision];
        params.extend(given.markers());
        params.extend(given.windows());
        params.extend(outbox.params());
        let passing = self.client.execute(&self.statements.pass, &params);
        match tokio::time::timeout(TRIP_TIMEOUT, passing).await {
            // With the word that the session is out of its transaction.
            Ok(Ok(_)) => Ok(Some((verdict, rows))),
            Ok(Err(error)) if refused_with(&error, OBJECTION) => Ok(None),
            Ok(Err(error)) if refused_with(&error, SESSION_ENDED) => Err(GateError::Ended),
            Ok(Err(error)) if did_nothing(&error) => Err(self.refused(error)),
            Ok(Err(_)) | Err(_) => Err(in_doubt(Who::Session(self.id), presumed, verdict, rows)),
        }
    }
}
