//! PostgreSQL over TLS: pools, lanes, migrations.

use sluice_service::postgres::{self, Session};
use sluice_tests::{Ca, Database, Service, Tenant, encrypting_cluster, scratch};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::*;

const SESSION: Session = Session { application_name: "sluice-tests-tls", parameters: &[], role: None };

/// Why there is no session.
async fn refused(url: &str, ca: &std::path::Path) -> String {
    let database = postgres::Database::with_ca(url, Some(ca)).unwrap();
    let error = database.connect(SESSION).await.expect_err("no session");
    format!("{error}: {:?}", std::error::Error::source(&error))
}

#[tokio::test]
async fn a_session_is_encrypted_and_the_server_verified() {
    let ca = encrypting_cluster().await;
    let url = Database::create(Service::Results).await.url();
    let client = postgres::Database::with_ca(&url, Some(&ca)).unwrap().connect(SESSION).await.unwrap();
    let own = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = client.query_one(own, &[]).await.unwrap();
    assert!(row.get::<_, bool>("ssl"));
    assert_eq!(row.get::<_, &str>("version"), "TLSv1.3");

    let wrong = scratch("wrong-ca").join("ca");
    std::fs::write(&wrong, Ca::new().pem()).unwrap();
    let told = refused(&url, &wrong).await;
    assert!(told.contains("InvalidCertificate(BadSignature)"), "{told}");
    let other_name = url.replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1";
    let told = refused(&other_name, &ca).await;
    assert!(told.contains("InvalidCertificate(NotValidForName"), "{told}");
}

#[tokio::test]
async fn a_server_that_says_it_has_no_tls_gets_no_session() {
    let ca = encrypting_cluster().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    for mode in ["", "?sslmode=prefer", "?sslmode=require"] {
        let url = format!("postgres://u:p@{address}/d{mode}");
        let answers = async {
            let (mut stream, _) = server.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"N").await.unwrap();
            let mut more = Vec::new();
            stream.read_to_end(&mut more).await.unwrap();
            more
        };
        let (told, more) = tokio::join!(refused(&url, &ca), answers);
        assert!(told.contains("server does not support TLS"), "{told}");
        assert!(more.is_empty(), "it went on without");
    }
}

#[tokio::test]
async fn every_session_of_a_pair_with_a_ca_file_is_encrypted() {
    let ca = encrypting_cluster().await.display().to_string();
    let pair = builder()
        .flag(Service::Ingest, "database-ca-file", &ca)
        .flag(Service::Results, "database-ca-file", &ca)
        .flag(Service::Ingest, "migrate", "true")
        .flag(Service::Results, "migrate", "true")
        .start()
        .await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("a/b")).await;
    let sent = vec![json("a/b", "{}")];
    let outcomes = publish(&acme, sent.clone()).await;
    adds_up(&pair, &acme, &accepted(&sent, &outcomes)).await;
    for (database, least) in [(&pair.ingest_database, 4), (&pair.results_database, 3)] {
        let sql = database.sql().await;
        let rows = sql.query(include_str!("sessions.sql"), &[]).await.unwrap();
        assert!(rows.len() >= least, "{} sessions", rows.len());
        for row in &rows {
            assert!(row.get::<_, bool>("ssl"), "{} is in plain text", row.get::<_, &str>("application_name"));
        }
    }
}
