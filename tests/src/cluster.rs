//! The test process's PostgreSQL: started when first needed, stopped and removed
//! by a helper process when the test process is gone. Each test's databases are
//! clones of a migrated template.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sluice::postgres::{Cluster, Guard};
use sluice_service::{config::Part as _, postgres as service_postgres};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::{Ca, server::OwnServer};

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Decides what gets in.
    Ingest,
    /// Keeps what got in.
    Results,
}

impl Service {
    /// Its name, as in `sluice serve <name>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Results => "results",
        }
    }

    fn migrations(self) -> refinery::Runner {
        match self {
            Self::Ingest => sluice_ingest::migrations(),
            Self::Results => sluice_results::migrations(),
        }
    }
}

struct Shared {
    cluster: Cluster,
    _guard: Guard,
}

/// The server that all tests of this process share. Its settings are those of
/// `sluice dev`: durable.
pub fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    // A thread and runtime of its own: the server outlives the test that
    // happened to be the first.
    let start = || std::thread::scope(|scope| scope.spawn(start).join().expect("PostgreSQL for the tests"));
    &SHARED.get_or_init(start).cluster
}

fn start() -> Shared {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let shared = runtime.block_on(async {
        let folder = std::env::temp_dir().join(format!("sluice-tests-{}", std::process::id()));
        let mut cluster = Cluster::open(&folder, true).await.expect("a private PostgreSQL");
        cluster.start().await.expect("a private PostgreSQL");
        let guard = cluster.guard(&crate::program(), Some(&folder)).expect("its guard");
        for service in [Service::Ingest, Service::Results] {
            migrated(&cluster, service, &template(service)).await;
        }
        Shared { cluster, _guard: guard }
    });
    // The server's child process belongs to this runtime for as long as it runs.
    std::mem::forget(runtime);
    shared
}

/// The CA file of the shared server, which offers TLS as soon as this was called:
/// its certificate is for 127.0.0.1 and nothing else.
///
/// # Panics
/// If the server says no.
pub async fn encrypting_cluster() -> PathBuf {
    static CA: OnceCell<PathBuf> = OnceCell::const_new();
    let made = CA.get_or_init(|| async {
        let (ca, sql) = (Ca::new(), connect(&cluster().url("postgres")).await);
        let issued = ca.issue(&["127.0.0.1"]);
        for (file, pem) in [("server.crt", &issued.certificate), ("server.key", &issued.key)] {
            // The server writes them itself: they must be its user's own.
            let lines = format!("SELECT regexp_split_to_table('{}', '\n')", pem.trim_end());
            let copy = format!("COPY ({lines}) TO PROGRAM 'umask 077; cat > {file}'");
            sql.batch_execute(&copy).await.expect("a file of the server");
        }
        sql.batch_execute("ALTER SYSTEM SET ssl = on").await.expect("the setting");
        sql.batch_execute("SELECT pg_reload_conf()").await.expect("the setting");
        let path = scratch("postgres-ca").join("ca");
        std::fs::write(&path, ca.pem()).expect("a file");
        path
    });
    let path = made.await.clone();
    crate::eventually("a server with TLS", || async {
        let database = service_postgres::Database::with_ca(&cluster().url("postgres"), Some(&path));
        database.expect("a URL").connect(PROBE).await.ok()
    })
    .await;
    path
}

/// A session that only looks whether there can be one.
const PROBE: service_postgres::Session =
    service_postgres::Session { application_name: "sluice-tests", parameters: &[], role: None };

/// A new database with a service's schema.
async fn migrated(cluster: &Cluster, service: Service, name: &str) {
    cluster.create_database(name).await.expect("a database");
    cluster.create_login(&login(service)).await.expect("its service's user");
    let urls = (cluster.url_of(&login(service), name), cluster.url(name));
    migrate(urls, service.migrations()).await;
}

/// Migrates a database, by the URLs of the user that serves and of its owner.
async fn migrate((url, owner_url): (String, String), runner: refinery::Runner) {
    let flags = [format!("--database-url={url}"), format!("--database-owner-url={owner_url}")];
    let settings = service_postgres::Settings::load(flags, []).expect("settings");
    settings.migration().expect("URLs").run(runner).await.expect("migrations");
}

/// The user a service logs in as. It owns nothing.
fn login(service: Service) -> String {
    format!("sluice_{}", service.name())
}

fn template(service: Service) -> String {
    format!("template_{}", service.name())
}

/// A database of one test, with the schema of one service.
#[derive(Clone, Debug)]
pub struct Database {
    url: String,
    service_url: String,
    port: u16,
}

impl Database {
    /// One as a build of that schema version left it, without any row.
    ///
    /// # Panics
    /// If the server says no.
    pub async fn of_version(service: Service, version: i32) -> Self {
        let name = Self::next_name(service);
        let database = Self::of(cluster(), service, &name);
        cluster().create_database(&name).await.expect("a database");
        if version > 0 {
            let runner = service.migrations().set_target(refinery::Target::Version(version));
            let owner = service_postgres::Database::parse(&database.url()).expect("a URL");
            service_postgres::Migration::of_owner(owner).run(runner).await.expect("migrations");
        }
        database
    }

    fn next_name(service: Service) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("test{}_{}", NEXT.fetch_add(1, Ordering::Relaxed), service.name())
    }

    /// Clones the service's template.
    ///
    /// # Panics
    /// If the server says no.
    pub async fn create(service: Service) -> Self {
        let name = Self::next_name(service);
        let admin = connect(&cluster().url("postgres")).await;
        let template = template(service);
        // Nobody may be connected to a template while it is copied, and the
        // migrating session may still be on its way out.
        crate::eventually("a database of its own", || async {
            admin
                .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log"))
                .await
                .ok()
        })
        .await;
        Self::of(cluster(), service, &name)
    }

    /// Makes it on a server of the test's own.
    ///
    /// # Panics
    /// If the server says no.
    pub async fn create_on(server: &OwnServer, service: Service) -> Self {
        migrated(&server.cluster, service, service.name()).await;
        Self::of(&server.cluster, service, service.name())
    }

    /// One that somebody else made, by the URLs of its owner and of the user the
    /// service logs in as.
    ///
    /// # Panics
    /// If the URL has no port.
    #[must_use]
    pub fn at(url: String, service_url: String) -> Self {
        let config: tokio_postgres::Config = url.parse().expect("a URL");
        let port = *config.get_ports().first().expect("a port");
        Self { url, service_url, port }
    }

    fn of(cluster: &Cluster, service: Service, name: &str) -> Self {
        let (url, service_url) = (cluster.url(name), cluster.url_of(&login(service), name));
        Self { url, service_url, port: cluster.port() }
    }

    /// Its server's port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// Its URL, as its owner.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Its URL, as the user the service logs in as.
    #[must_use]
    pub fn service_url(&self) -> String {
        self.service_url.clone()
    }

    /// The same by way of another port on loopback: a proxy.
    #[must_use]
    pub fn service_url_via(&self, port: u16) -> String {
        let direct = format!("127.0.0.1:{}/", self.port);
        self.service_url.replace(&direct, &format!("127.0.0.1:{port}/"))
    }

    /// A session for raw SQL.
    ///
    /// # Panics
    /// If the server says no.
    pub async fn sql(&self) -> Client {
        connect(&self.url()).await
    }
}

/// A session at a URL.
///
/// # Panics
/// If the server says no.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

/// A folder for files of this test process, removed with the server.
///
/// # Panics
/// If it can't be made.
pub fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = cluster().folder().join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}
