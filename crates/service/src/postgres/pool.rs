//! Sessions and pools. Every session sets what the guarantees need, whatever
//! the server's defaults are.

use std::{path::Path, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{
    Client, Config, Error as PgError,
    config::{LoadBalanceHosts, TargetSessionAttrs},
};

use super::{Meaning, classify, servers::Servers, tls::Connector};
use crate::Error;

/// How long to wait for a new session or for a free one of the pool.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// How long to wait for all servers of a URL together that names several, until they take
/// a connection, and for each but the last until it is a session: whoever asks for one
/// waits longer, so that one server that is silent hides none of the others.
pub(super) const WAIT_SEVERAL: Duration = Duration::from_millis(1500);
/// What tells, within half a minute, that the other machine has gone without a word.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);
/// The same for the server, whose own default is two hours: what a lost machine of
/// ours had open counts against its `max_connections`.
const SERVER_KEEPALIVES: &str =
    " -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3";

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
    config: Config,
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
    /// with a server whose certificate and host name are verified. Of several hosts
    /// the one that takes writes is used.
    ///
    /// # Errors
    /// As [`Self::parse`]; if the file can't be used, or the URL forbids TLS.
    pub fn with_ca(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let mut config: Config =
            url.parse().map_err(|_| "not a PostgreSQL URL or key-value string".to_owned())?;
        find_the_primary(&mut config);
        notice_silence(&mut config);
        let connector = Connector::new(&mut config, ca_file)?;
        Ok(Self { config, connector })
    }

    /// The user that it logs in as.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    fn configured(&self, session: Session) -> Config {
        let mut config = self.config.clone();
        let mut options = config.get_options().unwrap_or_default().to_owned();
        // Statements without a transaction of their own, too.
        options.push_str(r" -c default_transaction_isolation=read\ committed");
        options.push_str(SERVER_KEEPALIVES);
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
    pub async fn connect(&self, session: Session) -> Result<Client, PgError> {
        let servers = Servers(self.connector.clone());
        servers.open(self.configured(session)).await.map(|(client, _)| client)
    }

    /// A pool of up to `size` sessions, opened when first needed.
    ///
    /// # Errors
    /// If the pool can't be built.
    pub fn pool(&self, session: Session, size: usize) -> Result<Pool, Error> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let servers = Servers(self.connector.clone());
        let manager = Manager::from_connect(self.configured(session), servers, recycling);
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

/// Sessions go to a server that takes writes.
fn find_the_primary(config: &mut Config) {
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    let several = u32::try_from(hosts).ok().filter(|hosts| *hosts > 1);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(several.map_or(WAIT, |hosts| WAIT_SEVERAL / hosts));
    }
    if several.is_some() {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    // One host may have several addresses, too.
    config.load_balance_hosts(LoadBalanceHosts::Random);
}

/// What the URL says of it holds.
fn notice_silence(config: &mut Config) {
    let unset = Config::new();
    if config.get_keepalives_idle() == unset.get_keepalives_idle() {
        config.keepalives_idle(KEEPALIVES_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVES_RETRIES);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
    }
}

/// Gives a session back to its pool after an error, unless that says that the
/// session is of no more use (broken, or on a standby after a failover): then it
/// is closed, and the pool opens another one.
pub fn give_back_after(session: Object, error: &PgError) {
    if is_of_no_more_use(error) {
        drop(Object::take(session));
    }
}

/// Whether an error says so of its session.
pub(super) fn is_of_no_more_use(error: &PgError) -> bool {
    classify(error) == Meaning::Connection
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        Database::parse(&format!("postgres://u@{more}")).unwrap().config
    }

    #[test]
    fn of_several_hosts_each_is_tried_in_time_and_the_one_that_takes_writes_is_used() {
        let one = config("a/d");
        assert_eq!(one.get_connect_timeout(), Some(&WAIT));
        assert_eq!(one.get_target_session_attrs(), TargetSessionAttrs::Any);
        let three = config("a,b,c/d");
        assert_eq!(three.get_connect_timeout(), Some(&Duration::from_millis(500)));
        assert_eq!(three.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(three.get_load_balance_hosts(), LoadBalanceHosts::Random);
        assert_eq!(config("a,b/d?connect_timeout=3").get_connect_timeout(), Some(&Duration::from_secs(3)));
    }

    #[test]
    fn silence_is_noticed_unless_the_url_says_how() {
        let all = |config: Config| {
            let seconds = |time: Duration| time.as_secs();
            (
                config.get_keepalives_idle().as_secs(),
                config.get_keepalives_interval().map(seconds),
                config.get_keepalives_retries(),
                config.get_tcp_user_timeout().copied().map(seconds),
            )
        };
        assert_eq!(all(config("a/d")), (15, Some(5), Some(3), Some(15)));
        let said = "keepalives_idle=60&keepalives_interval=7&keepalives_retries=2&tcp_user_timeout=9";
        assert_eq!(all(config(&format!("a/d?{said}"))), (60, Some(7), Some(2), Some(9)));
    }
}
