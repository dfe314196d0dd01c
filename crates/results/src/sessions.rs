//! Sessions to the results database: what they are set to, how long they are
//! listened to, and how a pooled one is borrowed and given back.

use std::{future::Future, time::Duration};

use deadpool_postgres::{ClientWrapper, Object, Pool};
use futures_util::future::try_join;
use sluice_service::{
    Error, OrganisationId,
    postgres::{Session, give_back_after},
};
use tokio::time::error::Elapsed;
use tokio_postgres::{Error as PgError, Row, types::ToSql};

/// Settings of every session. The first four bound waiting and make commits
/// durable whatever the server's defaults are.
///
/// The others pin plans. Every statement here is a walk along an index or a
/// handful of lookups by key, however many rows there are and however stale the
/// statistics; so nothing else is offered to the planner. Plans are made once
/// per session, for no particular values.
const PARAMETERS: &[(&str, &str)] = &[
    ("synchronous_commit", "on"),
    ("lock_timeout", "1s"),
    ("idle_in_transaction_session_timeout", "2s"),
    ("statement_timeout", "10s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

const fn own(application_name: &'static str) -> Session {
    Session { application_name, parameters: PARAMETERS, role: None }
}

/// Sessions that work for one tenant at a time: row-level security shows them
/// nothing else. See the migration V3.
pub const TENANTS: Session = Session { role: Some("sluice_results_tenant"), ..own("sluice-results-tenants") };
/// Sessions of the service's own work.
pub const SERVING: Session = own("sluice-results");
/// Sessions of the recorder's lanes.
pub const RECORDING: Session = own("sluice-results-recorder");
/// The session of health checks and of the upkeep of partitions.
pub const UPKEEP: Session = own("sluice-results-upkeep");

/// Says whose rows a tenants' session sees from now on.
const SET_ORGANISATION: &str = include_str!("sql/set_organisation.sql");

/// A server that is silent for longer than its own statement timeout is gone.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// Waits for an answer of the database, but not for ever: a network that lost
/// its way says nothing.
///
/// # Errors
/// If there is none in time; the session is of no more use then.
pub async fn patiently<F: Future>(answer: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(SILENCE_MAX, answer).await
}

/// The sessions that work for tenants. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenants(Pool);

impl Tenants {
    /// Over a pool of [`TENANTS`] sessions.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self(pool)
    }

    /// Waits for a free session. What is done with it goes through
    /// [`Borrowed::within`].
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn borrow(&self) -> Result<Borrowed, Error> {
        Borrowed::from(&self.0).await
    }

    /// Runs one statement for an organisation.
    ///
    /// # Errors
    /// As [`query`].
    pub async fn query(
        &self,
        organisation: &OrganisationId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let session = self.borrow().await?;
        let work = async {
            let statement = session.client().prepare_cached(sql).await?;
            session.client().query(&statement, params).await
        };
        let outcome = patiently(session.within(organisation, work)).await;
        session.settle(outcome)
    }
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
    pub fn client(&self) -> &ClientWrapper {
        &self.0
    }

    /// Does work for one organisation: the session of [`Tenants`] sees its rows and
    /// no others. That is said in the same round trip as the first of the work; what
    /// was said for the tenant before holds no longer.
    ///
    /// # Errors
    /// The work's.
    pub async fn within<T>(
        &self,
        organisation: &OrganisationId,
        work: impl Future<Output = Result<T, PgError>>,
    ) -> Result<T, PgError> {
        let set = self.0.prepare_cached(SET_ORGANISATION).await?;
        let name: [&(dyn ToSql + Sync); 1] = [&organisation.as_str()];
        // Polled in this order, so sent in this order.
        let (_, done) = try_join(self.0.query(&set, &name), work).await?;
        Ok(done)
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
