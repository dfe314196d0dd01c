//! The plans of the results service's hot statements: walks along an index and
//! lookups by the whole key, on tables that were never analysed, empty or not.

use std::collections::BTreeSet;

use sluice_results::sessions::{SERVING, TENANTS};
use sluice_service::postgres::Database;
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

use crate::results::shelf::{Shelf, new};

macro_rules! statements {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../crates/results/src/sql/", $name, ".sql")))),*]
    };
}

const STATEMENTS: [(&str, &str); 28] = statements![
    "get",
    "blocks",
    "acknowledge",
    "batches_of",
    "record",
    "record_new",
    "walk_available_newest",
    "walk_available_oldest",
    "records",
    "list_available_newest",
    "list_available_oldest",
    "list_poll_newest",
    "list_poll_oldest",
    "list_all_newest",
    "list_all_oldest",
    "configs_for",
    "known",
    "uploads_sealed",
    "record_apart",
    "expire",
    "expired_pending",
    "expired_gone",
    "cleanup_overdue",
    "records_of_config",
    "keepers",
    "chunk_get",
    "chunks_delete",
    "config_get",
];

/// What begins like this is done for one tenant.
const TENANTS_OWN: [&str; 10] = [
    "get",
    "blocks",
    "acknowledge",
    "batches_of",
    "walk_",
    "records",
    "list_",
    "keepers",
    "chunk_get",
    "config_get",
];

/// A value of a parameter's type; the plan is made for no particular one.
fn literal(parameter: &Type) -> &'static str {
    match *parameter {
        Type::UUID => "'01963f2e-7d9a-7c31-8f0e-000000000001'",
        Type::TIMESTAMPTZ => "'2026-01-01Z'",
        Type::TEXT => "'x'",
        Type::BOOL => "true",
        Type::INT4 | Type::INT8 | Type::FLOAT8 => "10",
        _ => "'{}'",
    }
}

async fn plan(sql: &Client, statement: &str) -> String {
    let types = sql.prepare(statement).await.unwrap();
    let values: Vec<&str> = types.params().iter().map(literal).collect();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE hot ({})", values.join(", "));
    sql.batch_execute(&format!("PREPARE hot AS {statement}")).await.unwrap();
    let rows = sql.simple_query(&explain).await.unwrap();
    sql.batch_execute("DEALLOCATE hot").await.unwrap();
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    rows.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

/// What an index of this name is walked or looked up by, in any of these ways.
fn allowed(index: &str) -> &'static [&'static [&'static str]] {
    const ORGANISATION: &str = "(organisation = ";
    const DATE: &str = "(date_created = ";
    const POLL: &str = "(poll = ";
    if index == "available_pkey" {
        &[&[ORGANISATION, DATE, POLL], &[ORGANISATION, "(date_created >= ", "(date_created <"]]
    } else if index == "batch_pkey" {
        // All of a moment, or a walk.
        &[&[ORGANISATION, DATE], &[ORGANISATION, "(date_created >"]]
    } else if index == "batch_by_poll" {
        // A walk, or all of a poll at a moment.
        &[&[ORGANISATION, POLL, "(date_created >= ", "(date_created <= "], &[ORGANISATION, POLL, DATE]]
    } else if index.starts_with("consumed_") {
        &[&[ORGANISATION, DATE, POLL]]
    } else if index.starts_with("expired_") {
        &[&[ORGANISATION, DATE, POLL], &[ORGANISATION, "(storage_config = ", "(first_id > "]]
    } else if index == "storage_default_pkey" {
        &[&[ORGANISATION]]
    } else {
        &[&[ORGANISATION, "(id = "]]
    }
}

fn check(name: &str, plan: &str) {
    let lists = name.starts_with("list_") || name.starts_with("walk_");
    for costly in ["Seq Scan", "Bitmap", "->  Sort", "Hash Join", "Merge Join", "Join Filter"] {
        // What was given, or was found by then, has bounds; what a list walks has none.
        let bounded = costly == "->  Sort" && !lists;
        assert!(bounded || !plan.contains(costly), "{name} has a {costly}:\n{plan}");
    }
    let walks = lists || name == "records_of_config";
    let presorted: Vec<&str> =
        plan.split("Presorted Key: ").skip(1).filter_map(|key| key.lines().next()).collect();
    assert_eq!(walks, !presorted.is_empty(), "{name}:\n{plan}");
    assert!(presorted.iter().all(|key| key.ends_with(".date_created")), "{name}:\n{plan}");
    let lines: Vec<&str> = plan.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((_, used)) = line.split_once(" using ") else { continue };
        let index = used.split(' ').next().unwrap();
        let condition = lines.get(at + 1).copied().unwrap_or_default();
        let fits = |parts: &&[&str]| parts.iter().all(|part| condition.contains(part));
        assert!(allowed(index).iter().any(fits), "{name} reads {index} by {condition:?}:\n{plan}");
    }
}

async fn check_all(shelf: &Shelf) {
    let database = Database::parse(&shelf.0.results_database.service_url()).unwrap();
    let (service, tenant) =
        (database.connect(SERVING).await.unwrap(), database.connect(TENANTS).await.unwrap());
    for (name, statement) in STATEMENTS {
        // Row-level security adds conditions, which must not cost an index.
        let is_tenants = TENANTS_OWN.iter().any(|own| name.starts_with(own));
        let plan = plan(if is_tenants { &tenant } else { &service }, statement).await;
        assert_eq!(is_tenants, plan.contains("current_setting"), "{name}:\n{plan}");
        check(name, &plan);
        // The statements that read find something to read by.
        assert!(["record", "record_new"].contains(&name) || plan.contains(" using "), "{name}:\n{plan}");
    }
    // Not hot, but asked of each deactivated storage config at every round of the clean-up.
    for (name, statement) in statements!["config_forget"] {
        let plan = plan(&service, statement).await;
        assert!(plan.contains("using batch_by_config on batch"), "{name}:\n{plan}");
    }
}

#[tokio::test]
async fn hot_statements_use_their_indexes_whatever_the_statistics() {
    let shelf = Shelf::start().await;
    check_all(&shelf).await;
    shelf.record(&(0..3000).map(|_| new("x")).collect::<Vec<_>>()).await;
    check_all(&shelf).await;
    shelf.0.results_database.sql().await.batch_execute("ANALYZE").await.unwrap();
    check_all(&shelf).await;
}

/// The plan of a statement with these values, and what became of it: it is done.
async fn carried_out(sql: &Client, statement: &str, values: &str) -> serde_json::Value {
    sql.batch_execute(&format!("PREPARE hot AS {statement}")).await.unwrap();
    let values = if values.is_empty() { String::new() } else { format!("({values})") };
    let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE hot {values}");
    let rows = sql.simple_query(&explain).await.unwrap();
    sql.batch_execute("DEALLOCATE hot").await.unwrap();
    let text = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: serde_json::Value = serde_json::from_str(text.unwrap()).unwrap();
    plan[0]["Plan"].clone()
}

fn below(step: &serde_json::Value) -> &[serde_json::Value] {
    step["Plans"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// How many rows a plan touched, over all of its steps, also those it passed over.
fn rows_of(step: &serde_json::Value) -> f64 {
    let number = |name: &str| step[name].as_f64().unwrap_or_default();
    let each =
        number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Join Filter");
    each * number("Actual Loops") + below(step).iter().map(rows_of).sum::<f64>()
}

/// As many rows of `consumed` as results: each was acknowledged by itself.
#[tokio::test]
async fn a_list_of_what_was_acknowledged_one_by_one_looks_at_each_a_few_times() {
    const RESULTS: usize = 1000;
    let shelf = Shelf::start().await;
    shelf.record(&(0..RESULTS).map(|_| new("x")).collect::<Vec<_>>()).await;
    let sql = shelf.0.results_database.sql().await;
    let acknowledge = "DELETE FROM available;
        INSERT INTO consumed (date_created, date_consumed, organisation, poll, ids)
        SELECT date_created, now(), organisation, poll, ARRAY[id] FROM result";
    sql.batch_execute(acknowledge).await.unwrap();
    let database = Database::parse(&shelf.0.results_database.service_url()).unwrap();
    let tenant = database.connect(TENANTS).await.unwrap();
    tenant.batch_execute("SET sluice.organisation = 'acme'").await.unwrap();
    let all = "'acme', '-infinity', '00000000-0000-0000-0000-000000000000', \
               'infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 1001, NULL, NULL, NULL";
    for (name, statement) in STATEMENTS.iter().filter(|(name, _)| name.starts_with("list_")) {
        for [expired, consumed] in [[true, false], [false, true]] {
            let states = match *name {
                name if name.starts_with("list_available") => String::new(),
                name => format!(
                    ", {expired}, {consumed}, false, NULL, NULL, NULL, NULL{}",
                    if name.starts_with("list_poll") { ", 'poll'" } else { "" }
                ),
            };
            let touched = rows_of(&carried_out(&tenant, statement, &format!("{all}{states}")).await);
            assert!(touched < 50.0 * RESULTS as f64, "{name} looks at {touched} rows");
        }
    }
}

/// What is taken with a limit is chosen once, whatever it is joined with.
#[tokio::test]
async fn what_is_taken_is_locked_once_and_changed_by_its_whole_key() {
    let shelf = Shelf::start().await;
    let database = Database::parse(&shelf.0.results_database.service_url()).unwrap();
    let service = database.connect(SERVING).await.unwrap();
    for (name, statement) in statements!["configs_to_probe", "cleanup_lease"] {
        let plan = plan(&service, statement).await;
        let (taking, changing) = plan.split_once("CTE Scan on taken").unwrap();
        assert!(taking.contains("CTE taken") && taking.contains("LockRows"), "{name}:\n{plan}");
        assert!(!changing.contains("LockRows") && !changing.contains("Filter"), "{name}:\n{plan}");
        assert!(changing.contains("_pkey on ") && changing.contains("((organisation = "), "{name}:\n{plan}");
    }
    let [reseal, lease] = statements!["configs_to_reseal", "cleanup_lease"].map(|(_, statement)| statement);
    for (statement, walked) in
        [(reseal, "(ROW(organisation, id) > ROW("), (lease, "cleanup_progress_by_lease")]
    {
        let plan = plan(&service, statement).await;
        assert!(plan.contains(walked) && !plan.contains("Sort"), "{plan}");
    }
}

/// However many batches they have.
#[tokio::test]
async fn whose_batches_there_are_is_told_by_one_of_each() {
    let database = sluice_tests::Database::create(sluice_tests::Service::Results).await;
    let (sql, service) = (database.sql().await, Database::parse(&database.service_url()).unwrap());
    let service = service.connect(SERVING).await.unwrap();
    let batches = "
        INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config)
        SELECT now(), gen_random_uuid(), whose, 'poll', '{}', '00000000-0000-0000-0000-000000000000'
        FROM unnest(ARRAY['a', 'b', 'c']) AS whose, generate_series(1, 1000)";
    sql.batch_execute(batches).await.unwrap();
    let [(_, statement)] = statements!["cleanup_add_configs"];
    for analyze in ["", "ANALYZE"] {
        sql.batch_execute(analyze).await.unwrap();
        let touched = rows_of(&carried_out(&service, statement, "").await);
        assert!(touched < 100.0, "{analyze}: {touched} rows");
        let added = "SELECT count(*) FROM cleanup_progress WHERE date = '-infinity'";
        assert_eq!(sql.query_one(added, &[]).await.unwrap().get::<_, i64>(0), 3);
    }
}

/// The partitions of a table that a plan looked into.
fn looked_into(step: &serde_json::Value, table: &str, found: &mut BTreeSet<String>) {
    let partition = step["Relation Name"].as_str().filter(|name| name.starts_with(table));
    let scan = step["Node Type"].as_str().is_some_and(|kind| kind.ends_with("Scan"));
    if scan && step["Actual Loops"].as_f64().is_some_and(|loops| loops > 0.0) {
        found.extend(partition.map(str::to_owned));
    }
    for step in below(step) {
        looked_into(step, table, found);
    }
}

/// A row of each week, at the same place in its partition.
const A_ROW_A_WEEK: &str = "
    SELECT make_week(now() - weeks * interval '7 days') FROM generate_series(10, 14) AS weeks;
    INSERT INTO data_block (id, size, organisation, bytes)
    SELECT uuid_floor(now() - weeks * interval '7 days'), 1, 'acme', 'x' FROM generate_series(10, 14) AS weeks;
    INSERT INTO expired (date_created, first_id, storage_config, organisation, poll, ids)
    SELECT now() - weeks * interval '7 days', uuid_floor(now() - weeks * interval '7 days'), gen_random_uuid(), 'acme',
           'poll', '{}'
    FROM generate_series(10, 14) AS weeks";

#[tokio::test]
async fn a_step_of_the_clean_up_looks_into_the_weeks_it_is_about() {
    let database = sluice_tests::Database::create(sluice_tests::Service::Results).await;
    let (sql, service) = (database.sql().await, Database::parse(&database.service_url()).unwrap());
    let service = service.connect(SERVING).await.unwrap();
    sql.batch_execute(A_ROW_A_WEEK).await.unwrap();
    let of = "SELECT date_created::text, first_id::text, to_char(date_trunc('week', date_created AT TIME ZONE 'UTC'), '_YYYYMMDD')
              FROM expired ORDER BY date_created OFFSET 2 LIMIT 1";
    let (date, id, week): (String, String, String) = {
        let row = sql.query_one(of, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    let due = format!(
        "INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config, block)
         VALUES ('{date}', '{id}', 'acme', 'other', '{{{id}}}', '00000000-0000-0000-0000-000000000000', '{id}')"
    );
    sql.batch_execute(&due).await.unwrap();
    let [expire, gone] = statements!["expire", "expired_gone"];
    let nil = "00000000-0000-0000-0000-000000000000";
    let expire = (expire, format!("'acme', '-infinity', '{nil}', 86400"), "data_block", "true");
    let gone_values = format!("'acme', '{{{date}}}', '{{poll}}', '{{{id}}}'");
    let gone = (gone, gone_values, "expired", "date_deleted IS NULL");
    for ((name, statement), values, table, left) in [expire, gone] {
        let plan = carried_out(&service, statement, &values).await;
        let mut weeks = BTreeSet::new();
        looked_into(&plan, table, &mut weeks);
        assert_eq!(weeks, [format!("{table}{week}")].into(), "{name}");
        let left = format!("SELECT count(*) FROM {table} WHERE {left}");
        let left: i64 = sql.query_one(&left, &[]).await.unwrap().get(0);
        assert_eq!(left, 4, "{name} changed one, and none at the same place of another week");
    }
}
