//! Sessions to the results database: what they are set to, and whose rows they see.

use std::future::Future;

use futures_util::future::try_join;
use sluice_service::{
    Error, OrganisationId,
    postgres::{Borrowed, Session, SharedPool, patiently},
};
use tokio_postgres::{Error as PgError, Row, types::ToSql};

/// Settings of every session. The first four bound waiting and make commits
/// durable whatever the server's defaults are.
///
/// The others pin plans. Every statement here is a walk along an index or a
/// handful of lookups by key, however many rows there are and however stale the
/// statistics; so nothing else is offered to the planner. Plans are made once
/// per session, for no particular values. (`enable_sort` leaves the sorting of what is
/// in order by its first column already, group by group, which lists rest on; whatever
/// else there is to sort has bounds.)
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
    ("enable_sort", "off"),
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

/// The sessions that work for tenants. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenants(SharedPool);

impl Tenants {
    /// Over a pool of [`TENANTS`] sessions.
    #[must_use]
    pub fn new(pool: SharedPool) -> Self {
        Self(pool)
    }

    /// Waits for a session for an organisation: its calls may have as many as are still
    /// free. What is done with it goes through [`within`].
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn borrow(&self, organisation: &OrganisationId) -> Result<Borrowed, Error> {
        self.0.borrow(organisation).await
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
        let session = self.borrow(organisation).await?;
        let work = async {
            let statement = session.client().prepare_cached(sql).await?;
            session.client().query(&statement, params).await
        };
        let outcome = patiently(within(&session, organisation, work)).await;
        session.settle(outcome)
    }
}

/// Does work for one organisation: a session of [`Tenants`] sees its rows and no
/// others. That is said in the same round trip as the first of the work; what was
/// said for the tenant before holds no longer.
///
/// # Errors
/// The work's.
pub async fn within<T>(
    session: &Borrowed,
    organisation: &OrganisationId,
    work: impl Future<Output = Result<T, PgError>>,
) -> Result<T, PgError> {
    let client = session.client();
    let set = client.prepare_cached(SET_ORGANISATION).await?;
    let name: [&(dyn ToSql + Sync); 1] = [&organisation.as_str()];
    // Polled in this order, so sent in this order.
    let (_, done) = try_join(client.query(&set, &name), work).await?;
    Ok(done)
}
