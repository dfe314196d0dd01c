//! Schemas of earlier builds, and what an earlier build left: `migrate` brings them
//! up to date, nothing is lost, and a service waits until it is done.

use std::process::{Command, Output};

use sluice::keys::{NewToken, append_entries};
use sluice_proto::{
    ingest::v1::Outcome,
    results::v1::{AcknowledgeResultRequest, GetResultRequest, result::State},
};
use sluice_service::{auth::INTAKE_SCOPE, postgres::state};
use sluice_tests::{Database, Pair, Replica, Service, Tenant, eventually, program, scratch};
use tokio_postgres::Client;

use crate::support::*;

/// The newest schema of a service.
const fn newest(service: Service) -> i32 {
    match service {
        Service::Ingest => 6,
        Service::Results => 9,
    }
}

fn migrate(service: Service, args: &[String]) -> Output {
    let mut command = Command::new(program());
    command.args(["serve", service.name(), "migrate"]).args(args);
    command.output().unwrap()
}

fn urls(database: &Database) -> Vec<String> {
    vec![
        format!("--database-url={}", database.service_url()),
        format!("--database-owner-url={}", database.url()),
    ]
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// Copies rows into a table that has other columns than where they come from.
async fn copy(from: &Client, rows: &str, to: &Client, table: &str) {
    let read = format!("SELECT coalesce(json_agg(t), '[]')::text FROM {rows} t");
    let rows: String = from.query_one(&read, &[]).await.unwrap().get(0);
    let write = format!(
        "INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1::text::json)
         ON CONFLICT DO NOTHING"
    );
    to.execute(&write, &[&rows]).await.unwrap();
}

/// What was published before, and is to be found afterwards.
struct Left {
    pair: Pair,
    recorded: Contents,
    consumed: String,
    expired: String,
    waiting: Contents,
}

/// A pair that has recorded some results, of which one is consumed and one expired, and
/// has accepted others that are still in its outbox.
async fn left() -> Left {
    let mut pair = builder().processes().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, unique("alerts")).await;
    let batch = |name: &str| -> Vec<_> {
        (0..5)
            .map(|n| marked("alerts", &format!("{name}/{n}"), &format!(r#"{{"keys":["{name}",{n}]}}"#)))
            .collect()
    };
    let first = batch("first");
    let recorded = accepted(&first, &publish(&acme, first.clone()).await);
    drained(&pair).await;
    let [consumed, expired] = [0, 1].map(|n| recorded.keys().nth(n).unwrap().clone());
    let request = AcknowledgeResultRequest { id: consumed.clone(), ..AcknowledgeResultRequest::default() };
    acme.results.clone().acknowledge_result(request).await.unwrap();
    pair.results[0].kill();
    let second = batch("second");
    let waiting = accepted(&second, &publish(&acme, second.clone()).await);
    assert_eq!((recorded.len(), waiting.len()), (5, 5));
    pair.ingest[0].kill();
    let of_it = format!("FROM result WHERE id = '{expired}'");
    let statements = format!(
        "UPDATE available SET ids = array_remove(ids, '{expired}');
         INSERT INTO expired SELECT date_created, now(), id, gen_random_uuid(), organisation, poll, ARRAY[id] {of_it}"
    );
    pair.results_database.sql().await.batch_execute(&statements).await.unwrap();
    Left { pair, recorded, consumed, expired, waiting }
}

/// The databases of an earlier build with all that was left, migrated.
async fn migrated_from(left: &Left, version: i32) -> (Database, Database) {
    let of_ingest = version.min(newest(Service::Ingest));
    let ingest = Database::of_version(Service::Ingest, of_ingest).await;
    let results = Database::of_version(Service::Results, version).await;
    let (from, to) = (left.pair.ingest_database.sql().await, ingest.sql().await);
    to.batch_execute("DELETE FROM registry_revision; DELETE FROM gate_slot").await.unwrap();
    for table in [
        "definition",
        "registry_revision",
        "gate_slot",
        "marker",
        "unique_window",
        "throttle_counter",
        "instance",
        "outbox",
    ] {
        copy(&from, table, &to, table).await;
    }
    let (from, to) = (left.pair.results_database.sql().await, results.sql().await);
    for table in ["result", "data_block", "batch", "available", "consumed", "expired"] {
        let rows = match table {
            "batch" if version < 4 => continue,
            // Until then each result had rows of its own.
            "available" | "consumed" if version < 4 => format!("(SELECT *, unnest(ids) AS id FROM {table})"),
            "expired" if version < 5 => format!("(SELECT *, unnest(ids) AS id FROM {table})"),
            _ => table.to_owned(),
        };
        copy(&from, &rows, &to, table).await;
    }
    for (service, database, version) in
        [(Service::Ingest, &ingest, of_ingest), (Service::Results, &results, version)]
    {
        let (code, text) = said(&migrate(service, &urls(database)));
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(text.lines().count(), usize::try_from(newest(service) - version).unwrap() + 1, "{text}");
        assert!(text.ends_with(&format!("the schema has version {}\n", newest(service))), "{text}");
    }
    (ingest, results)
}

/// All results, and those that are in a batch whose data is kept where theirs is, and that
/// has expired as a whole or not at all.
const IN_BATCHES: &str = "
    SELECT (SELECT count(*) FROM result), count(*)
    FROM batch AS b CROSS JOIN LATERAL unnest(b.ids) AS member(id)
    JOIN result AS r ON r.organisation = b.organisation AND r.id = member.id AND r.date_created = b.date_created
    LEFT JOIN expired AS e ON e.organisation = b.organisation AND e.first_id = b.first_id
    WHERE r.poll = b.poll AND r.block IS NOT DISTINCT FROM b.block
      AND coalesce(r.storage_config, '00000000-0000-0000-0000-000000000000') = b.storage_config AND (e.ids IS NULL OR e.ids = b.ids)";

#[tokio::test]
async fn what_earlier_builds_left_is_there_after_migrating() {
    let left = left().await;
    for version in 1..newest(Service::Results) {
        let (ingest, results) = migrated_from(&left, version).await;
        let pair = builder().on(ingest, results).start().await;
        let acme = pair.clients(Tenant::Acme);
        // What was on its way arrives, what was consumed stays so.
        drained(&pair).await;
        let mut expected = left.recorded.clone();
        let consumed = expected.remove(&left.consumed).unwrap();
        expected.remove(&left.expired).unwrap();
        expected.extend(left.waiting.clone());
        are_the_results(&acme, &expected).await;
        assert_eq!(download(&acme, &left.consumed).await, consumed);
        let request = GetResultRequest { id: left.expired.clone(), ..GetResultRequest::default() };
        let expired = acme.results.clone().get_result(request).await.unwrap().into_inner().result.unwrap();
        assert_eq!(expired.state(), State::Expired);
        // The clean-up finds everything where the batches say it is.
        let sql = pair.results_database.sql().await;
        let (results, fitting): (i64, i64) = {
            let row = sql.query_one(IN_BATCHES, &[]).await.unwrap();
            (row.get(0), row.get(1))
        };
        assert_eq!((results, fitting), (10, 10));
        // Markers and windows hold.
        let again = marked("alerts", "first/0", r#"{"keys":["first",0]}"#);
        let similar = marked("alerts", "other", r#"{"keys":["second",3]}"#);
        let said = publish(&acme, vec![again, similar, marked("alerts", "new", r#"{"keys":[1]}"#)]).await;
        assert_eq!(kinds(&said), [Outcome::Duplicate, Outcome::Suppressed, Outcome::Success], "{version}");
        assert!(
            left.recorded.contains_key(&said[0].ingest_id) && left.waiting.contains_key(&said[1].ingest_id)
        );
    }
}

#[tokio::test]
async fn an_earlier_build_can_record_nothing_once_batches_say_where_data_is() {
    let sql = Database::create(Service::Results).await.sql().await;
    let before = "INSERT INTO batch (date_created, first_id, organisation, poll, ids)
                  VALUES (now(), gen_random_uuid(), 'acme', 'poll', '{}')";
    let error = sql.execute(before, &[]).await.unwrap_err();
    // Of none of the classes that blame a value: ingest would set it aside.
    assert_eq!(state(&error), "SL003");
}

/// A row of the outbox as the first build wrote it, byte for byte. It stays as it is:
/// should the format change, a row of the new one is added beside it.
const OUTBOX_FORMAT_1: &str = include_str!("outbox_format_1.hex");

#[tokio::test]
async fn a_row_of_the_first_outbox_format_is_recorded() {
    let pair = Pair::start().await;
    let sql = pair.ingest_database.sql().await;
    let insert = "INSERT INTO outbox (id, organisation, format, results, traceparent, payload)
                  VALUES (gen_random_uuid(), 'acme', 1, 2, '', decode($1, 'hex'))";
    sql.execute(insert, &[&OUTBOX_FORMAT_1.trim()]).await.unwrap();
    drained(&pair).await;
    let acme = pair.clients(Tenant::Acme);
    let records = list(&acme).await;
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let labels = (record.definition.as_str(), record.poll.as_str(), record.r#type.as_str());
            (labels, record.data.clone().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            (("scans/tls", "monday", "application/json"), r#"{"host":"a.example","port":443}"#.into()),
            (("scans/tls", "monday", "text/plain"), "as it was sent".into())
        ]
    );
    assert_eq!(records[0].identifier, "a.example");
}

#[tokio::test]
async fn a_service_waits_until_its_schema_is_there() {
    let files = scratch("waiting");
    let (keys, intake) = (files.join("keys.toml"), files.join("intake"));
    let token = NewToken::new(None, [INTAKE_SCOPE]);
    append_entries(&keys, &[token.entry]).unwrap();
    std::fs::write(&intake, token.text).unwrap();
    for (service, behind) in
        [(Service::Ingest, newest(Service::Ingest)), (Service::Ingest, 1), (Service::Results, 1)]
    {
        let version = newest(service) - behind;
        let database = Database::of_version(service, version).await;
        // The user that serves has no rights there yet: those come with the schema.
        let mut flags = vec![format!("--database-url={}", database.url())];
        flags.push(format!("--keys-file={}", keys.display()));
        flags.push("--shutdown-wait-seconds=0".into());
        if service == Service::Ingest {
            flags.push("--results-url=http://127.0.0.1:1".into());
            flags.push(format!("--results-token-file={}", intake.display()));
        }
        let mut replica = Replica::start_process(service, flags, vec![]).await;
        let missing = if version == 0 { "the schema is missing, version " } else { "" };
        let reason = format!("{missing}{} is needed", newest(service));
        eventually("the reason in the log", || async { replica.log().contains(&reason).then_some(()) }).await;
        assert!(!sluice::connection::is_serving(&replica.url()).await);
        let (code, text) = said(&migrate(service, &urls(&database)));
        assert_eq!(code, Some(0), "{text}");
        replica.serving().await;
        replica.stop().await;
    }
}

#[tokio::test]
async fn migrating_twice_at_once_or_again_changes_nothing_more() {
    for service in [Service::Ingest, Service::Results] {
        let database = Database::of_version(service, 0).await;
        let at_once: Vec<_> = (0..3)
            .map(|_| {
                let args = urls(&database);
                tokio::task::spawn_blocking(move || said(&migrate(service, &args)))
            })
            .collect();
        let mut applied: i32 = 0;
        for one in at_once {
            let (code, text) = one.await.unwrap();
            assert_eq!(code, Some(0), "{text}");
            let lines = text.lines().filter(|line| line.starts_with("applied V"));
            applied += i32::try_from(lines.count()).unwrap();
        }
        assert_eq!(applied, newest(service));
        let (code, text) = said(&migrate(service, &urls(&database)));
        assert_eq!((code, text), (Some(0), format!("the schema has version {}\n", newest(service))));
    }
}

/// As it is for whoever goes back to the version before.
#[tokio::test]
async fn a_newer_schema_is_left_as_it_is_and_served_from() {
    let (ingest, results) =
        (Database::create(Service::Ingest).await, Database::create(Service::Results).await);
    for (service, database) in [(Service::Ingest, &ingest), (Service::Results, &results)] {
        let newer = "INSERT INTO refinery_schema_history
                     SELECT version + 1, 'of_the_next', applied_on, checksum FROM refinery_schema_history
                     ORDER BY version DESC LIMIT 1";
        assert_eq!(database.sql().await.execute(newer, &[]).await.unwrap(), 1);
        let done = said(&migrate(service, &urls(database)));
        assert_eq!(done, (Some(0), format!("the schema has version {}\n", newest(service) + 1)));
    }
    let pair = builder().on(ingest, results).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let said = publish_one(&acme, json("plain", "1")).await;
    adds_up(&pair, &acme, &[(said.ingest_id, "1".into())].into()).await;
}

#[tokio::test]
async fn what_stands_in_the_way_of_migrating_is_said() {
    let output = migrate(Service::Results, &["--nonsense=1".into()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("database_url: must be given") && text.contains("--nonsense"), "{text}");
    // The rest of a service's settings may be there, too.
    let nobody = "--database-url=postgres://nobody:secret@127.0.0.1:1/none".to_owned();
    let output = migrate(Service::Ingest, &[nobody, "--lanes=2".into()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Connection refused") && !text.contains("secret"), "{text}");
    // The user that serves may not.
    let database = Database::of_version(Service::Results, newest(Service::Results) - 1).await;
    let output = migrate(Service::Results, &[format!("--database-url={}", database.service_url())]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("permission denied"), "{text}");
}

/// The roles may be a superuser's business, and the owner nobody's superuser: then the
/// owner's URL is all that migrating needs.
#[tokio::test]
async fn an_owner_that_may_create_no_role_is_enough_where_the_roles_are() {
    for service in [Service::Ingest, Service::Results] {
        let database = Database::of_version(service, 0).await;
        let owner = format!("{}_owner", database.name());
        let sql = database.sql().await;
        let made = format!(
            "CREATE ROLE {owner} LOGIN PASSWORD 'x'; GRANT CREATE, USAGE ON SCHEMA public TO {owner};
             ALTER DATABASE {} OWNER TO {owner}",
            database.name()
        );
        sql.batch_execute(&made).await.unwrap();
        let port = sluice_tests::cluster().port();
        let url = format!("postgres://{owner}:x@127.0.0.1:{port}/{}", database.name());
        let output = migrate(service, &[format!("--database-owner-url={url}")]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said(&output).0, Some(0), "{text}");
        assert!(said(&output).1.ends_with(&format!("the schema has version {}\n", newest(service))));
    }
}

/// The default: one user, who may create roles and is no superuser, owns everything, and is
/// who tenants' calls are made by. It is already a member of the tenants' role in a way that
/// may not be enough, here through another role (since PostgreSQL 16 as who made it).
#[tokio::test]
async fn one_user_that_migrates_and_serves_may_become_the_tenants_role_by_itself() {
    let database = Database::of_version(Service::Results, 0).await;
    let user = format!("{}_user", database.name());
    let sql = database.sql().await;
    let made = format!(
        "CREATE ROLE {user}_group IN ROLE sluice_results_tenant;
         CREATE ROLE {user} LOGIN CREATEROLE PASSWORD 'x' IN ROLE {user}_group;
         GRANT CREATE, USAGE ON SCHEMA public TO {user};
         ALTER DATABASE {} OWNER TO {user}",
        database.name()
    );
    sql.batch_execute(&made).await.unwrap();
    let url = format!("postgres://{user}:x@127.0.0.1:{}/{}", database.port(), database.name());
    let output = migrate(Service::Results, &[format!("--database-url={url}")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said(&output).0, Some(0), "{text}");
    let own = "SELECT count(*) FROM pg_auth_members
               WHERE roleid = 'sluice_results_tenant'::regrole AND member = $1::text::regrole";
    assert_eq!(sql.query_one(own, &[&user]).await.unwrap().get::<_, i64>(0), 1);
    sql.batch_execute(&format!("REVOKE {user}_group FROM {user}")).await.unwrap();
    let ingest = Database::create(Service::Ingest).await;
    let pair = builder().on(ingest, Database::at(url.clone(), url)).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let said = publish_one(&acme, json("plain", "1")).await;
    adds_up(&pair, &acme, &[(said.ingest_id, "1".into())].into()).await;
}
