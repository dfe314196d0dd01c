//! How much of definitions is kept: so much of each organisation, and what was deleted for
//! a day.

use std::collections::BTreeSet;

use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Service, Tenant};
use tonic::Code;

use crate::{
    ingest::definitions::{delete, reason, try_put},
    support::*,
};

#[tokio::test]
async fn an_organisation_has_so_many_definitions_and_so_many_bytes_of_texts() {
    let bounds = builder().flag(Service::Ingest, "organisation-definitions-max", "3").flag(
        Service::Ingest,
        "organisation-schema-bytes-max",
        "40",
    );
    let pair = bounds.start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let with_schema = |path: &str, bytes: usize| Definition {
        json_schema: format!("{{{}}}", " ".repeat(bytes - 2)),
        ..definition(path)
    };
    let too_many = (Code::ResourceExhausted, "TOO_MANY_DEFINITIONS".to_owned());
    let refused = async |definition| reason(&try_put(&acme, definition).await.unwrap_err());
    put(&acme, with_schema("a", 19)).await;
    assert_eq!(refused(with_schema("b", 22)).await, too_many);
    put(&acme, with_schema("b", 21)).await;
    assert_eq!(refused(with_schema("c", 2)).await, too_many);
    assert_eq!(refused(Definition { description: "x".into(), ..definition("c") }).await, too_many);
    assert_eq!(refused(Definition { unique_by: vec!["/".into()], ..definition("c") }).await, too_many);
    put(&acme, definition("c")).await;
    assert_eq!(refused(definition("d")).await, too_many);
    // What it replaces does not count, nor do others' definitions, nor deleted ones.
    put(&acme, with_schema("a", 18)).await;
    put(&globex, Definition { organisation: "globex".into(), ..with_schema("d", 40) }).await;
    delete(&acme, "b", "").await.unwrap();
    put(&acme, with_schema("d", 22)).await;

    // What is there beyond the bounds may be changed, and get shorter.
    let more = "INSERT INTO definition
                SELECT (d2).* FROM (
                    SELECT jsonb_populate_record(d, jsonb_build_object('path', d.path || n, 'id', gen_random_uuid())) d2
                    FROM definition d, generate_series(1, 3) n WHERE organisation = 'acme' AND NOT deleted
                ) more";
    pair.ingest_database.sql().await.execute(more, &[]).await.unwrap();
    put(&acme, Definition { disabled: true, ..with_schema("a", 18) }).await;
    put(&acme, with_schema("d", 21)).await;
    assert_eq!(refused(with_schema("d", 22)).await, too_many);
}

#[tokio::test]
async fn what_was_deleted_is_forgotten_after_a_day() {
    let mut pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let (forget, changed) = (
        include_str!("../../../crates/ingest/src/sql/forget_deleted.sql"),
        include_str!("../../../crates/ingest/src/sql/select_changed_definitions.sql"),
    );
    for path in ["kept", "old", "young"] {
        put(&acme, definition(path)).await;
    }
    delete(&acme, "old", "").await.unwrap();
    delete(&acme, "young", "").await.unwrap();
    let sql = pair.ingest_database.sql().await;
    let ago = "UPDATE definition
               SET date_updated = now() - make_interval(hours => CASE path WHEN 'young' THEN 23 ELSE 25 END)";
    sql.execute(ago, &[]).await.unwrap();
    // Who follows is told of both, who begins has no use for them.
    let known = async |since: i64| {
        let rows = sql.query(changed, &[&since]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>("path")).collect::<BTreeSet<_>>()
    };
    assert_eq!(known(0).await, ["kept", "old", "young"].map(String::from).into());
    assert_eq!(known(-1).await, ["kept"].map(String::from).into());
    assert_eq!(sql.execute(forget, &[]).await.unwrap(), 1);
    assert_eq!(known(0).await, ["kept", "young"].map(String::from).into());
    pair.ingest[0].stop().await;
    pair.ingest[0].restart(false).await;
    pair.ingest[0].serving().await;
    let acme = pair.clients(Tenant::Acme);
    let said = publish(&acme, ["kept", "old", "young"].map(|path| json(path, "1")).to_vec()).await;
    let unknown = (Outcome::Error, "UNKNOWN_DEFINITION");
    assert_eq!(told(&said), [(Outcome::Success, ""), unknown, unknown]);
}

/// Then it rules nowhere: not on a replica that knew what was there before either.
#[tokio::test]
async fn a_definition_that_can_not_be_read_any_more_is_not_in_force() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("a")).await;
    put(&acme, definition("b")).await;
    assert_eq!(publish_one(&acme, json("a", "1")).await.outcome(), Outcome::Success);
    let by_hand = "WITH next AS (UPDATE registry_revision SET revision = revision + 1 RETURNING revision)
        UPDATE definition SET unique_by = '{no pointer}', revision = next.revision FROM next WHERE path = 'a'";
    pair.ingest_database.sql().await.execute(by_hand, &[]).await.unwrap();
    // What is put now comes after it, and is followed at once.
    put(&acme, definition("c")).await;
    let said = publish(&acme, ["a", "b", "c"].map(|path| json(path, "2")).to_vec()).await;
    let success = (Outcome::Success, "");
    assert_eq!(told(&said), [(Outcome::Error, "UNKNOWN_DEFINITION"), success, success]);
}
