//! Databases whose tables are published, as for an upgrade by replication, or for whoever
//! follows changes: everything can still be changed.

use sluice_proto::results::v1::AcknowledgeResultRequest;
use sluice_tests::{Database, Service, Tenant};
use tokio_postgres::Client;

use crate::results::shelf::{Shelf, new};

/// Tables with rows that nothing tells apart for who follows changes.
const WITHOUT_IDENTITY: &str = "
    SELECT c.relname FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
      AND NOT (c.relreplident = 'f' OR EXISTS (
        SELECT FROM pg_index AS i WHERE i.indrelid = c.oid
          AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)))
    ORDER BY 1";

async fn without_identity(sql: &Client) -> Vec<String> {
    sql.query(WITHOUT_IDENTITY, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_table_has_a_replica_identity() {
    for service in [Service::Ingest, Service::Results] {
        let sql = Database::create(service).await.sql().await;
        assert_eq!(without_identity(&sql).await, [""; 0], "of {}", service.name());
    }
}

#[tokio::test]
async fn every_week_that_is_made_has_a_replica_identity() {
    let sql = Database::create(Service::Results).await.sql().await;
    let made = sql.query("SELECT * FROM make_week(now() + interval '100 days')", &[]).await.unwrap();
    assert!(made.iter().all(|row| row.get::<_, &str>("state") == "created"));
    assert_eq!(without_identity(&sql).await, [""; 0]);
}

#[tokio::test]
async fn results_of_a_published_database_are_forgotten() {
    let shelf = Shelf::start().await;
    let sql = shelf.0.results_database.sql().await;
    sql.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
    let result = new("old");
    shelf.record(std::slice::from_ref(&result)).await;
    let request = AcknowledgeResultRequest { organisation: String::new(), id: result.id.clone() };
    assert!(shelf.results(Tenant::Acme).acknowledge_result(request).await.unwrap().into_inner().changed);
    shelf.expire(&result.id).await;
    sql.batch_execute("UPDATE expired SET date_deleted = now() - interval '366 days'").await.unwrap();
    let forget = include_str!("../../../crates/results/src/sql/forget.sql");
    assert_eq!(sql.query_one(forget, &[]).await.unwrap().get::<_, i64>("forgotten"), 1);
    let left = "SELECT (SELECT count(*) FROM result) + (SELECT count(*) FROM batch)
                     + (SELECT count(*) FROM consumed) + (SELECT count(*) FROM expired)";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}
