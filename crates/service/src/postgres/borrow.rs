//! Pooled sessions: how one is borrowed, how long it is listened to, and whether it
//! is given back.

use std::{future::Future, time::Duration};

use deadpool_postgres::{Object, Pool};
use tokio::time::error::Elapsed;
use tokio_postgres::{Error as PgError, Row, types::ToSql};

use super::give_back_after;
use crate::Error;

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

/// A borrowed session. It goes back to the pool in [`Self::settle`], or when
/// dropped.
#[must_use]
pub struct Borrowed(Object);

impl Borrowed {
    /// Waits for a free session.
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn from(pool: &Pool) -> Result<Self, Error> {
        Ok(Self(pool.get().await?))
    }

    /// The session itself.
    pub fn client(&self) -> &Object {
        &self.0
    }

    /// Gives the session back, unless what it answered says that it is of no
    /// more use: then it is closed, and the pool opens another one.
    ///
    /// # Errors
    /// The outcome's, as callers may see it.
    pub fn settle<T>(self, outcome: Result<Result<T, PgError>, Elapsed>) -> Result<T, Error> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                give_back_after(self.0, &error);
                Err(error.into())
            }
            Err(silence) => {
                drop(Object::take(self.0));
                Err(Error::unavailable("the database can't answer now").because(silence))
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
