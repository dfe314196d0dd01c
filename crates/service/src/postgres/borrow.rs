//! Pooled sessions: how one is borrowed, how long it is listened to, and whether it
//! is given back.

use std::{future::Future, sync::Arc, time::Duration};

use deadpool_postgres::{Object, Pool};
use tokio::time::error::Elapsed;
use tokio_postgres::{Error as PgError, Row, types::ToSql};

use super::pool::is_of_no_more_use;
use crate::{Error, rations::Ration};

/// A server that is silent for longer than the statement timeout of every pooled
/// session is gone.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// Waits for an answer of the database, but not for ever: a network that lost
/// its way says nothing.
///
/// # Errors
/// If there is none in time; the session is of no more use then.
pub async fn patiently<F: Future>(answer: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(SILENCE_MAX, answer).await
}

/// A borrowed session. It goes back to the pool in [`Self::settle`]. Dropped before
/// that, by a caller who left, it still owes an answer: it goes back when that has come,
/// so that nobody else waits for it, and is closed if none comes.
#[must_use]
pub struct Borrowed {
    session: Arc<Object>,
    /// At a shared pool; given back after the session.
    turn: Option<Ration>,
    settled: bool,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let (session, turn) = (self.session.clone(), self.turn.take());
        tokio::spawn(async move {
            let _turn = turn;
            // Answered after all that was asked before.
            match patiently(session.batch_execute("")).await {
                Ok(Ok(())) => drop(session),
                _ => close(session),
            }
        });
    }
}

fn close(session: Arc<Object>) {
    if let Some(session) = Arc::into_inner(session) {
        drop(Object::take(session));
    }
}

impl Borrowed {
    /// Waits for a free session.
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn from(pool: &Pool) -> Result<Self, Error> {
        Ok(Self { session: Arc::new(pool.get().await?), turn: None, settled: false })
    }

    /// The same session, for as long as it is somebody's turn.
    pub(super) fn in_turn(mut self, turn: Ration) -> Self {
        self.turn = Some(turn);
        self
    }

    /// The session itself.
    pub fn client(&self) -> &Object {
        &self.session
    }

    /// Gives the session back, unless what it answered says that it is of no
    /// more use: then it is closed, and the pool opens another one.
    ///
    /// # Errors
    /// The outcome's, as callers may see it.
    pub fn settle<T>(mut self, outcome: Result<Result<T, PgError>, Elapsed>) -> Result<T, Error> {
        self.settled = true;
        let _turn = self.turn.take();
        let session = self.session.clone();
        drop(self);
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if is_of_no_more_use(&error) {
                    close(session);
                }
                Err(error.into())
            }
            Err(silence) => {
                close(session);
                Err(Error::database_busy().because(silence))
            }
        }
    }
}

/// Runs one statement on a pooled session, and gives that back.
///
/// # Errors
/// As callers may see it: UNAVAILABLE if the database can't answer.
pub async fn query(pool: &Pool, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
    let session = Borrowed::from(pool).await?;
    let outcome = patiently(async {
        let statement = session.client().prepare_cached(sql).await?;
        session.client().query(&statement, params).await
    })
    .await;
    session.settle(outcome)
}

/// The same for a statement that returns no rows; how many it changed.
///
/// # Errors
/// As [`query`].
pub async fn execute(pool: &Pool, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
    let session = Borrowed::from(pool).await?;
    let outcome = patiently(async {
        let statement = session.client().prepare_cached(sql).await?;
        session.client().execute(&statement, params).await
    })
    .await;
    session.settle(outcome)
}
