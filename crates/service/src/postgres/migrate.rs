//! Migrations under one advisory lock (refinery takes none itself), and the
//! check whether the schema fits this build.

use std::time::Duration;

use refinery::Runner;
use tokio_postgres::{Client, error::SqlState};
use tokio_util::sync::CancellationToken;

use super::{Database, Session};

/// The advisory lock all migrations of a database take: the bytes of `sluice`.
const LOCK: i64 = 0x73_6c_75_69_63_65;

/// How long to wait before migrating is tried again.
const AGAIN: Duration = Duration::from_secs(1);

const SESSION: Session = Session {
    application_name: "sluice-migrate",
    // DDL that has to wait for a long transaction gives up instead of queueing
    // everybody else behind it.
    parameters: &[("lock_timeout", "10s"), ("synchronous_commit", "on")],
};

/// Brings the schema up to date; waits while another process does the same.
///
/// # Errors
/// If the database can't be reached or a migration fails.
pub async fn migrate(
    database: &Database,
    runner: Runner,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut client = database.connect(SESSION).await?;
    // The lock may be held for as long as another process migrates.
    client.batch_execute("SET lock_timeout = 0").await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    client.batch_execute("RESET lock_timeout").await?;
    let report = runner.run_async(&mut client).await?;
    for migration in report.applied_migrations() {
        tracing::info!(%migration, "migration applied");
    }
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    Ok(())
}

/// Migrates as soon as the database is there, however long that takes; ends at
/// shutdown.
pub async fn migrate_when_possible(
    database: &Database,
    runner: impl Fn() -> Runner,
    shutdown: &CancellationToken,
) {
    while !shutdown.is_cancelled() {
        match migrate(database, runner()).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "not migrated, trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// The schema version a build needs.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    version: i32,
}

impl Schema {
    /// The newest version among a build's migrations.
    #[must_use]
    pub fn of(runner: &Runner) -> Self {
        let newest = runner.get_migrations().iter().map(|m| i64::from(m.version())).max().unwrap_or(0);
        Self { version: i32::try_from(newest).unwrap_or(i32::MAX) }
    }

    /// Whether the database can be served from: durable, a primary, and with
    /// exactly this schema or a newer one (migrations expand first).
    ///
    /// # Errors
    /// A reason for operators.
    pub async fn fits(&self, client: &Client) -> Result<(), String> {
        let row = match client.query_one(include_str!("schema_state.sql"), &[]).await {
            Ok(row) => row,
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                return Err(format!("the schema is missing, version {} is needed", self.version));
            }
            Err(error) => return Err(format!("the database can't answer: {error}")),
        };
        let version: Option<i32> = row.get("version");
        if !row.get::<_, bool>("fsync") {
            return Err("fsync is off: nothing would be durable".into());
        }
        if row.get::<_, bool>("in_recovery") {
            return Err("the server is in recovery".into());
        }
        if version.unwrap_or(0) < self.version {
            return Err(format!("the schema has version {version:?}, {} is needed", self.version));
        }
        Ok(())
    }
}
