//! Keeps the weekly partitions ahead of the clock. Every replica does, one at a
//! time; what is made already is left alone.

use std::time::Duration;

use sluice_service::postgres::Database;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::sessions::UPKEEP;

const MAKE_WEEKS: &str = include_str!("sql/make_weeks.sql");
/// Two weeks are made ahead, so an hour is early enough.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Makes what is missing until shutdown. Lanes of the recorder do the same when
/// they open a session, so this is for those that stay open for weeks.
pub async fn keep(database: Database, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match database.connect(UPKEEP).await {
            Ok(client) => make(&client).await,
            Err(error) => tracing::warn!(%error, "partitions not looked after"),
        }
    }
}

/// Makes the partitions of this week and the next two that are missing. A
/// failure is logged: the DEFAULT partitions take the rows meanwhile.
pub async fn make(client: &Client) {
    match client.query(MAKE_WEEKS, &[]).await {
        Ok(rows) => {
            for row in rows {
                let (partition, state): (&str, &str) = (row.get("partition"), row.get("state"));
                match state {
                    "created" => tracing::info!(partition, "partition made"),
                    _ => tracing::warn!(partition, "not made: its rows are in the DEFAULT partition"),
                }
            }
        }
        Err(error) => tracing::warn!(%error, "partitions not made"),
    }
}
