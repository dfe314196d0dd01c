//! The plans of the hot statements of the gate, the outbox and files are pinned:
//! generic, by index, with the session settings they run with, on empty tables
//! that were never analysed and on full ones.

use std::future::poll_fn;

use sluice_ingest::sessions;
use sluice_service::postgres::Session;
use sluice_tests::{Database, Service};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, types::ToSql};
use uuid::Uuid;

/// What a kind of session is set to, as statements.
fn settings(session: Session) -> String {
    assert!(session.parameters.contains(&("plan_cache_mode", "force_generic_plan")));
    session.parameters.iter().map(|(name, value)| format!("SET {name} = '{value}';")).collect()
}

macro_rules! statement {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../crates/ingest/src/sql/", $name, ".sql")))
    };
}

/// Each with how many parameters it has.
const GATE: [((&str, &str), usize); 15] = [
    (statement!("end_gate_session"), 1),
    (statement!("lock_uploads"), 1),
    (statement!("delete_uploads"), 1),
    (statement!("presume"), 6),
    (statement!("insert_markers"), 4),
    (statement!("insert_windows"), 2),
    (statement!("insert_counters"), 1),
    (statement!("select_markers"), 2),
    (statement!("lock_windows"), 2),
    (statement!("select_old_markers"), 1),
    (statement!("select_old_windows"), 1),
    (statement!("lock_counters"), 1),
    (statement!("correct_markers"), 4),
    (statement!("correct_windows"), 3),
    (statement!("update_counters"), 3),
];
const OUTBOX: [((&str, &str), usize); 7] = [
    (statement!("take_over_outbox"), 2),
    (statement!("waiting_outbox"), 3),
    (statement!("meet_owners"), 0),
    (statement!("load_outbox"), 2),
    (statement!("delete_outbox"), 1),
    (statement!("set_aside_outbox"), 2),
    (statement!("release_outbox"), 1),
];
const FILES: [((&str, &str), usize); 6] = [
    (statement!("look_ahead"), 2),
    (statement!("open_upload"), 3),
    (statement!("give_up_uploads"), 5),
    (statement!("own_uploads"), 3),
    (statement!("orphaned_uploads"), 2),
    (statement!("lock_dead_uploads"), 1),
];
/// Tables of one row, or one per replica: read whole.
const FEW_ROWS: [&str; 3] = ["gate_slot", "registry_revision", "instance"];

/// The generic plan of a statement, as text.
async fn plan(sql: &Client, name: &str, statement: &str, parameters: usize) -> String {
    sql.batch_execute(&format!("PREPARE {name} AS {statement}")).await.unwrap();
    sql.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let values = match parameters {
        0 => String::new(),
        _ => format!("({})", vec!["NULL"; parameters].join(", ")),
    };
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {name}{values}");
    let lines = sql.simple_query(&explain).await.unwrap();
    sql.batch_execute(&format!("DEALLOCATE {name}")).await.unwrap();
    let text = lines.iter().filter_map(|line| match line {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    text.collect::<Vec<_>>().join("\n")
}

/// Scans in a plan that read a whole table or index.
fn whole_scans(plan: &str) -> Vec<&str> {
    let lines: Vec<&str> = plan.lines().collect();
    let whole = |at: usize| {
        let (line, next) = (lines[at], lines.get(at + 1).copied().unwrap_or_default());
        let small = FEW_ROWS.iter().any(|table| line.contains(&format!(" on {table}")));
        let table = line.contains("Seq Scan") || line.contains("Hash Join") || line.contains("Merge Join");
        let index = line.contains("Index Scan") || line.contains("Index Only Scan");
        !small && (table || (index && !next.contains("Index Cond")))
    };
    (0..lines.len()).filter(|at| whole(*at)).map(|at| lines[at]).collect()
}

async fn session(database: &Database, settings: &str) -> Client {
    let client = database.sql().await;
    client.batch_execute(settings).await.unwrap();
    client
}

async fn assert_by_index(sql: &Client, statements: &[((&str, &str), usize)], tables: &str) {
    for ((name, statement), parameters) in statements {
        let plan = plan(sql, name, statement, *parameters).await;
        assert!(whole_scans(&plan).is_empty(), "{name} on {tables} tables:\n{plan}");
        // Every way into a partition is by its key, not through a filter.
        let keys = ["key = ", "id = ", "owner = ", "owner IS NULL", "instance = ", "one = "];
        let mut conditions = plan.lines().filter(|line| line.contains("Index Cond"));
        let by_key = conditions.all(|line| keys.iter().any(|key| line.contains(key)));
        assert!(by_key, "{name} on {tables} tables:\n{plan}");
        let inserts = plan.contains("Conflict Arbiter Indexes");
        assert!(inserts || plan.contains("Index"), "{name} on {tables} tables uses no index:\n{plan}");
    }
}

const FILL: &str = "
    INSERT INTO marker SELECT n, md5(n::text)::uuid, md5('i' || n)::uuid, 1, n % 3 FROM generate_series(1, 30000) n;
    INSERT INTO unique_window SELECT now(), md5(n::text)::uuid, md5('i' || n)::uuid, n % 3 FROM generate_series(1, 30000) n;
    INSERT INTO throttle_counter
        SELECT md5(n::text)::uuid, now() - n % 5 * interval '1 day', 1 FROM generate_series(1, 10000) n;
    INSERT INTO outbox (id, organisation, owner, format, results, traceparent, payload)
        SELECT md5(n::text)::uuid, 'acme', md5((n % 10)::text)::uuid, 1, 1, '', '\\x00' FROM generate_series(1, 10000) n;
    INSERT INTO gate_session SELECT md5(n::text)::uuid, md5((n % 1000)::text)::uuid FROM generate_series(1, 10000) n;
    INSERT INTO file_upload (id, organisation, owner)
        SELECT md5(n::text)::uuid, 'acme', md5((n % 10)::text)::uuid FROM generate_series(1, 10000) n;";

#[tokio::test]
async fn hot_statements_find_their_rows_by_index_on_empty_and_on_full_tables() {
    let database = Database::create(Service::Ingest).await;
    let kinds = [
        (session(&database, &settings(sessions::GATE)).await, &GATE[..]),
        (session(&database, &settings(sessions::OUTBOX)).await, &OUTBOX[..]),
        (session(&database, &settings(sessions::FILES)).await, &FILES[..]),
    ];
    let sql = database.sql().await;
    for (tables, change) in [("empty", ""), ("full", FILL), ("analysed", "ANALYZE")] {
        sql.batch_execute(change).await.unwrap();
        for (session, statements) in &kinds {
            assert_by_index(session, statements, tables).await;
        }
    }
}

/// A session that is sent the plan of every statement, and of those inside functions.
async fn explained(database: &Database, settings: &str) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            let AsyncMessage::Notice(notice) = message else { continue };
            let _ended = tell.send(notice.message().to_owned());
        }
    });
    let explain = "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0;
        SET auto_explain.log_nested_statements = on; SET auto_explain.log_level = notice;";
    client.batch_execute(&format!("{settings}; {explain}")).await.unwrap();
    (client, told)
}

/// Runs a statement and answers how many plans of statements on tables it led to, after
/// none of them read a whole one.
async fn all_by_index(
    (sql, told): &mut (Client, mpsc::UnboundedReceiver<String>),
    statement: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> usize {
    while told.try_recv().is_ok() {}
    sql.execute(statement, parameters).await.unwrap();
    let mut plans = 0;
    while let Ok(plan) = told.try_recv() {
        // Rows a trigger is given are not tables, but may be many.
        if plan.contains("Tuplestore") {
            assert!(!plan.contains("Nested Loop"), "{plan}");
            continue;
        }
        if !plan.contains(" on ") {
            continue;
        }
        assert!(whole_scans(&plan).is_empty(), "{plan}");
        plans += 1;
    }
    plans
}

#[tokio::test]
async fn statements_inside_functions_find_their_rows_by_index_too() {
    let database = Database::create(Service::Ingest).await;
    let mut gate = explained(&database, &settings(sessions::GATE)).await;
    let mut outbox = explained(&database, &settings(sessions::OUTBOX)).await;
    let mut retention = explained(&database, "").await;
    let sql = database.sql().await;
    let (session, instance, none) = (Uuid::now_v7(), Uuid::now_v7(), None::<Uuid>);
    let open = statement!("open_gate_session").1;
    assert!(all_by_index(&mut gate, open, &[&session, &instance, &none]).await > 0);
    for (change, least) in [("", 1), (FILL, 2), ("ANALYZE", 2)] {
        sql.batch_execute(change).await.unwrap();
        let [marker, window, row] = [(); 3].map(|()| Uuid::now_v7());
        let parameters: [&(dyn ToSql + Sync); 16] = [
            &0_i64,
            &session,
            &i64::MAX,
            &vec![marker],
            &vec![marker],
            &vec![1_i64],
            &1_i16,
            &vec![window],
            &vec![window],
            &vec![row],
            &vec!["acme"],
            &instance,
            &1_i16,
            &vec![1_i32],
            &vec![""],
            &vec![&b"payload"[..]],
        ];
        let plans = all_by_index(&mut gate, statement!("gate_pass").1, &parameters).await;
        assert!(plans >= 6, "session, slot, two inserts and what they are compared with, outbox: {plans}");
        let plans = all_by_index(&mut outbox, statement!("release_outbox").1, &[&instance]).await;
        assert!(plans >= 2, "the outbox and its owner's sessions: {plans}");
        let forget: [&(dyn ToSql + Sync); 3] = [&0_i64, &86_400.0, &10_i64];
        let plans = all_by_index(&mut retention, statement!("forget_counters").1, &forget).await;
        assert!(plans >= least, "whether there is one, and which: {plans}");
        // That ended the session.
        sql.execute("INSERT INTO gate_session VALUES ($1, $2)", &[&session, &instance]).await.unwrap();
    }
}

#[tokio::test]
async fn the_check_of_plans_sees_a_whole_scan() {
    let database = Database::create(Service::Ingest).await;
    let sql = session(&database, "SET jit = off").await;
    let plan = plan(&sql, "whole", "SELECT count(*) FROM marker WHERE fingerprint = $1", 1).await;
    assert_eq!(whole_scans(&plan).len(), 3, "{plan}");
}
