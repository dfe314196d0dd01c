//! The servers that a URL names: a session goes to the first that has one to give, in no
//! particular order. One may accept connections and then say nothing.

use std::pin::Pin;

use deadpool_postgres::Connect;
use rand::seq::SliceRandom as _;
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, Error as PgError, config::Host};

use super::{pool::WAIT_SEVERAL, tls::Connector};

type Opening<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), PgError>> + Send + 'a>>;

/// Opens sessions.
#[derive(Clone, Debug)]
pub(super) struct Servers(pub(super) Connector);

impl Servers {
    /// A session, and the task that keeps it going.
    ///
    /// # Errors
    /// Why the last one gave none.
    pub(super) async fn open(&self, config: Config) -> Result<(Client, JoinHandle<()>), PgError> {
        let mut servers = each_of(&config);
        servers.shuffle(&mut rand::rng());
        let last = servers.pop().unwrap_or(config);
        for server in servers {
            if let Ok(Ok(open)) = timeout(WAIT_SEVERAL, self.open_on(server)).await {
                return Ok(open);
            }
        }
        self.open_on(last).await
    }

    async fn open_on(&self, server: Config) -> Result<(Client, JoinHandle<()>), PgError> {
        let (client, connection) = server.connect(self.0.clone()).await?;
        let running = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "database session ended");
            }
        });
        Ok((client, running))
    }
}

impl Connect for Servers {
    fn connect(&self, config: &Config) -> Opening<'_> {
        Box::pin(self.open(config.clone()))
    }
}

/// The same for each server alone.
fn each_of(config: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if count < 2 {
        return Vec::new();
    }
    let server = |at: usize| {
        let mut server = like(config);
        match hosts.get(at) {
            Some(Host::Tcp(name)) => drop(server.host(name)),
            Some(Host::Unix(path)) => drop(server.host_path(path)),
            None => {}
        }
        addresses.get(at).map(|address| server.hostaddr(*address));
        ports.get(at).or(ports.first()).map(|port| server.port(*port));
        server
    };
    (0..count).map(server).collect()
}

/// All but the servers.
fn like(config: &Config) -> Config {
    let mut other = Config::new();
    config.get_user().map(|user| other.user(user));
    config.get_password().map(|password| other.password(password));
    config.get_dbname().map(|dbname| other.dbname(dbname));
    config.get_options().map(|options| other.options(options));
    config.get_application_name().map(|name| other.application_name(name));
    config.get_connect_timeout().map(|time| other.connect_timeout(*time));
    config.get_tcp_user_timeout().map(|time| other.tcp_user_timeout(*time));
    config.get_keepalives_interval().map(|time| other.keepalives_interval(time));
    config.get_keepalives_retries().map(|retries| other.keepalives_retries(retries));
    other
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_asked_as_all_are() {
        let more = "?connect_timeout=3&tcp_user_timeout=4&keepalives=1&keepalives_idle=5&keepalives_interval=6\
                    &keepalives_retries=7&application_name=n&options=-c%20jit%3Doff&sslmode=require\
                    &sslnegotiation=direct&target_session_attrs=read-write&channel_binding=disable\
                    &load_balance_hosts=random";
        let of = |servers: &str| format!("postgres://u:p@{servers}/d{more}").parse::<Config>().unwrap();
        assert_eq!(each_of(&of("a,b:2")), [of("a"), of("b:2")]);
        assert_eq!(each_of(&of("a:1,b:1")), [of("a:1"), of("b:1")]);
        assert_eq!(each_of(&of("a")), []);
    }
}
