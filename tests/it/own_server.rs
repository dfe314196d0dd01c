//! A pair with a database server that belongs to one test alone, which may kill it,
//! stop it, or start it with other settings.

use std::sync::atomic::{AtomicU32, Ordering};

use sluice::{
    connection::{Clients, is_serving},
    keys::{NewToken, append_entries, tenant_scopes},
    postgres::{Cluster, Guard},
};
use sluice_service::{auth::INTAKE_SCOPE, postgres};
use sluice_tests::{Replica, Service, eventually, program};
use tokio_postgres::Client;

/// A pair on a PostgreSQL of its own, which can be killed.
pub struct OnOwnServer {
    pub cluster: Cluster,
    guard: Guard,
    pub clients: Clients,
    pub ingest: Replica,
    pub results: Replica,
}

impl OnOwnServer {
    /// Starts it; the services are processes of their own.
    pub async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sluice-outage-{}-{number}", std::process::id()));
        let mut cluster = Cluster::open(&folder, true).await.unwrap();
        cluster.start().await.unwrap();
        let guard = cluster.guard(&program(), Some(&folder)).unwrap();
        for (name, runner) in
            [("ingest", sluice_ingest::migrations()), ("results", sluice_results::migrations())]
        {
            cluster.create_database(name).await.unwrap();
            let database = postgres::Database::parse(&cluster.url(name)).unwrap();
            postgres::Migration::of_owner(database).run(runner).await.unwrap();
        }
        let acme = NewToken::new(Some("acme"), tenant_scopes());
        let intake = NewToken::new(None, [INTAKE_SCOPE]);
        let (keys, intake_file) = (folder.join("keys.toml"), folder.join("intake-token"));
        append_entries(&keys, &[acme.entry, intake.entry]).unwrap();
        std::fs::write(&intake_file, &intake.text).unwrap();
        let flags = |more: &[(&str, String)]| {
            let keys = ("--keys-file", keys.display().to_string());
            let all = more.iter().cloned().chain([keys]);
            all.flat_map(|(name, value)| [name.to_owned(), value]).collect::<Vec<_>>()
        };
        let results = Replica::start_process(
            Service::Results,
            flags(&[("--database-url", cluster.url("results"))]),
            vec![],
        )
        .await;
        let ingest_flags = flags(&[
            ("--database-url", cluster.url("ingest")),
            ("--results-url", results.url()),
            ("--results-token-file", intake_file.display().to_string()),
        ]);
        let ingest = Replica::start_process(Service::Ingest, ingest_flags, vec![]).await;
        results.serving().await;
        ingest.serving().await;
        let clients = Clients::new(&ingest.url(), &results.url(), &acme.text).unwrap();
        Self { cluster, guard, clients, ingest, results }
    }

    /// Ends the server as a crash does, and starts it again.
    pub async fn crash(&mut self, signal: &str) {
        let pid = self.cluster.pid().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.cluster.ended().await;
        eventually("a replica that knows it", || async {
            (!is_serving(&self.ingest.url()).await).then_some(())
        })
        .await;
        self.start_server().await;
    }

    /// Stops the server in good order.
    pub async fn stop_server(&mut self) {
        self.cluster.stop().await.unwrap();
    }

    /// Starts the server again, with other settings if there are any.
    pub async fn start_server(&mut self) {
        self.cluster.start().await.unwrap();
        // The one before looked after the process that has gone, and the folder.
        self.guard = self.cluster.guard(&program(), Some(self.cluster.folder())).unwrap();
    }

    /// A session for raw SQL.
    pub async fn sql(&self, database: &str) -> Client {
        let url = self.cluster.url(database);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}
