//! Weeks of long ago: the partitions that are empty are dropped, one at a time, and nobody
//! is kept waiting for what is not.

use sluice_tests::{Database, Service};
use tokio_postgres::Client;

const DROP: &str = include_str!("../../../crates/results/src/sql/drop_empty_weeks.sql");
const LONG_AGO: &str = "now() - interval '400 days'";

/// A database with the partitions of a week of long ago, and who drops them.
async fn with_an_old_week() -> (Database, Client, Client) {
    let database = Database::create(Service::Results).await;
    let (sql, dropping) = (database.sql().await, database.sql().await);
    sql.batch_execute(&format!("SELECT make_week({LONG_AGO})")).await.unwrap();
    // As the service's sessions have it.
    dropping.batch_execute("SET lock_timeout = '1s'").await.unwrap();
    (database, sql, dropping)
}

async fn dropped(dropping: &Client) -> i32 {
    dropping.query_one(DROP, &[]).await.unwrap().get(0)
}

/// The tables that a session, whose transaction is open, keeps everybody from.
async fn locked(dropping: &Client) -> Vec<String> {
    let locks = "SELECT regexp_replace(c.relname, '\\d+', 'week') FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
                 WHERE l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND c.relkind IN ('r', 'p')
                   AND c.relnamespace = current_schema()::regnamespace
                 ORDER BY 1";
    dropping.query(locks, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_week_with_rows_is_looked_at_and_never_locked() {
    let (_database, sql, dropping) = with_an_old_week().await;
    let rows = format!(
        "INSERT INTO result (date_created, size, id, checksum, organisation, definition, poll, task, identifier, type)
         SELECT {LONG_AGO}, 1, uuid_floor({LONG_AGO}), gen_random_uuid(), 'acme', 'd', 'p', '', 'i', 't';
         INSERT INTO data_block (id, size, organisation, bytes) SELECT uuid_floor({LONG_AGO}), 1, 'acme', 'x';
         INSERT INTO consumed (date_created, date_consumed, organisation, poll, ids)
         SELECT {LONG_AGO}, now(), 'acme', 'p', '{{}}';
         INSERT INTO expired (date_created, first_id, storage_config, organisation, poll, ids)
         SELECT {LONG_AGO}, gen_random_uuid(), gen_random_uuid(), 'acme', 'p', '{{}}'"
    );
    sql.batch_execute(&rows).await.unwrap();
    dropping.batch_execute("BEGIN").await.unwrap();
    assert_eq!(dropped(&dropping).await, 0);
    assert!(locked(&dropping).await.is_empty(), "{:?}", locked(&dropping).await);
}

#[tokio::test]
async fn empty_weeks_go_one_at_a_time_and_only_when_nobody_is_in_the_way() {
    let (_database, sql, dropping) = with_an_old_week().await;
    sql.batch_execute("BEGIN; SELECT FROM result").await.unwrap();
    assert_eq!(dropped(&dropping).await, 0, "somebody reads: left for another time, and no error");
    sql.batch_execute("COMMIT").await.unwrap();
    dropping.batch_execute("BEGIN").await.unwrap();
    assert_eq!(dropped(&dropping).await, 1);
    assert_eq!(locked(&dropping).await, ["result", "result_default"], "and what is no more");
    dropping.batch_execute("COMMIT; BEGIN").await.unwrap();
    assert!(locked(&dropping).await.is_empty());
    // One replica at a time.
    sql.batch_execute("BEGIN").await.unwrap();
    assert_eq!((dropped(&dropping).await, dropped(&sql).await), (1, 0));
    sql.batch_execute("COMMIT").await.unwrap();
    dropping.batch_execute("COMMIT").await.unwrap();
    let mut left = Vec::new();
    for _ in 0..3 {
        left.push(dropped(&dropping).await);
    }
    assert_eq!(left, [1, 1, 0]);
}
