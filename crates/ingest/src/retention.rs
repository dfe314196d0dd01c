//! Clean-up of what ingest keeps: moves markers and windows on to the next slot
//! when the current one has been filled for half the retention, which empties
//! the oldest; and forgets deleted definitions and old counters. Any replica may do it;
//! the database arbitrates.

use std::{sync::Arc, time::Duration};

use sluice_service::{
    Error,
    backoff::Rounds,
    postgres::{Database, Session, patiently},
};
use tokio_postgres::{Client, Error as PgError};
use tokio_util::sync::CancellationToken;

use crate::{gate::session::GATE_LOCK, metrics::Gate};

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Counters forgotten in one transaction: all gates wait for some milliseconds.
const COUNTERS_MAX: i64 = 1000;
/// Such transactions in one look.
const COUNTER_ROUNDS_MAX: usize = 30;

const SESSION: Session = Session {
    application_name: "sluice-ingest-retention",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        // It waits for the gates under way, while all others wait; then, for much shorter,
        // for readers of the slot that is emptied.
        ("lock_timeout", "400ms"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ],
};

/// Looks once a minute whether it is time, until shutdown.
pub async fn run(database: Database, retention: Duration, metrics: Arc<Gate>, shutdown: CancellationToken) {
    let mut rounds = Rounds::new("removing the gate's old state", LOOK_EVERY, LOOK_EVERY);
    loop {
        let done = match patiently(look(&database, retention, &metrics)).await {
            Ok(done) => done.map_err(Error::from),
            Err(late) => Err(Error::database_busy().because(late)),
        };
        if !rounds.next_after(&done, &shutdown).await {
            return;
        }
    }
}

/// Moves on if it is time, and forgets. State is kept for `retention` or for as long as the
/// longest window of any definition, whichever is longer, so that lowering the
/// setting shortens nobody's window.
async fn look(database: &Database, retention: Duration, metrics: &Gate) -> Result<(), PgError> {
    let client = database.connect(SESSION).await?;
    let slot = client.query_one(include_str!("sql/slot.sql"), &[]).await?;
    let (longest, filled_seconds): (i64, f64) = (slot.get(0), slot.get(1));
    let seconds = retention.max(Duration::from_secs(longest.unsigned_abs())).as_secs_f64();
    metrics.roll_over_due(filled_seconds - seconds / 2.0);
    let rolled_over = roll_over(&client, seconds, metrics).await;
    forget(&client, seconds).await?;
    rolled_over
}

async fn roll_over(client: &Client, seconds: f64, metrics: &Gate) -> Result<(), PgError> {
    let roll_over = include_str!("sql/roll_over.sql");
    if client.query_one(roll_over, &[&GATE_LOCK, &seconds]).await?.get(0) {
        metrics.roll_over_due(0.0);
        tracing::info!("the gate's oldest state was removed");
    }
    Ok(())
}

async fn forget(client: &Client, seconds: f64) -> Result<(), PgError> {
    client.execute(include_str!("sql/forget_deleted.sql"), &[]).await?;
    for _ in 0..COUNTER_ROUNDS_MAX {
        let forget = include_str!("sql/forget_counters.sql");
        let forgotten: i64 = client.query_one(forget, &[&GATE_LOCK, &seconds, &COUNTERS_MAX]).await?.get(0);
        if forgotten < COUNTERS_MAX {
            break;
        }
    }
    Ok(())
}
