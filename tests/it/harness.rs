//! The harness itself: what the other tests trust.

use sluice_service::postgres::state;
use sluice_tests::{Cut, Database, OwnServer, Proxy, Service, cluster, connect, eventually};
use tokio_postgres::NoTls;

#[tokio::test]
async fn the_server_is_durable_and_lets_nobody_in_without_a_password() {
    let sql = Database::create(Service::Ingest).await.sql().await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes", "autovacuum"] {
        let row = sql.query_one(&format!("SHOW {setting}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "on", "{setting}");
    }
    let rules = "SELECT DISTINCT auth_method FROM pg_hba_file_rules";
    let methods: Vec<String> = sql.query(rules, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(methods, ["scram-sha-256"]);
    let address = format!("postgres://sluice:wrong@127.0.0.1:{}/postgres", cluster().port());
    let refused = tokio_postgres::connect(&address, NoTls).await.err().expect("a wrong password");
    assert_eq!(state(&refused), "28P01");
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, other) = (Database::create(Service::Results).await, Database::create(Service::Results).await);
    one.sql().await.batch_execute("CREATE TABLE mine (id int)").await.unwrap();
    assert!(other.sql().await.query("SELECT * FROM mine", &[]).await.is_err());
}

/// A table behind a proxy, and a plain session to look at it.
async fn behind_a_proxy() -> (Proxy, tokio_postgres::Client, tokio_postgres::Client) {
    let database = Database::create(Service::Ingest).await;
    let proxy = Proxy::start(([127, 0, 0, 1], cluster().port()).into()).await;
    let plain = database.sql().await;
    plain.batch_execute("CREATE TABLE cut (id int); GRANT ALL ON cut TO PUBLIC").await.unwrap();
    let url = database.service_url_via(proxy.address().port());
    (proxy, connect(&url).await, plain)
}

async fn rows(plain: &tokio_postgres::Client) -> i64 {
    plain.query_one("SELECT count(*) FROM cut", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_cut_after_commit_leaves_it_committed_and_the_client_in_doubt() {
    let (proxy, client, plain) = behind_a_proxy().await;
    client.batch_execute("BEGIN; INSERT INTO cut VALUES (1)").await.unwrap();
    proxy.arm(Cut::AFTER_COMMIT);
    assert!(client.batch_execute("COMMIT").await.is_err());
    proxy.was_cut().await;
    assert_eq!(rows(&plain).await, 1);
}

#[tokio::test]
async fn a_cut_before_commit_leaves_nothing() {
    let (proxy, client, plain) = behind_a_proxy().await;
    client.batch_execute("BEGIN; INSERT INTO cut VALUES (1)").await.unwrap();
    proxy.arm(Cut::BEFORE_COMMIT);
    assert!(client.batch_execute("COMMIT").await.is_err());
    assert_eq!(rows(&plain).await, 0);
}

#[tokio::test]
async fn a_refusing_proxy_ends_what_is_open_and_lets_nothing_new_in() {
    let (proxy, client, _plain) = behind_a_proxy().await;
    proxy.refuse();
    eventually("the session's end", || async { client.is_closed().then_some(()) }).await;
    let address = proxy.address();
    let url = format!("postgres://sluice@127.0.0.1:{}/postgres", address.port());
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
}

/// The states of a process and its children, as `ps` has them. `T`: stopped.
fn states(pid: u32) -> Vec<String> {
    let listed = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let of = pid.to_string();
    let fields = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[..2].contains(&of.as_str())).map(|fields| fields[2].to_owned()).collect()
}

#[tokio::test]
async fn a_paused_server_stands_still_with_all_its_processes_and_then_goes_on() {
    let server = OwnServer::start().await;
    let database = Database::create_on(&server, Service::Ingest).await;
    let sql = database.sql().await;
    let pid = server.pid();
    let paused = server.pause().await;
    // `Z`: a session that had just ended, which a server that stands still does not reap.
    eventually("all to stop", || async {
        let states = states(pid);
        (states.len() > 3 && states.iter().all(|state| state.starts_with(['T', 'Z']))).then_some(())
    })
    .await;
    drop(paused);
    sql.batch_execute("SELECT 1").await.unwrap();
    assert!(states(pid).iter().all(|state| !state.starts_with('T')));
}
