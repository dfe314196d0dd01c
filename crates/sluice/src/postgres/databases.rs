//! The databases of a private cluster, and the users that its services log in as.

use tokio_postgres::NoTls;

use super::{Cluster, USER};
use crate::failure::{Context, Failure};

impl Cluster {
    /// The URL of a database for a user made by [`Self::create_login`].
    #[must_use]
    pub fn url_of(&self, user: &str, database: &str) -> String {
        self.url(database).replacen(USER, user, 1)
    }

    /// Creates a user that owns nothing, unless it exists. It has the superuser's
    /// password: both are for this machine's owner.
    ///
    /// # Errors
    /// If the server says no.
    pub async fn create_login(&self, name: &str) -> Result<(), Failure> {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             ALTER ROLE {name} PASSWORD '{}'",
            self.password
        );
        // The name is ours, and the password hex; identifiers take no parameters.
        self.run(&sql).await.context(format_args!("user {name}"))
    }

    /// Creates a database unless it exists.
    ///
    /// # Errors
    /// If the server says no.
    pub async fn create_database(&self, name: &str) -> Result<(), Failure> {
        let (client, connection) =
            tokio_postgres::connect(&self.url("postgres"), NoTls).await.context("PostgreSQL")?;
        let connection = tokio::spawn(connection);
        let known = client
            .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
            .await
            .context("PostgreSQL")?;
        if known.is_none() {
            // The name is ours, never a caller's; identifiers take no parameters.
            // Copied as files and not by the log, a crash soon after has little
            // to recover.
            client
                .batch_execute(&format!("CREATE DATABASE {name} STRATEGY file_copy"))
                .await
                .context(format_args!("database {name}"))?;
        }
        connection.abort();
        Ok(())
    }

    /// Runs statements as superuser.
    async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await?;
        let connection = tokio::spawn(connection);
        let done = client.batch_execute(sql).await;
        connection.abort();
        done
    }
}
