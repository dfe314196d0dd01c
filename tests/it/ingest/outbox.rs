//! Between the commit and the results: rows that wait, that go to another
//! replica, that can't be read, that are too many. Each result appears once.

use std::time::Duration;

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Link, Pair, Proxy, Replica, Service, Tenant, eventually, eventually_within};
use tokio_postgres::Client;

use crate::{support::*, telemetry::exposition::scrape};

async fn start(builder: sluice_tests::PairBuilder) -> (Pair, Clients) {
    let pair = builder.start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (pair, acme)
}

async fn accept(clients: &Clients, count: usize) -> Contents {
    let observations: Vec<_> = (0..count).map(|n| json("plain", &n.to_string())).collect();
    let said = publish(clients, observations.clone()).await;
    assert!(kinds(&said).iter().all(|kind| *kind == Outcome::Success), "{said:?}");
    accepted(&observations, &said)
}

/// Rows that meet a condition.
async fn rows(sql: &Client, condition: &str) -> i64 {
    sql.query_one(&format!("SELECT count(*) FROM outbox WHERE {condition}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_a_killed_replica_had_committed_appears_after_its_restart() {
    let (mut pair, acme) = start(builder().processes().proxied(Link::Intake)).await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 30).await;
    let sql = pair.ingest_database.sql().await;
    assert!(backlog(&sql).await > 0);
    pair.ingest[0].kill();
    pair.proxy(Link::Intake).pass();
    assert!(results(&acme).await.is_empty(), "nobody is there to hand it over");
    pair.ingest[0].restart(true).await;
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn what_a_killed_replica_had_committed_is_taken_over_by_another() {
    let (mut pair, acme) = start(builder().processes().ingest_replicas(2).proxied(Link::Intake)).await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 30).await;
    pair.ingest[0].kill();
    pair.proxy(Link::Intake).pass();
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn what_an_owner_without_a_heartbeat_had_is_taken_over() {
    let (mut pair, acme) = start(builder().processes().proxied(Link::Intake)).await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 30).await;
    pair.ingest[0].kill();
    pair.proxy(Link::Intake).pass();
    // As a backup of some tables brings it back.
    pair.ingest_database.sql().await.batch_execute("TRUNCATE instance").await.unwrap();
    pair.ingest[0].restart(true).await;
    adds_up(&pair, &acme, &all).await;
}

/// The commit of a replica that died may go on for as long as a standby is away.
#[tokio::test]
async fn what_a_dead_replica_still_has_at_the_gate_holds_up_its_own_rows_only() {
    let (mut pair, acme) = start(builder().processes().ingest_replicas(2).proxied(Link::Intake)).await;
    pair.proxy(Link::Intake).refuse();
    let mut all = accept(&acme, 10).await;
    all.extend(accept(&acme, 20).await);
    pair.ingest[0].kill();
    let (sql, mut held) = (pair.ingest_database.sql().await, pair.ingest_database.sql().await);
    let owner = sql.query_one("SELECT DISTINCT owner FROM outbox", &[]).await.unwrap();
    let (dead, other) = (owner.get::<_, uuid::Uuid>(0), uuid::Uuid::now_v7());
    let at_gate = held.transaction().await.unwrap();
    let further = "INSERT INTO gate_session VALUES (gen_random_uuid(), $1)";
    sql.execute(
        "UPDATE outbox SET owner = $2 WHERE id = (SELECT id FROM outbox WHERE owner = $1 LIMIT 1)",
        &[&dead, &other],
    )
    .await
    .unwrap();
    sql.execute("INSERT INTO instance VALUES ($1, 'epoch')", &[&other]).await.unwrap();
    sql.execute(further, &[&dead]).await.unwrap();
    let lock = "SELECT FROM gate_session WHERE instance = $1 FOR KEY SHARE";
    assert_eq!(at_gate.execute(lock, &[&dead]).await.unwrap(), 1);
    pair.proxy(Link::Intake).pass();
    let taken = || async { (rows(&sql, &format!("owner = '{other}'")).await == 0).then_some(()) };
    eventually("the other's row taken over", taken).await;
    assert_eq!(rows(&sql, &format!("owner = '{dead}'")).await, 1);
    at_gate.rollback().await.unwrap();
    let acme = pair.clients_of(Tenant::Acme, 1, 0);
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_clean_stop_releases_what_waits_and_another_replica_delivers_it() {
    let (mut pair, acme) = start(builder().processes().ingest_replicas(2).proxied(Link::Intake)).await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 30).await;
    let sql = pair.ingest_database.sql().await;
    let owner: uuid::Uuid = sql.query_one("SELECT DISTINCT owner FROM outbox", &[]).await.unwrap().get(0);
    pair.ingest[0].stop().await;
    assert_eq!(rows(&sql, &format!("owner = '{owner}'")).await, 0, "it kept nothing to itself");
    assert!(backlog(&sql).await > 0);
    pair.proxy(Link::Intake).pass();
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn results_being_killed_delays_and_doubles_nothing() {
    let (mut pair, acme) = start(builder().processes()).await;
    let mut all = accept(&acme, 50).await;
    for _ in 0..2 {
        all.extend(accept(&acme, 200).await);
        pair.results[0].kill();
        all.extend(accept(&acme, 50).await);
        pair.results[0].restart(true).await;
    }
    adds_up(&pair, &pair.clients(Tenant::Acme), &all).await;
}

#[tokio::test]
async fn rows_that_can_not_be_recorded_are_set_aside_and_the_others_flow() {
    let (pair, acme) = start(builder().admin()).await;
    let sql = pair.ingest_database.sql().await;
    let good = accept(&acme, 3).await;
    for (organisation, format, payload) in
        [("acme", 1, "no frame"), ("acme", 99, "later"), ("no name", 1, "x")]
    {
        sql.execute(
            "INSERT INTO outbox (id, organisation, format, results, traceparent, payload)
             VALUES (gen_random_uuid(), $1, $2, 1, '', $3)",
            &[&organisation, &(format as i16), &payload.as_bytes()],
        )
        .await
        .unwrap();
    }
    let aside = || async { (rows(&sql, "set_aside <> ''").await == 3).then_some(()) };
    eventually("three rows set aside", aside).await;
    let told = scrape(pair.ingest[0].admin()).await;
    let told = told.sum("sluice_emission_batches_total", &[("handover", "set_aside")]);
    assert_eq!(told, 2.0, "those that were to be handed over");
    let mut all = accept(&acme, 3).await;
    all.extend(good);
    let left = || async { (backlog(&sql).await == 3).then_some(()) };
    eventually("the good rows gone, the bad ones kept", left).await;
    are_the_results(&acme, &all).await;
}

#[tokio::test]
async fn a_full_backlog_makes_callers_come_again_and_an_emptied_one_lets_them_in() {
    let builder = builder().proxied(Link::Intake).flag(Service::Ingest, "outbox-bytes-max", "1");
    let (pair, acme) = start(builder).await;
    pair.proxy(Link::Intake).refuse();
    let mut all = accept(&acme, 1).await;
    let said = publish(&acme, vec![marked("plain", "m", "1"), json("nobody", "1")]).await;
    assert_eq!(told(&said), [(Outcome::Retry, "NOT_KEPT"), (Outcome::Error, "UNKNOWN_DEFINITION")]);
    assert!(said[0].delay.unwrap().seconds >= 1);
    pair.proxy(Link::Intake).pass();
    let let_in = || async {
        let said = publish_one(&acme, marked("plain", "m", "1")).await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    all.insert(eventually("room in the backlog", let_in).await, "1".into());
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn an_organisation_whose_backlog_is_full_comes_again_and_others_go_on() {
    let builder = builder().proxied(Link::Intake).flag(Service::Ingest, "outbox-organisation-bytes-max", "1");
    let (pair, acme) = start(builder).await;
    let globex = pair.clients(Tenant::Globex);
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    pair.proxy(Link::Intake).refuse();
    let mut all = accept(&acme, 1).await;
    let said = publish(&acme, vec![marked("plain", "m", "1"), json("nobody", "1")]).await;
    assert_eq!(told(&said), [(Outcome::Retry, "NOT_KEPT"), (Outcome::Error, "UNKNOWN_DEFINITION")]);
    let others = accept(&globex, 1).await;
    let sql = pair.ingest_database.sql().await;
    assert_eq!(rows(&sql, "organisation = 'globex'").await, 1);
    // What the database says is the same, on every look at it.
    let said = publish_one(&globex, json("plain", "2")).await;
    assert_eq!(said.outcome(), Outcome::Retry);
    pair.proxy(Link::Intake).pass();
    let let_in = || async {
        let said = publish_one(&acme, marked("plain", "m", "1")).await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    all.insert(eventually("room in the backlog", let_in).await, "1".into());
    adds_up(&pair, &acme, &all).await;
    are_the_results(&globex, &others).await;
}

#[tokio::test]
async fn a_replica_knows_what_others_committed_of_an_organisation() {
    let builder = builder().ingest_replicas(2).proxied(Link::Intake);
    let (pair, acme) = start(builder.flag(Service::Ingest, "outbox-organisation-bytes-max", "1")).await;
    pair.proxy(Link::Intake).refuse();
    let mut all = accept(&acme, 1).await;
    let second = pair.clients_of(Tenant::Acme, 1, 0);
    // At most what it lets in before its first look.
    for n in 0.. {
        let observation = json("plain", &format!("[{n}]"));
        let said = publish_one(&second, observation.clone()).await;
        if said.outcome() == Outcome::Retry {
            break;
        }
        all.extend(accepted(&[observation], &[said]));
    }
    pair.proxy(Link::Intake).pass();
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn what_is_recorded_makes_room_while_the_outbox_can_not_be_measured() {
    let (pair, acme) = start(builder().flag(Service::Ingest, "outbox-organisation-bytes-max", "1")).await;
    // Who measures asks for the age of rows.
    let no_ages = "REVOKE SELECT ON outbox FROM sluice_ingest_service;
        GRANT SELECT (id, organisation, owner, format, results, traceparent, payload, set_aside)
        ON outbox TO sluice_ingest_service";
    pair.ingest_database.sql().await.batch_execute(no_ages).await.unwrap();
    for n in 0..3 {
        let let_in = || async {
            let said = publish_one(&acme, json("plain", &format!("[{n}]"))).await;
            (said.outcome() == Outcome::Success).then_some(())
        };
        eventually("room in the backlog", let_in).await;
    }
}

/// A further replica of ingest on the pair's database that hands over to `results`.
async fn further_replica(pair: &Pair, results: &Proxy) -> Replica {
    let token_file = pair.keys_file.with_file_name("further-intake-token");
    std::fs::write(&token_file, pair.token(Tenant::Intake)).unwrap();
    let flags = [
        ("--database-url", pair.ingest_database.url()),
        ("--keys-file", pair.keys_file.display().to_string()),
        ("--results-url", format!("http://{}", results.address())),
        ("--results-token-file", token_file.display().to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let replica = Replica::start(Service::Ingest, flags).await;
    replica.serving().await;
    replica
}

#[tokio::test]
async fn rows_taken_over_from_a_replica_that_comes_back_are_not_lost() {
    let (pair, acme) = start(builder().proxied(Link::Intake).proxied(Link::IngestDatabase)).await;
    pair.proxy(Link::Intake).refuse();
    let sql = pair.ingest_database.sql().await;
    // More than the emitter keeps in memory: the rest it will have to read.
    let block = |n: usize| json("plain", &format!("\"{n}{}\"", "x".repeat(1_000_000)));
    let mut all = Contents::new();
    for batch in 0..3 {
        let observations: Vec<_> = (0..13).map(|n| block(batch * 13 + n)).collect();
        let said = publish(&acme, observations.clone()).await;
        all.extend(accepted(&observations, &said));
    }
    assert_eq!(all.len(), 39);
    let owner: uuid::Uuid = sql.query_one("SELECT DISTINCT owner FROM outbox", &[]).await.unwrap().get(0);
    // It goes silent, and another one, which can't reach the results either,
    // takes all its rows over.
    let away = Proxy::start(pair.results[0].address()).await;
    away.refuse();
    let _further = further_replica(&pair, &away).await;
    pair.proxy(Link::IngestDatabase).stall();
    let taken = || async { (rows(&sql, &format!("owner = '{owner}'")).await == 0).then_some(()) };
    eventually("the rows taken over", taken).await;
    // The first one comes back and goes through what it believes is its own.
    pair.proxy(Link::IngestDatabase).cut_all();
    pair.proxy(Link::IngestDatabase).pass();
    pair.proxy(Link::Intake).pass();
    pair.ingest[0].serving().await;
    let more = accept(&acme, 1).await;
    let handed_over = || async {
        let there = results(&acme).await;
        more.keys().all(|id| there.contains_key(id)).then_some(())
    };
    eventually("what the first one has after all that", handed_over).await;
    all.extend(more);
    away.pass();
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_row_whose_deletion_was_undone_by_a_crash_is_handed_over_once_more() {
    let (pair, acme) = start(builder().proxied(Link::Intake)).await;
    let sql = pair.ingest_database.sql().await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 3).await;
    sql.batch_execute("CREATE TABLE kept AS SELECT * FROM outbox").await.unwrap();
    pair.proxy(Link::Intake).pass();
    drained(&pair).await;
    // Deletions don't wait for the disk. Its owner is alive and forgot it.
    let undone = "UPDATE kept SET date_created = date_created - interval '1 minute';
                  INSERT INTO outbox SELECT * FROM kept";
    sql.batch_execute(undone).await.unwrap();
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn a_lone_replica_delivers_after_results_was_away_for_long() {
    let (pair, acme) = start(builder().proxied(Link::Intake)).await;
    let sql = pair.ingest_database.sql().await;
    pair.proxy(Link::Intake).refuse();
    let all = accept(&acme, 3).await;
    let released = || async { (rows(&sql, "owner IS NULL").await > 0).then_some(()) };
    eventually_within(Duration::from_secs(60), "rows released after 30 s in vain", released).await;
    pair.proxy(Link::Intake).pass();
    adds_up(&pair, &acme, &all).await;
}

/// A backlog that takes long to be measured, or can't be, is no reason to be taken for
/// dead.
#[tokio::test]
async fn the_heartbeat_does_not_wait_for_the_backlog_to_be_measured() {
    let pair = builder().start().await;
    let (sql, held) = (pair.ingest_database.sql().await, pair.ingest_database.sql().await);
    let beaten = "SELECT FROM pg_stat_activity, instance
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query LIKE '%oldest_age_seconds%' AND instance.date_seen > query_start";
    // Whoever reads the table waits.
    held.batch_execute("BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let seen = || async { (!sql.query(beaten, &[]).await.unwrap().is_empty()).then_some(()) };
    eventually("a beat during a measurement", seen).await;
    held.batch_execute("COMMIT").await.unwrap();
}
