//! Sessions and pools. Every session sets what the guarantees need, whatever
//! the server's defaults are.

use std::{path::Path, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::Client;

use super::{Failure, classify, tls::Connector};
use crate::Error;

/// How long to wait for a new session or for a free one of the pool.
const WAIT: Duration = Duration::from_secs(5);

/// The settings of a kind of session, each as the server's `name=value`.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The name shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// Run-time parameters, set at the start of each session.
    pub parameters: &'static [(&'static str, &'static str)],
    /// The role to act as. `None`: the user's own.
    pub role: Option<&'static str>,
}

/// A database: where it is and how sessions to it are set up.
#[derive(Clone, Debug)]
pub struct Database {
    config: tokio_postgres::Config,
    connector: Connector,
}

impl Database {
    /// Reads a URL or key-value string.
    ///
    /// # Errors
    /// If it is malformed. The text itself is never part of the error.
    pub fn parse(url: &str) -> Result<Self, String> {
        Self::with_ca(url, None)
    }

    /// Reads a URL or key-value string. With a CA file, sessions are encrypted
    /// with a server whose certificate and host name are verified.
    ///
    /// # Errors
    /// As [`Self::parse`]; if the file can't be used, or the URL forbids TLS.
    pub fn with_ca(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|_| "not a PostgreSQL URL or key-value string".to_owned())?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(WAIT);
        }
        config.keepalives_idle(Duration::from_secs(15));
        let connector = Connector::new(&mut config, ca_file)?;
        Ok(Self { config, connector })
    }

    /// The user that it logs in as.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    fn configured(&self, session: Session) -> tokio_postgres::Config {
        let mut config = self.config.clone();
        let mut options = config.get_options().unwrap_or_default().to_owned();
        // Statements without a transaction of their own, too.
        options.push_str(r" -c default_transaction_isolation=read\ committed");
        for (name, value) in session.parameters.iter().copied().chain(session.role.map(|role| ("role", role)))
        {
            options.push_str(&format!(" -c {name}={value}"));
        }
        config.options(options);
        config.application_name(session.application_name);
        config
    }

    /// Opens one session of its own, for a lane that keeps it.
    ///
    /// # Errors
    /// If the server can't be reached or refuses.
    pub async fn connect(&self, session: Session) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.configured(session).connect(self.connector.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "database session ended");
            }
        });
        Ok(client)
    }

    /// A pool of up to `size` sessions, opened when first needed.
    ///
    /// # Errors
    /// If the pool can't be built.
    pub fn pool(&self, session: Session, size: usize) -> Result<Pool, Error> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.configured(session), self.connector.clone(), recycling);
        Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(WAIT))
            .create_timeout(Some(WAIT))
            .recycle_timeout(Some(WAIT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(Error::internal)
    }
}

/// Gives a session back to its pool after an error, unless that says that the
/// session is of no more use (broken, or on a standby after a failover): then it
/// is closed, and the pool opens another one.
pub fn give_back_after(session: Object, error: &tokio_postgres::Error) {
    if is_of_no_more_use(error) {
        drop(Object::take(session));
    }
}

/// Whether an error says so of its session.
pub(super) fn is_of_no_more_use(error: &tokio_postgres::Error) -> bool {
    classify(error) == Failure::Connection
}
