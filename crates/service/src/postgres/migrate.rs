//! Migrations under one advisory lock (refinery takes none itself), and the
//! check whether the schema fits this build.

use std::{path::PathBuf, time::Duration};

use refinery::Runner;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Database, Session, sqlstate::lacks_table};
use crate::{
    backoff::{News, Outage},
    config::Secret,
    error::chain,
    program::Failure,
    settings,
};

/// The advisory lock all migrations of a database take: the bytes of `sluice`.
const LOCK: i64 = 0x73_6c_75_69_63_65;

/// How long to wait before migrating is tried again.
const AGAIN: Duration = Duration::from_secs(1);

const SESSION: Session = Session {
    application_name: "sluice-migrate",
    role: None,
    // DDL that has to wait for a long transaction gives up instead of queueing
    // everybody else behind it.
    // One whose program is gone doesn't go on, with its locks.
    parameters: &[
        ("lock_timeout", "10s"),
        ("synchronous_commit", "on"),
        ("client_connection_check_interval", "10s"),
    ],
};

settings! {
    /// Where the database is, and who may change its schema.
    pub struct Settings {
        database_url: Secret = None, "URL or key-value string of the database, of the user that serves.";
        database_owner_url: Option<Secret> = Some(""), "The same of the user that owns the tables, for migrating. Empty: database_url.";
        database_ca_file: Option<PathBuf> = Some(""), "PEM file of the CAs of the database's certificate: sessions are encrypted, certificate and host name verified. Empty: as sslmode in the URL says (require: the system's CAs).";
    }
    checks {
        database_url, database_ca_file => {
            let database = Database::with_ca(database_url.expose(), database_ca_file.as_deref());
            database.err().map(|fault| format!("database_url and database_ca_file: {fault}"))
        };
        database_owner_url, database_ca_file => {
            let url = database_owner_url.as_ref().map(|url| url.expose());
            let owners = url.and_then(|url| Database::with_ca(url, database_ca_file.as_deref()).err());
            owners.map(|fault| format!("database_owner_url and database_ca_file: {fault}"))
        };
    }
}

impl Settings {
    /// The database as the user that serves.
    ///
    /// # Errors
    /// None that was not found when the settings were read.
    pub fn database(&self) -> Result<Database, String> {
        Database::with_ca(self.database_url.expose(), self.database_ca_file.as_deref())
    }

    /// How its schema is brought up to date.
    ///
    /// # Errors
    /// As [`Self::database`].
    pub fn migration(&self) -> Result<Migration, String> {
        let serving = self.database()?;
        let Some(url) = &self.database_owner_url else { return Ok(Migration::of_owner(serving)) };
        let owner = Database::with_ca(url.expose(), self.database_ca_file.as_deref())?;
        let user = serving.user().filter(|user| Some(*user) != owner.user());
        Ok(Migration { serving: user.map(str::to_owned), owner })
    }
}

/// How a database's schema is brought up to date.
#[derive(Clone, Debug)]
pub struct Migration {
    owner: Database,
    /// The user that is to serve, if it is another one.
    serving: Option<String>,
}

/// What migrating did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were applied, in order.
    pub applied: Vec<String>,
    /// The version the schema has now.
    pub version: i32,
}

impl Migration {
    /// Of a database whose owner serves, too.
    #[must_use]
    pub fn of_owner(owner: Database) -> Self {
        Self { owner, serving: None }
    }

    /// Brings the schema up to date; waits while another process does the same.
    /// Then lets the user serve that is to.
    ///
    /// # Errors
    /// If the database can't be reached or a migration fails.
    pub async fn run(&self, runner: Runner) -> Result<Migrated, Failure> {
        let mut client = self.owner.connect(SESSION).await?;
        // The lock may be held for as long as another process migrates.
        client.batch_execute("SET lock_timeout = 0").await?;
        client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
        client.batch_execute("RESET lock_timeout").await?;
        // A newer schema is left as it is: whoever goes back to this version serves
        // from it. Else a migration that was passed over is an error.
        let state = client.query_one(include_str!("schema_state.sql"), &[]).await;
        let version: i32 = state.ok().and_then(|state| state.get("version")).unwrap_or(0);
        let is_newer = version > Schema::of(&runner).version;
        let runner = runner.set_abort_missing(!is_newer);
        let report = runner.run_async(&mut client).await?;
        let applied: Vec<_> = report.applied_migrations().iter().map(ToString::to_string).collect();
        for migration in &applied {
            tracing::info!(%migration, "migration applied");
        }
        if let Some(user) = &self.serving {
            client.execute(include_str!("let_serve.sql"), &[user]).await?;
        }
        client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
        let version = client.query_one(include_str!("schema_state.sql"), &[]).await?.get("version");
        Ok(Migrated { applied, version })
    }

    /// Migrates as soon as the database is there, however long that takes; ends at
    /// shutdown.
    pub async fn run_when_possible(&self, runner: impl Fn() -> Runner, shutdown: &CancellationToken) {
        let mut outage = Outage::default();
        while !shutdown.is_cancelled() {
            let Err(error) = self.run(runner()).await else { return };
            if let Some(News::Fails(error)) = outage.news(Some(chain(&*error))) {
                tracing::warn!(error, "not migrated, trying again");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
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
            Err(error) if lacks_table(&error) => {
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
