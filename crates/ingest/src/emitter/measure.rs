//! How much is in the outbox, of whom and for how long: for the backlog's bounds and
//! the metrics. It reads all of the table's rows, so the longer that takes the less often
//! it is done, and nothing else waits for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use sluice_service::{
    Error, OrganisationId,
    backoff::Rounds,
    postgres::{Session, query},
};

use crate::{backlog::Backlog, metrics::Outbox};

const MEASURE_EVERY: Duration = Duration::from_secs(2);
const MEASURE_EVERY_MAX: Duration = Duration::from_secs(8);
/// The pause after it is at least so many times as long as it took.
const PAUSE_TIMES: u32 = 10;

/// Its session: a scan of the table is the right plan here.
pub const SESSION: Session = Session {
    application_name: "sluice-ingest-measure",
    role: None,
    parameters: &[
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("jit", "off"),
    ],
};

/// Who measures.
pub struct Measure {
    /// One session.
    pub pool: Pool,
    /// Set to what the database says.
    pub backlog: Arc<Backlog>,
    /// Told what the database says, too.
    pub metrics: Arc<Outbox>,
}

impl Measure {
    /// Measures, again and again.
    pub async fn run(self) {
        let mut rounds = Rounds::new("measuring the outbox", MEASURE_EVERY, MEASURE_EVERY_MAX);
        loop {
            let started = Instant::now();
            let done = self.once().await;
            let wait = rounds.ended(&done).max(started.elapsed() * PAUSE_TIMES);
            tokio::time::sleep(wait).await;
        }
    }

    async fn once(&self) -> Result<(), Error> {
        let measured = query(&self.pool, include_str!("../sql/outbox_bytes.sql"), &[]).await?;
        self.backlog.set(measured.iter().filter_map(backlog_of).collect());
        let sum = |column: &str| measured.iter().map(|row| row.get::<_, i64>(column)).sum();
        let ages = measured.iter().map(|row| row.get::<_, f64>("oldest_age_seconds"));
        let oldest = ages.fold(0.0, f64::max);
        self.metrics.measured(sum("rows"), sum("bytes"), sum("set_aside"), oldest);
        Ok(())
    }
}

/// An organisation and its bytes. A name that is none can't publish.
pub(super) fn backlog_of(row: &tokio_postgres::Row) -> Option<(OrganisationId, u64)> {
    let organisation = row.get::<_, &str>("organisation").parse().ok()?;
    Some((organisation, row.get::<_, i64>("bytes").unsigned_abs()))
}
