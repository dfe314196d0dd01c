//! A running pair with databases, tokens and clients of its own.

use std::{net::SocketAddr, path::PathBuf, sync::OnceLock};

use sluice::connection::{Authorised, Clients, channel_with, token_interceptor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Channel;

use crate::{
    Certificates, Database, OwnServer, Proxy, Replica, Service, Tenant, cluster::scratch, tokens::Tokens,
};

/// How many replicas may run at a time in one test process, so that parallel
/// tests on many cores stay below the server's connections.
const REPLICAS_MAX: u32 = 16;

/// A connection that can be led through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// From ingest to its database.
    IngestDatabase,
    /// From results to its database.
    ResultsDatabase,
    /// From ingest to results.
    Intake,
}

/// How a pair is to be. Begin with [`Pair::builder`].
#[derive(Debug)]
pub struct PairBuilder {
    ingest: u32,
    results: u32,
    processes: bool,
    admin: bool,
    own_servers: usize,
    tls: Option<Certificates>,
    links: Vec<Link>,
    ingest_flags: Vec<String>,
    results_flags: Vec<String>,
    variables: Vec<(String, String)>,
    databases: Option<(Database, Database)>,
}

/// A running pair.
pub struct Pair {
    /// The replicas of ingest.
    pub ingest: Vec<Replica>,
    /// The replicas of results. Ingest hands over to all of them.
    pub results: Vec<Replica>,
    /// The database of ingest.
    pub ingest_database: Database,
    /// The database of results.
    pub results_database: Database,
    /// The keys file of all replicas.
    pub keys_file: PathBuf,
    /// The file with the token that all replicas of ingest hand over with.
    pub intake_file: PathBuf,
    tls: Option<Certificates>,
    tokens: Tokens,
    proxies: Vec<(Link, Proxy)>,
    servers: Vec<OwnServer>,
    _permit: OwnedSemaphorePermit,
}

impl Pair {
    /// One replica of each service, in this process.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A pair that is somehow special.
    #[must_use]
    pub fn builder() -> PairBuilder {
        PairBuilder {
            ingest: 1,
            results: 1,
            processes: false,
            admin: false,
            own_servers: 0,
            tls: None,
            links: vec![],
            ingest_flags: vec![],
            results_flags: vec![],
            variables: vec![],
            databases: None,
        }
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, tenant: Tenant) -> &str {
        self.tokens.of(tenant)
    }

    /// Clients of the first replicas.
    #[must_use]
    pub fn clients(&self, tenant: Tenant) -> Clients {
        self.clients_of(tenant, 0, 0)
    }

    /// Clients of chosen replicas, on connections of their own.
    ///
    /// # Panics
    /// If there are no such replicas.
    #[must_use]
    pub fn clients_of(&self, tenant: Tenant, ingest: usize, results: usize) -> Clients {
        let (ingest, results) = (self.ingest[ingest].url(), self.results[results].url());
        let token = token_interceptor(self.token(tenant)).expect("a token");
        Clients::over(self.channel(&ingest), self.channel(&results), &token)
    }

    /// What a generated client that [`Clients`] doesn't hold is made of.
    ///
    /// # Panics
    /// If there is no such replica.
    #[must_use]
    pub fn authorised(&self, tenant: Tenant, replica: &Replica) -> Authorised {
        let token = token_interceptor(self.token(tenant)).expect("a token");
        Authorised::new(self.channel(&replica.url()), token)
    }

    fn channel(&self, url: &str) -> Channel {
        let tls = self.tls.as_ref().map(|certificates| certificates.client("client")).unwrap_or_default();
        channel_with(url, &tls).expect("a channel")
    }

    /// The certificates of a pair that speaks TLS.
    ///
    /// # Panics
    /// If the pair was built without it.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.tls.as_ref().expect("the pair was built without TLS")
    }

    /// The proxy on a link; of several, that of the first replica.
    ///
    /// # Panics
    /// If the pair was built without it.
    #[must_use]
    pub fn proxy(&self, link: Link) -> &Proxy {
        self.proxies(link).next().expect("the pair was built without this proxy")
    }

    /// The proxies on a link: towards a database one, towards results one for each
    /// of its replicas.
    pub fn proxies(&self, link: Link) -> impl Iterator<Item = &Proxy> {
        self.proxies.iter().filter(move |(of, _)| *of == link).map(|(_, proxy)| proxy)
    }

    /// The PostgreSQL of its own; of two, that of ingest.
    ///
    /// # Panics
    /// If the pair was built without it.
    #[must_use]
    pub fn server(&mut self) -> &mut OwnServer {
        self.server_of(Service::Ingest)
    }

    /// The PostgreSQL of its own that a service's database is on.
    ///
    /// # Panics
    /// If the pair was built without it.
    #[must_use]
    pub fn server_of(&mut self, service: Service) -> &mut OwnServer {
        let server = match service {
            Service::Ingest => self.servers.first_mut(),
            Service::Results => self.servers.last_mut(),
        };
        server.expect("the pair was built without a server of its own")
    }
}

impl PairBuilder {
    /// That many replicas of ingest.
    #[must_use]
    pub fn ingest_replicas(mut self, count: u32) -> Self {
        self.ingest = count;
        self
    }

    /// That many replicas of results.
    #[must_use]
    pub fn results_replicas(mut self, count: u32) -> Self {
        self.results = count;
        self
    }

    /// Replicas are processes of their own, which can be killed.
    #[must_use]
    pub fn processes(mut self) -> Self {
        self.processes = true;
        self
    }

    /// Its databases are on a PostgreSQL of their own, which may be killed.
    #[must_use]
    pub fn own_server(mut self) -> Self {
        self.own_servers = 1;
        self
    }

    /// Each database is on a PostgreSQL of its own, see [`Pair::server_of`].
    #[must_use]
    pub fn own_servers(mut self) -> Self {
        self.own_servers = 2;
        self
    }

    /// Every replica has an admin port: see [`Replica::admin`].
    #[must_use]
    pub fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// Every replica serves by TLS, to those with a client certificate only, and
    /// its health in plain text: see [`Replica::health`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = Some(Certificates::new());
        self
    }

    /// Leads a link through a proxy.
    #[must_use]
    pub fn proxied(mut self, link: Link) -> Self {
        self.links.push(link);
        self
    }

    /// One more flag for all replicas of a service, such as `("lanes", "1")`.
    #[must_use]
    pub fn flag(mut self, service: Service, name: &str, value: &str) -> Self {
        let flags = match service {
            Service::Ingest => &mut self.ingest_flags,
            Service::Results => &mut self.results_flags,
        };
        flags.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    /// One more environment variable for all replicas, which are processes then.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.processes = true;
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On databases that are there already: of ingest, and of results.
    #[must_use]
    pub fn on(mut self, ingest: Database, results: Database) -> Self {
        self.databases = Some((ingest, results));
        self
    }

    /// Starts it and waits until every replica serves.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start(self) -> Pair {
        static REPLICAS: OnceLock<std::sync::Arc<Semaphore>> = OnceLock::new();
        let replicas =
            REPLICAS.get_or_init(|| std::sync::Arc::new(Semaphore::new(REPLICAS_MAX as usize))).clone();
        let wanted = (self.ingest + self.results).min(REPLICAS_MAX);
        let permit = replicas.acquire_many_owned(wanted).await.expect("never closed");

        let files = scratch("pair");
        let (tokens, keys_file) = Tokens::new(&files);
        let intake_file = files.join("intake-token");
        std::fs::write(&intake_file, tokens.of(Tenant::Intake)).expect("intake token");
        let mut servers = Vec::new();
        for _ in 0..self.own_servers {
            servers.push(OwnServer::start().await);
        }
        let (ingest_database, results_database) = match &self.databases {
            Some(databases) => databases.clone(),
            None => (
                database(servers.first(), Service::Ingest).await,
                database(servers.last(), Service::Results).await,
            ),
        };
        let mut pair = Pair {
            ingest: vec![],
            results: vec![],
            ingest_database,
            results_database,
            keys_file,
            intake_file,
            tls: None,
            tokens,
            proxies: vec![],
            servers,
            _permit: permit,
        };
        let common = |url: String, keys: &std::path::Path| {
            let keys = keys.display().to_string();
            let given = ["--database-url", &url, "--keys-file", &keys];
            // Nobody has to hear of a stop before it comes: what a test needs, it sets.
            let stop = ["--shutdown-wait-seconds", "0", "--shutdown-deadline-seconds", "10"];
            given.into_iter().chain(stop).map(str::to_owned).collect::<Vec<_>>()
        };

        let url = self.database_url(&mut pair, Link::ResultsDatabase).await;
        let mut flags = common(url, &pair.keys_file);
        flags.extend(self.results_flags.iter().cloned());
        for _ in 0..self.results {
            pair.results.push(self.replica(Service::Results, flags.clone()).await);
        }

        let intakes = self.intakes(&mut pair).await;
        let url = self.database_url(&mut pair, Link::IngestDatabase).await;
        let mut flags = common(url, &pair.keys_file);
        flags.extend(["--results-url".into(), intakes.join(",")]);
        flags.extend(["--results-token-file".into(), pair.intake_file.display().to_string()]);
        flags.extend(self.ingest_flags.iter().cloned());
        for _ in 0..self.ingest {
            pair.ingest.push(self.replica(Service::Ingest, flags.clone()).await);
        }
        for replica in pair.results.iter().chain(&pair.ingest) {
            replica.serving().await;
        }
        pair.tls = self.tls;
        pair
    }

    async fn replica(&self, service: Service, mut flags: Vec<String>) -> Replica {
        if self.admin {
            let port = sluice::port::free().expect("a free port");
            flags.extend(["--admin-listen".into(), format!("127.0.0.1:{port}")]);
        }
        if let Some(certificates) = &self.tls {
            let port = sluice::port::free().expect("a free port");
            flags.extend(["--health-listen".into(), format!("127.0.0.1:{port}")]);
            flags.extend(certificates.flags(service));
        }
        if self.processes {
            Replica::start_process(service, flags, self.variables.clone()).await
        } else {
            Replica::start(service, flags).await
        }
    }

    /// The URLs at which ingest hands over, through proxies if these are wanted.
    async fn intakes(&self, pair: &mut Pair) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut urls = Vec::new();
        for replica in &pair.results {
            let mut address = replica.address();
            if self.links.contains(&Link::Intake) {
                let proxy = Proxy::start(address).await;
                address = proxy.address();
                pair.proxies.push((Link::Intake, proxy));
            }
            urls.push(format!("{scheme}://{address}"));
        }
        urls
    }

    /// The URL of a service's database, through a proxy if one is wanted.
    async fn database_url(&self, pair: &mut Pair, link: Link) -> String {
        let database =
            if link == Link::IngestDatabase { &pair.ingest_database } else { &pair.results_database };
        if !self.links.contains(&link) {
            return database.service_url();
        }
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], database.port()))).await;
        let url = database.service_url_via(proxy.address().port());
        pair.proxies.push((link, proxy));
        url
    }
}

async fn database(server: Option<&OwnServer>, service: Service) -> Database {
    match server {
        Some(server) => Database::create_on(server, service).await,
        None => Database::create(service).await,
    }
}
