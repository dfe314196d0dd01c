//! Definitions: keeping them, refusing bad ones, and their effect on every
//! replica for every request that arrives after the change was answered.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{
    Definition, DeleteDefinitionRequest, GetDefinitionRequest, ListDefinitionsRequest, Outcome,
    PutDefinitionRequest, ValidateDefinitionRequest,
};
use sluice_tests::{Pair, Tenant};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::*;

async fn get(clients: &Clients, path: &str) -> Result<Definition, Status> {
    let request = GetDefinitionRequest { path: path.into(), ..GetDefinitionRequest::default() };
    let answer = clients.definitions.clone().get_definition(request).await?;
    Ok(answer.into_inner().definition.unwrap())
}

pub async fn try_put(clients: &Clients, definition: Definition) -> Result<bool, Status> {
    let request = PutDefinitionRequest { definition: Some(definition) };
    Ok(clients.definitions.clone().put_definition(request).await?.into_inner().created)
}

pub async fn delete(clients: &Clients, path: &str, etag: &str) -> Result<String, Status> {
    let request = DeleteDefinitionRequest {
        path: path.into(),
        etag: etag.into(),
        ..DeleteDefinitionRequest::default()
    };
    Ok(clients.definitions.clone().delete_definition(request).await?.into_inner().id)
}

pub fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
}

fn system_wide(path: &str) -> Definition {
    Definition { organisation: String::new(), ..definition(path) }
}

#[tokio::test]
async fn a_definition_is_kept_as_put_until_it_is_deleted() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let full = Definition {
        description: "wer klopft?".into(),
        unique_by: vec!["/keys/ip".into(), String::new()],
        throttle_count: 7,
        throttle_period: seconds(60),
        json_schema: r#"{"type":"object"}"#.into(),
        storage_config: uuid::Uuid::now_v7().to_string(),
        disabled: true,
        ..unique("security/ssh/invalid-user")
    };
    assert!(try_put(&acme, full.clone()).await.unwrap(), "created");
    let kept = get(&acme, &full.path).await.unwrap();
    let output_only = |of: &Definition| Definition {
        id: of.id.clone(),
        etag: of.etag.clone(),
        date_created: of.date_created,
        date_updated: of.date_updated,
        ..full.clone()
    };
    assert_eq!(kept, output_only(&kept));
    assert!(kept.id.parse::<uuid::Uuid>().is_ok() && !kept.etag.is_empty() && kept.date_created.is_some());
    assert!(!try_put(&acme, full.clone()).await.unwrap(), "overwritten");
    let again = get(&acme, &full.path).await.unwrap();
    assert_eq!((&again.id, again.date_created), (&kept.id, kept.date_created));
    assert_ne!(again.etag, kept.etag);
    let by_id = GetDefinitionRequest { id: kept.id.clone(), ..GetDefinitionRequest::default() };
    let by_id = acme.definitions.clone().get_definition(by_id).await.unwrap().into_inner().definition;
    assert_eq!(by_id, Some(again));
    assert_eq!(delete(&acme, &full.path, "").await.unwrap(), kept.id);
    assert_eq!(get(&acme, &full.path).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(delete(&acme, &full.path, "").await.unwrap_err().code(), Code::NotFound);
    assert!(try_put(&acme, full.clone()).await.unwrap(), "created anew");
    assert_ne!(get(&acme, &full.path).await.unwrap().id, kept.id);
}

#[tokio::test]
async fn an_etag_that_is_not_the_present_one_stops_the_write() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let first = put(&acme, definition("kind")).await;
    let second = put(&acme, first.clone()).await;
    let late = try_put(&acme, Definition { disabled: true, ..first.clone() }).await.unwrap_err();
    let mismatch = (Code::FailedPrecondition, "ETAG_MISMATCH".to_owned());
    assert_eq!(reason(&late), mismatch);
    assert_eq!(reason(&delete(&acme, "kind", &first.etag).await.unwrap_err()), mismatch);
    let unknown = Definition { etag: first.etag.clone(), ..definition("other") };
    assert_eq!(reason(&try_put(&acme, unknown).await.unwrap_err()), mismatch);
    assert_eq!(get(&acme, "kind").await.unwrap(), second, "nothing was written");
    delete(&acme, "kind", &second.etag).await.unwrap();
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins() {
    let pair = builder().ingest_replicas(2).start().await;
    let clients = [pair.clients_of(Tenant::Acme, 0, 0), pair.clients_of(Tenant::Acme, 1, 0)];
    let first = put(&clients[0], definition("kind")).await;
    let writers: JoinSet<_> = (0..16)
        .map(|n| {
            let (clients, description) = (clients[n % 2].clone(), n.to_string());
            let change = Definition { description, ..first.clone() };
            async move { try_put(&clients, change).await.map_err(|status| reason(&status)) }
        })
        .collect();
    let ended = writers.join_all().await;
    let won = ended.iter().filter(|ended| ended.is_ok()).count();
    assert_eq!(won, 1, "{ended:?}");
    let mismatch = Err((Code::FailedPrecondition, "ETAG_MISMATCH".to_owned()));
    assert_eq!(ended.iter().filter(|ended| **ended == mismatch).count(), 15, "{ended:?}");
}

async fn page(clients: &Clients, request: ListDefinitionsRequest) -> (Vec<(String, String)>, String) {
    let page = clients.definitions.clone().list_definitions(request).await.unwrap().into_inner();
    let names = page.definitions.into_iter().map(|one| (one.organisation, one.path)).collect();
    (names, page.next_page_token)
}

#[tokio::test]
async fn lists_are_paged_by_path_with_or_without_the_system_wide_ones() {
    let pair = builder().start().await;
    let (acme, globex, admin) =
        (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex), pair.clients(Tenant::Admin));
    for path in ["b", "a/z", "a", "B", "c"] {
        put(&acme, definition(path)).await;
    }
    for path in ["b", "a/m"] {
        put(&admin, system_wide(path)).await;
    }
    put(&globex, Definition { organisation: "globex".into(), ..definition("secret") }).await;
    let list = |page_size, page_token: &str, include_system_wide| ListDefinitionsRequest {
        page_size,
        page_token: page_token.into(),
        include_system_wide,
        organisation: String::new(),
    };
    let own = ["B", "a", "a/z", "b", "c"].map(|path| ("acme".to_owned(), path.to_owned()));
    assert_eq!(page(&acme, list(0, "", false)).await, (own.to_vec(), String::new()));
    assert_eq!(page(&acme, list(5, "", false)).await, (own.to_vec(), String::new()), "no empty page follows");
    let mut walked = Vec::new();
    let mut token = String::new();
    loop {
        let (names, next) = page(&acme, list(2, &token, true)).await;
        assert!(names.len() <= 2);
        walked.extend(names);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    let mut all = own.to_vec();
    all.insert(2, (String::new(), "a/m".into()));
    assert_eq!(walked, all, "an own one hides the system-wide one of its path");
    let everyones: Vec<_> = ["a/m", "b"].map(|path| (String::new(), path.to_owned())).into();
    assert_eq!(page(&admin, list(0, "", false)).await.0, everyones);
    // As many as come if nobody says how many, and one more.
    for n in 1..=100 {
        put(&globex, Definition { organisation: "globex".into(), ..definition(&format!("n/{n}")) }).await;
    }
    let (names, next) = page(&globex, list(0, "", false)).await;
    assert!(names.len() == 100 && !next.is_empty(), "{next}");
    let (names, next) = page(&globex, list(1000, "", false)).await;
    assert_eq!((names.len(), next.as_str()), (101, ""));
    for (size, token) in [(-1, ""), (1001, ""), (1, "no path")] {
        let refused = acme.definitions.clone().list_definitions(list(size, token, false)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{size} {token}");
    }
}

#[tokio::test]
async fn every_wrong_field_is_named_and_validation_says_the_same() {
    let pair = Pair::start().await;
    let acme = pair.clients(Tenant::Acme);
    let week = 7 * 86_400;
    let wrong = Definition {
        path: "a//b".into(),
        description: "x".repeat(4097),
        unique: seconds(week + 1),
        unique_by: vec!["no pointer".into()],
        throttle_count: 1,
        throttle_period: seconds(week + 1),
        json_schema: r#"{"$ref":"http://127.0.0.1/schema"}"#.into(),
        storage_config: "no uuid".into(),
        ..definition("")
    };
    let status = try_put(&acme, wrong.clone()).await.unwrap_err();
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into()));
    let details = status.get_error_details();
    let mut named: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect();
    named.sort();
    let fields =
        ["description", "json_schema", "path", "storage_config", "throttle_period", "unique", "unique_by"];
    assert_eq!(named, fields.map(|field| format!("definition.{field}")));
    let validate = |definition| ValidateDefinitionRequest { definition: Some(definition) };
    let said = acme.definitions.clone().validate_definition(validate(wrong)).await.unwrap().into_inner();
    let mut violations: Vec<_> = said.violations.into_iter().map(|violation| violation.field).collect();
    violations.sort();
    assert_eq!((said.valid, violations), (false, named));
    let longest = Definition { throttle_count: 1, throttle_period: seconds(week), ..definition("fits") };
    let longest = Definition { unique: seconds(week), ..longest };
    let said = acme.definitions.clone().validate_definition(validate(longest.clone())).await.unwrap();
    assert!(said.into_inner().valid);
    assert_eq!(get(&acme, "fits").await.unwrap_err().code(), Code::NotFound, "validating keeps nothing");
    assert!(try_put(&acme, longest).await.unwrap());
    for nanos in [1, 500_000_000] {
        let fraction = Definition {
            unique: Some(prost_types::Duration { seconds: 1, nanos }),
            ..definition("fraction")
        };
        assert_eq!(try_put(&acme, fraction).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(try_put(&acme, unique("")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_longest_is_kept_and_one_byte_more_is_not() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    // Bytes, not characters: 2048 times two.
    let longest = Definition {
        description: "é".repeat(2048),
        unique_by: (10..42).map(|n| format!("/{n}{}", "x".repeat(509))).collect(),
        json_schema: format!("{{{}}}", " ".repeat(64 * 1024 - 2)),
        unique: seconds(LONG),
        ..definition(&"p".repeat(255))
    };
    put(&acme, longest.clone()).await;
    let kept = get(&acme, &longest.path).await.unwrap();
    assert_eq!(
        (&kept.description, &kept.unique_by, &kept.json_schema),
        (&longest.description, &longest.unique_by, &longest.json_schema)
    );
    let fields: Vec<_> = longest.unique_by.iter().map(|pointer| format!("\"{}\":1", &pointer[1..])).collect();
    let said = publish_one(&acme, json(&longest.path, &format!("{{{}}}", fields.join(",")))).await;
    assert_eq!(told(&[said]), [(Outcome::Success, "")]);
    let longer = |text: &str| format!("{text}x");
    let pointer = vec![longer(&longest.unique_by[0])];
    let pointers = [&longest.unique_by[..], &["/a".into()]].concat();
    for (field, longer) in [
        ("description", Definition { description: longer(&longest.description), ..longest.clone() }),
        ("unique_by", Definition { unique_by: pointer, ..longest.clone() }),
        ("unique_by", Definition { unique_by: pointers, ..longest.clone() }),
        ("json_schema", Definition { json_schema: format!("{} ", longest.json_schema), ..longest.clone() }),
        ("path", Definition { path: longer(&longest.path), ..longest.clone() }),
    ] {
        let status = try_put(&acme, longer).await.unwrap_err();
        let violations = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].field, format!("definition.{field}"));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_schema_is_told_shortly() {
    let pair = Pair::start().await;
    let acme = pair.clients(Tenant::Acme);
    let long = "é".repeat(20_000);
    for json_schema in [
        format!(r#"{{"type":"{long}"}}"#),
        format!(r##"{{"$ref":"#/{long}"}}"##),
        format!(r#"{{"$ref":"{long}"}}"#),
        format!(r#"{{"{long}":1e400}}"#),
        format!(r#"{{"pattern":"({long}"}}"#),
    ] {
        let status = try_put(&acme, Definition { json_schema, ..definition("kind") }).await.unwrap_err();
        assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".into()), "{status:?}");
        let violations = status.get_error_details().bad_request().unwrap().field_violations.clone();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].field, "definition.json_schema");
        // Percent-encoded and in base64; clients take 8 KiB of headers.
        let headers_bytes = 3 * status.message().len() + status.details().len() * 4 / 3;
        assert!(headers_bytes < 4096, "{headers_bytes}: {status:?}");
    }
}

#[tokio::test]
async fn a_page_of_long_schemas_ends_early() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let json_schema = format!("{{{}}}", " ".repeat(64 * 1024 - 2));
    for n in 0..40 {
        put(&acme, Definition { json_schema: json_schema.clone(), ..definition(&format!("long/{n:02}")) })
            .await;
    }
    let (mut sizes, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListDefinitionsRequest { page_token: token, ..ListDefinitionsRequest::default() };
        let (names, next) = page(&acme, request).await;
        sizes.push(names.len());
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(sizes, [33, 7]);
}

#[tokio::test]
async fn a_tenant_writes_neither_system_wide_nor_foreign_definitions() {
    let pair = builder().start().await;
    let (acme, globex, admin) =
        (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex), pair.clients(Tenant::Admin));
    let denied = |status: Status| status.code() == Code::PermissionDenied;
    assert!(denied(try_put(&acme, system_wide("kind")).await.unwrap_err()));
    assert!(denied(try_put(&globex, definition("kind")).await.unwrap_err()));
    let stored = Definition { storage_config: uuid::Uuid::now_v7().to_string(), ..system_wide("kind") };
    let refused = try_put(&admin, stored).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::InvalidArgument, "INVALID_FIELD".into()));
    let named = refused.get_error_details().bad_request().unwrap().field_violations[0].field.clone();
    assert_eq!(named, "definition.storage_config", "nobody's storage");
    let kept = put(&admin, system_wide("kind")).await;
    assert_eq!(delete(&acme, "kind", "").await.unwrap_err().code(), Code::NotFound);
    let by_id = DeleteDefinitionRequest { id: kept.id.clone(), ..DeleteDefinitionRequest::default() };
    assert_eq!(acme.definitions.clone().delete_definition(by_id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&acme, "kind").await.unwrap(), kept, "readable, and still there");
    let own = put(&acme, definition("own")).await;
    let by_id = |id: &str| GetDefinitionRequest { id: id.into(), ..GetDefinitionRequest::default() };
    let foreign = globex.definitions.clone().get_definition(by_id(&own.id)).await.unwrap_err();
    let unknown = globex.definitions.clone().get_definition(by_id(&uuid::Uuid::now_v7().to_string())).await;
    let unknown = unknown.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::NotFound, unknown.message()));
    assert_eq!(foreign.details(), unknown.details());
}

#[tokio::test]
async fn a_change_through_one_replica_counts_for_the_next_request_on_the_other() {
    let pair = builder().ingest_replicas(2).start().await;
    let (a, b) = (pair.clients_of(Tenant::Acme, 0, 0), pair.clients_of(Tenant::Acme, 1, 0));
    put(&a, definition("busy")).await;
    let ending = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (b, ending) = (b.clone(), ending.clone());
        async move {
            let mut said = Vec::new();
            while !ending.load(Relaxed) {
                said.push(publish_one(&b, json("busy", &said.len().to_string())).await);
            }
            said
        }
    });
    for n in 0..50 {
        let path = format!("new/{n}");
        put(&a, definition(&path)).await;
        assert_eq!(publish_one(&b, json(&path, "1")).await.outcome(), Outcome::Success, "{path} put");
        put(&a, Definition { disabled: true, ..definition(&path) }).await;
        assert_eq!(publish_one(&b, json(&path, "2")).await.reason, "DISABLED_DEFINITION", "{path}");
        let strict = Definition { json_schema: r#"{"type":"string"}"#.into(), ..definition(&path) };
        put(&a, strict).await;
        let said = publish(&b, vec![json(&path, "3"), json(&path, "\"3\"")]).await;
        assert_eq!(told(&said), [(Outcome::Error, "SCHEMA"), (Outcome::Success, "")], "{path}");
        put(&a, definition(&path)).await;
        assert_eq!(publish_one(&b, json(&path, "4")).await.outcome(), Outcome::Success, "{path} loosened");
        delete(&a, &path, "").await.unwrap();
        assert_eq!(publish_one(&b, json(&path, "5")).await.reason, "UNKNOWN_DEFINITION", "{path} deleted");
    }
    ending.store(true, Relaxed);
    let said = kinds(&others.await.unwrap());
    assert!(!said.is_empty() && said.iter().all(|kind| *kind == Outcome::Success), "others are not bothered");
}
