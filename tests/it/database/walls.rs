//! The second wall between tenants, in the results database itself: what a session
//! that works for one of them can see and do, whatever the statement says; and how
//! little the services' own users may.

use sluice_results::sessions::{SERVING, TENANTS};
use sluice_service::postgres::{Database, state};
use sluice_tests::{Pair, Service, Tenant};
use tokio_postgres::Client;

use crate::support::*;

/// Tables that hold organisations' things, asked of the catalogue.
const OF_ORGANISATIONS: &str = "
    SELECT c.relname, c.relrowsecurity,
           array(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS policies
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attname = 'organisation' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relnamespace = 'public'::regnamespace
    ORDER BY 1";

async fn tables(owner: &Client) -> Vec<String> {
    owner.query(OF_ORGANISATIONS, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_table_with_an_organisation_is_behind_the_wall() {
    let pair = Pair::start().await;
    let owner = pair.results_database.sql().await;
    let rows = owner.query(OF_ORGANISATIONS, &[]).await.unwrap();
    assert!(rows.len() >= 10, "{} tables", rows.len());
    for row in rows {
        let (table, on, policies): (&str, bool, Vec<String>) = (row.get(0), row.get(1), row.get(2));
        assert!(on && policies == ["service", "tenant"], "{table}: {on} {policies:?}");
    }
}

/// Whatever a service's users own or may do beyond rows: nothing.
#[tokio::test]
async fn services_run_as_users_that_own_nothing() {
    let pair = Pair::start().await;
    for (service, database) in
        [(Service::Ingest, &pair.ingest_database), (Service::Results, &pair.results_database)]
    {
        let owner = database.sql().await;
        let session = Database::parse(&database.service_url()).unwrap().connect(SERVING).await.unwrap();
        let user: String = session.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
        assert_eq!(user, format!("sluice_{}", service.name()));
        let own = "SELECT count(*) FROM pg_class WHERE pg_has_role($1, relowner, 'MEMBER')";
        assert_eq!(owner.query_one(own, &[&user]).await.unwrap().get::<_, i64>(0), 0);
        let may = "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = $1";
        assert!(!owner.query_one(may, &[&user]).await.unwrap().get::<_, bool>(0));
        let table = if service == Service::Ingest { "outbox" } else { "available" };
        for forbidden in [
            format!("TRUNCATE {table}"),
            format!("DROP TABLE {table}"),
            format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
            "CREATE TABLE mine (id int)".into(),
            "UPDATE refinery_schema_history SET version = 99".into(),
            "SELECT let_serve('postgres')".into(),
        ] {
            let refused = session.batch_execute(&forbidden).await.expect_err(&forbidden);
            assert_eq!(state(&refused), "42501", "{forbidden}");
        }
    }
}

async fn count(sql: &Client, table: &str, of: &str) -> i64 {
    let all = format!("SELECT count(*) FROM {table} WHERE {of}");
    sql.query_one(&all, &[]).await.unwrap().get(0)
}

/// Rows of two organisations in every table: by the API where it makes them, the rest
/// as copies of what is there.
async fn filled() -> (Pair, Client, Client) {
    let pair = builder().start().await;
    for (tenant, organisation) in [(Tenant::Acme, "acme"), (Tenant::Globex, "globex")] {
        let clients = pair.clients(tenant);
        let plain =
            sluice_proto::ingest::v1::Definition { organisation: organisation.into(), ..definition("plain") };
        put(&clients, plain).await;
        publish(&clients, (0..4).map(|n| json("plain", &n.to_string())).collect()).await;
    }
    drained(&pair).await;
    let owner = pair.results_database.sql().await;
    for organisation in ["acme", "globex"] {
        let rest = format!(
            "INSERT INTO consumed SELECT date_created, now(), organisation, poll, ids FROM batch WHERE organisation = '{organisation}';
             INSERT INTO expired SELECT date_created, now(), first_id, storage_config, organisation, poll, ids FROM batch WHERE organisation = '{organisation}';
             INSERT INTO upload (date_touched, id, storage_config, state, organisation)
             VALUES (now(), gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 1, '{organisation}');
             INSERT INTO file_chunk VALUES (gen_random_uuid(), 0, '{organisation}', '');
             INSERT INTO storage_config (date_created, id, retention_seconds, signed_urls_seconds, state,
                 signed_urls_enabled, managed, organisation, url)
             VALUES (now(), gen_random_uuid(), 0, 0, 1, false, false, '{organisation}', 'db:');
             INSERT INTO storage_default VALUES ('{organisation}', gen_random_uuid());"
        );
        owner.batch_execute(&rest).await.unwrap();
    }
    let url = pair.results_database.service_url();
    let tenant = Database::parse(&url).unwrap().connect(TENANTS).await.unwrap();
    (pair, owner, tenant)
}

#[tokio::test]
async fn a_session_sees_and_changes_one_organisations_rows_whatever_it_asks_for() {
    let (_pair, owner, tenant) = filled().await;
    let tables = tables(&owner).await;
    let readable = |table: &str| table != "cleanup_progress";
    // Before it is said whose, there is nothing; afterwards, those and no others.
    for said in ["", "acme", "nobody"] {
        if !said.is_empty() {
            tenant.query("SELECT set_config('sluice.organisation', $1, false)", &[&said]).await.unwrap();
        }
        for table in tables.iter().filter(|table| readable(table)) {
            let theirs = count(&owner, table, &format!("organisation = '{said}'")).await;
            assert_eq!(count(&tenant, table, "true").await, theirs, "{table} as {said:?}");
            assert_eq!(count(&tenant, table, "organisation = 'globex'").await, 0, "{table}");
            assert!(said != "acme" || theirs > 0, "{table} has rows to hide");
            assert!(count(&owner, table, "organisation = 'globex'").await > 0, "{table} has rows to hide");
        }
    }
    tenant.query("SELECT set_config('sluice.organisation', 'acme', false)", &[]).await.unwrap();
    // What it may change of its own it may not of another's.
    for (own, changed) in [
        ("UPDATE available SET ids = '{}'", 1),
        ("DELETE FROM available", 1),
        ("UPDATE storage_config SET url = url", 1),
        ("DELETE FROM storage_default", 1),
    ] {
        assert_eq!(tenant.execute(own, &[]).await.unwrap(), changed, "{own}");
    }
    for of in ["available", "storage_config", "storage_default"] {
        assert!(count(&owner, of, "organisation = 'globex'").await > 0, "{of}");
    }
    let another_s = [
        "INSERT INTO consumed VALUES (now(), now(), 'globex', 'poll', '{}')",
        "UPDATE available SET organisation = 'globex'",
        "UPDATE storage_config SET organisation = 'globex'",
        "INSERT INTO storage_default VALUES ('globex', gen_random_uuid())",
        "DELETE FROM result",
        "UPDATE result SET poll = ''",
        "UPDATE batch SET poll = ''",
        "SELECT * FROM cleanup_progress",
        "SELECT * FROM result_default",
        "DELETE FROM consumed",
    ];
    for forbidden in another_s {
        let refused = tenant.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(state(&refused), "42501", "{forbidden}");
    }
}

/// One session that serves two tenants in turn keeps nothing of the one for the other.
#[tokio::test]
async fn a_session_that_goes_from_hand_to_hand_serves_each_its_own() {
    let pair = builder().flag(Service::Results, "database-connections", "1").start().await;
    let mut all = Vec::new();
    for (tenant, organisation) in [(Tenant::Acme, "acme"), (Tenant::Globex, "globex")] {
        let clients = pair.clients(tenant);
        let plain =
            sluice_proto::ingest::v1::Definition { organisation: organisation.into(), ..definition("plain") };
        put(&clients, plain).await;
        let observations: Vec<_> =
            (0..10).map(|n| json("plain", &format!(r#"["{organisation}",{n}]"#))).collect();
        let said = publish(&clients, observations.clone()).await;
        all.push((clients, accepted(&observations, &said)));
    }
    drained(&pair).await;
    let mut callers = tokio::task::JoinSet::new();
    for (clients, accepted) in all.into_iter().cycle().take(8) {
        callers.spawn(async move {
            for _ in 0..10 {
                are_the_results(&clients, &accepted).await;
            }
        });
    }
    callers.join_all().await;
}
