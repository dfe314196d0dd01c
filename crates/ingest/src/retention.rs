//! Clean-up of the gate's state: moves markers and windows on to the next slot
//! when the current one has been filled for half the retention, which empties
//! the oldest. Any replica may do it; the database arbitrates.

use std::time::Duration;

use sluice_service::postgres::{Database, Session};
use tokio_util::sync::CancellationToken;

use crate::gate::session::GATE_LOCK;

const LOOK_EVERY: Duration = Duration::from_secs(60);

const SESSION: Session = Session {
    application_name: "sluice-ingest-retention",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        // It waits for the gates under way, and then for readers of the slot that is
        // emptied. All gates wait meanwhile, and none of them for more than a second.
        ("lock_timeout", "400ms"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ],
};

/// Looks once a minute whether it is time, until shutdown.
pub async fn run(database: Database, retention: Duration, shutdown: CancellationToken) {
    loop {
        match roll_over(&database, retention).await {
            Ok(true) => tracing::info!("the gate's oldest state was removed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the gate's old state was not removed yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Moves on if it is time. State is kept for `retention` or for as long as the
/// longest window of any definition, whichever is longer, so that lowering the
/// setting shortens nobody's window.
///
/// # Errors
/// If the database can't do it now.
pub async fn roll_over(database: &Database, retention: Duration) -> Result<bool, tokio_postgres::Error> {
    let client = database.connect(SESSION).await?;
    let longest: i64 = client.query_one(include_str!("sql/longest_window.sql"), &[]).await?.get(0);
    let seconds = retention.max(Duration::from_secs(longest.unsigned_abs())).as_secs_f64();
    Ok(client.query_one(include_str!("sql/roll_over.sql"), &[&GATE_LOCK, &seconds]).await?.get(0))
}
