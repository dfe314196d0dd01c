//! Deactivated storage configs: they stay for as long as they keep something, and are
//! forgotten afterwards; and an organisation has so many at most.

use sluice_proto::results::v1::{
    DeactivateStorageConfigRequest, GetStorageConfigRequest, NewResult, StorageConfig,
    record_results_response::Recording, result::State, storage_config::State as ConfigState,
};
use sluice_service::postgres::state as sqlstate;
use sluice_tests::{Tenant, eventually};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    results::shelf::{ACME, new, record},
    storage::cleanup::{expired, looked_again, managed, state},
    storage::files::discard,
    storage::support::{Storage, stored, upload},
};

fn at(url: &str, terms: StorageConfig) -> StorageConfig {
    StorageConfig { url: url.into(), ..terms }
}

async fn deactivate(storage: &Storage, config: &StorageConfig) {
    let request = DeactivateStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    storage.configs(Tenant::Acme).deactivate_storage_config(request).await.unwrap();
}

async fn told(storage: &Storage, config: &StorageConfig) -> Result<ConfigState, Status> {
    let request = GetStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    let answer = storage.configs(Tenant::Acme).get_storage_config(request).await?;
    Ok(answer.into_inner().storage_config.unwrap().state())
}

/// Waits until the clean-up has seen what is deactivated; then as if it had seen it so long ago,
/// and has looked again.
async fn deactivated_for(storage: &Storage, ago: &str) {
    looked_again(storage).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let statement = format!(
        "UPDATE cleanup_progress SET date_deactivated = now() - interval '{ago}'
         WHERE date_deactivated IS NOT NULL"
    );
    sql.batch_execute(&statement).await.unwrap();
    looked_again(storage).await;
}

async fn forgotten(storage: &Storage, config: &StorageConfig) {
    eventually("its end", || async { told(storage, config).await.err() }).await;
    let refused = told(storage, config).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let sql = storage.shelf.0.results_database.sql().await;
    let progress = "SELECT FROM cleanup_progress WHERE storage_config = $1";
    let id: Uuid = config.id.parse().unwrap();
    eventually("an end to its clean-up", || async {
        sql.query_opt(progress, &[&id]).await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_that_keeps_nothing_is_forgotten_a_day_after() {
    let storage = Storage::start().await;
    let created = [
        storage.create(at("db://results", managed(0))).await.unwrap(),
        storage.create(at("local://theirs/a", StorageConfig::default())).await.unwrap(),
        storage.create(at("local://ours", managed(1))).await.unwrap(),
    ];
    let in_use = storage.create(at("local://ours/used", managed(1))).await.unwrap();
    for config in &created {
        deactivate(&storage, config).await;
    }
    deactivated_for(&storage, "23 hours 59 minutes").await;
    for config in &created {
        assert_eq!(told(&storage, config).await.unwrap(), ConfigState::Deactivated);
    }
    deactivated_for(&storage, "24 hours").await;
    for config in &created {
        forgotten(&storage, config).await;
    }
    assert_eq!(told(&storage, &in_use).await.unwrap(), ConfigState::Valid);
    // Nor does it leave a directory; that of others stays.
    assert!(!storage.root.join("theirs/a/acme").exists() && storage.root.join("theirs/a").exists());
    assert!(storage.root.join("ours/used/acme").exists());
}

#[tokio::test]
async fn one_that_keeps_results_stays_and_is_emptied_when_they_are_due() {
    let storage = Storage::start().await;
    let configs = [
        storage.create(at("local://bucket", managed(5))).await.unwrap(),
        storage.create(at("db://results", managed(5))).await.unwrap(),
    ];
    let results = configs.clone().map(|config| NewResult { storage_config: config.id, ..new("kept") });
    storage.shelf.record(&results).await;
    for config in &configs {
        deactivate(&storage, config).await;
    }
    deactivated_for(&storage, "2 days").await;
    for result in &results {
        assert_eq!(storage.get(&result.id).await.unwrap().storage_config, result.storage_config);
        assert_eq!(storage.download(&result.id).await.unwrap(), b"kept");
    }
    storage.age(4).await;
    looked_again(&storage).await;
    for result in &results {
        assert_eq!(state(&storage, &result.id).await, State::Available);
    }
    storage.age(2).await;
    expired(&storage, &results.each_ref().map(|result| result.id.as_str())).await;
    assert!(storage.files().is_empty(), "{:?}", storage.files());

    // Their records tell where they were, for another year.
    looked_again(&storage).await;
    for (config, result) in configs.iter().zip(&results) {
        assert_eq!(told(&storage, config).await.unwrap(), ConfigState::Deactivated);
        assert!(storage.get(&result.id).await.unwrap().url.starts_with(&config.url));
    }
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE expired SET date_deleted = now() - interval '366 days'").await.unwrap();
    sql.query_one(include_str!("../../../crates/results/src/sql/forget.sql"), &[]).await.unwrap();
    for config in &configs {
        forgotten(&storage, config).await;
    }
    assert!(!storage.root.join("bucket/acme").exists() && storage.root.join("bucket").exists());
}

#[tokio::test]
async fn one_with_an_upload_stays() {
    let storage = Storage::start().await;
    let mut files = Vec::new();
    for url in ["local://bucket/a", "local://bucket/b"] {
        let config = storage.create(at(url, managed(0))).await.unwrap();
        let file = upload();
        let into =
            sluice_proto::results::v1::FileUpload { storage_config: config.id.clone(), ..file.clone() };
        storage.store(into, vec![b"on its way".to_vec()]).await.unwrap();
        deactivate(&storage, &config).await;
        files.push((config, file));
    }
    deactivated_for(&storage, "2 days").await;
    for (config, _) in &files {
        assert_eq!(told(&storage, config).await.unwrap(), ConfigState::Deactivated);
    }
    let [(_, recorded), (emptied, discarded)] = &files[..] else { unreachable!() };
    let told_of_it = record(&mut storage.shelf.intake(0), ACME, vec![stored(&recorded.id)]).await.unwrap();
    assert_eq!(told_of_it, [Recording::Recorded]);
    discard(&storage, &[&discarded.id]).await;
    forgotten(&storage, emptied).await;
    assert_eq!(storage.download(&recorded.id).await.unwrap(), b"on its way");
}

#[tokio::test]
async fn nothing_is_kept_in_one_that_was_forgotten() {
    let storage = Storage::start().await;
    let sql = storage.shelf.0.results_database.sql().await;
    let (id, gone) = (Uuid::now_v7(), Uuid::now_v7());
    let begin = include_str!("../../../crates/results/src/sql/uploads_begin.sql");
    let batch = "INSERT INTO batch (date_created, first_id, organisation, poll, ids, storage_config)
                 VALUES (now(), $1, 'acme', '', ARRAY[$1::uuid], $2)";
    let refused = [
        sql.query(begin, &[&[ACME].as_slice(), &[id].as_slice(), &[gone].as_slice()]).await.unwrap_err(),
        sql.query(batch, &[&id, &gone]).await.unwrap_err(),
    ];
    // To be tried again, by whoever then decides anew.
    assert_eq!(refused.each_ref().map(sqlstate), ["40001"; 2]);
}

#[tokio::test]
async fn a_clean_up_begins_where_its_storage_config_does() {
    let storage = Storage::start().await;
    storage.create(at("db://results", managed(1))).await.unwrap();
    looked_again(&storage).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let before = "SELECT (c.date_created - p.date)::text
                  FROM storage_config c JOIN cleanup_progress p ON p.storage_config = c.id";
    assert_eq!(sql.query_one(before, &[]).await.unwrap().get::<_, &str>(0), "1 day");
}

#[tokio::test]
async fn an_organisation_has_up_to_a_thousand_with_those_that_are_deactivated() {
    let storage = Storage::start().await;
    let create = || storage.create(at("db://results", StorageConfig::default()));
    let first = create().await.unwrap();
    let sql = storage.shelf.0.results_database.sql().await;
    let more = "INSERT INTO storage_config (date_created, id, retention_seconds, signed_urls_seconds, state,
                    signed_urls_enabled, managed, organisation, url)
                SELECT now(), gen_random_uuid(), 0, 60, 4, false, true, organisation, 'db://results'
                FROM unnest($1::text[]) AS its(organisation), generate_series(1, 998)";
    sql.execute(more, &[&[ACME, "globex"].as_slice()]).await.unwrap();
    create().await.unwrap();
    let refused = create().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "TOO_MANY_STORAGE_CONFIGS");
    deactivate(&storage, &first).await;
    assert_eq!(create().await.unwrap_err().code(), Code::ResourceExhausted);
    let one = "DELETE FROM storage_config WHERE id = $1";
    sql.execute(one, &[&first.id.parse::<Uuid>().unwrap()]).await.unwrap();
    create().await.unwrap();
}
