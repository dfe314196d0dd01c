//! Storage configs that are looked after again and again: many that can't be used are in no
//! other's way.

use std::collections::BTreeMap;

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, GetStorageConfigRequest, StorageConfig, TestStorageConfigRequest,
    storage_config::State,
};
use sluice_results::sessions::SERVING;
use sluice_service::postgres::Database;
use sluice_tests::{Answers, Database as Tables, S3Server, Service, Tenant, eventually, scratch};
use tokio_postgres::types::ToSql;

use crate::{storage::clouds::with_s3, storage::support::Storage};

const TO_PROBE: &str = include_str!("../../../crates/results/src/sql/configs_to_probe.sql");

/// As many more of an organisation as $2, like one that is there, of a state, last probed at a
/// time, with credentials under a key.
fn more(like: &str, organisation: &str, count: usize, state: i32, probed: &str, key: &str) -> String {
    format!(
        "INSERT INTO storage_config (date_created, date_probed, id, retention_seconds, signed_urls_seconds, state,
             signed_urls_enabled, managed, organisation, url, credentials_key, credentials)
         SELECT '-infinity', {probed}, gen_random_uuid(), 0, 0, {state}, false, false, '{organisation}', url,
             {key}, credentials
         FROM storage_config, generate_series(1, {count}) WHERE id = '{like}'"
    )
}

async fn create(storage: &Storage, tenant: Tenant, config: StorageConfig) -> StorageConfig {
    let request = CreateStorageConfigRequest { storage_config: Some(config) };
    let answer = storage.configs(tenant).create_storage_config(request).await.unwrap();
    answer.into_inner().storage_config.unwrap()
}

#[tokio::test]
async fn many_that_hang_keep_nobody_elses_from_coming_back() {
    let (storage, server, hanging) = with_s3().await;
    let folder = StorageConfig { url: "local://globex".into(), ..StorageConfig::default() };
    let folder = create(&storage, Tenant::Globex, folder).await;
    server.answer(Answers::Never);
    let sql = storage.shelf.0.results_database.sql().await;
    // All became INVALID while nobody could reach anything; those that hang come first.
    let back = format!(
        "{};
         UPDATE storage_config SET state = 3, date_created = '-infinity', date_probed = now() - interval '1 hour'
         WHERE id = '{}'",
        more(&hanging.id, "acme", 100, 3, "'-infinity'", "credentials_key"),
        folder.id
    );
    sql.batch_execute(&back).await.unwrap();
    let get = || GetStorageConfigRequest { organisation: String::new(), id: folder.id.clone() };
    eventually("globex's folder", || async {
        let told = storage.configs(Tenant::Globex).get_storage_config(get()).await.unwrap().into_inner();
        (told.storage_config.unwrap().state() == State::Valid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn probes_that_may_not_remove_what_they_wrote_overwrite_it() {
    let (storage, server, config) = with_s3().await;
    server.answer(Answers::DeniesRemovals);
    for _ in 0..3 {
        let request = TestStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
        let told = storage.configs(Tenant::Acme).test_storage_config(request).await.unwrap().into_inner();
        assert_eq!(told.storage_config.unwrap().state(), State::Invalid);
    }
    assert_eq!(server.keys("bucket").len(), 1, "{:?}", server.keys("bucket"));
    server.answer(Answers::Well);
    let request = TestStorageConfigRequest { organisation: String::new(), id: config.id };
    storage.configs(Tenant::Acme).test_storage_config(request).await.unwrap();
    assert!(server.keys("bucket").is_empty(), "{:?}", server.keys("bucket"));
}

#[tokio::test]
async fn those_that_wait_longest_are_probed_first_within_the_share_of_each() {
    let tables = Tables::create(Service::Results).await;
    let sql = tables.sql().await;
    let first = "INSERT INTO storage_config (date_created, id, retention_seconds, signed_urls_seconds, state,
                     signed_urls_enabled, managed, organisation, url)
                 VALUES (now(), '00000000-0000-0000-0000-000000000001', 0, 0, 2, false, false, 'a', 'db://x')";
    sql.batch_execute(first).await.unwrap();
    let one = "00000000-0000-0000-0000-000000000001";
    // Of c one is probed sooner than is due, and one later.
    for (organisation, count, state, probed) in [
        ("a", 10, 3, "now() - interval '1 hour'"),
        ("b", 2, 1, "NULL"),
        ("c", 1, 3, "now() - interval '61 seconds'"),
        ("c", 1, 3, "now() - interval '50 seconds'"),
        ("d", 1, 4, "NULL"),
    ] {
        sql.batch_execute(&more(one, organisation, count, state, probed, "NULL")).await.unwrap();
    }
    let database = Database::parse(&tables.service_url()).unwrap().connect(SERVING).await.unwrap();
    let take = async |max: i64, of_one_max: i64| {
        let params: [&(dyn ToSql + Sync); 3] = [&60.0, &max, &of_one_max];
        let mut taken = BTreeMap::new();
        for row in database.query(TO_PROBE, &params).await.unwrap() {
            *taken.entry(row.get::<_, String>("organisation")).or_insert(0) += 1;
        }
        taken.into_iter().map(|(organisation, count)| format!("{organisation}{count}")).collect::<Vec<_>>()
    };
    // Those that never were, then the others by age.
    assert_eq!(take(3, 4).await, ["a1", "b2"]);
    assert_eq!(take(16, 4).await, ["a4", "c1"]);
    assert_eq!(take(4, 10).await, ["a4"]);
    assert_eq!(take(16, 4).await, ["a1"]);
    assert!(take(16, 4).await.is_empty());
}

#[tokio::test]
async fn credentials_of_lost_keys_keep_no_others_under_theirs() {
    let file = scratch("keys").join("keys.toml");
    let key = |id: &str, byte: &str| format!("[[key]]\nid = \"{id}\"\nsecret = \"{}\"\n", byte.repeat(32));
    std::fs::write(&file, key("old", "01")).unwrap();
    let server = S3Server::start().await;
    let mut storage = Storage::with(|pair| {
        pair.flag(Service::Results, "storage-endpoints", &server.endpoint())
            .flag(Service::Results, "storage-keys", "")
            .flag(Service::Results, "storage-keys-file", file.to_str().unwrap())
    })
    .await;
    let endpoint = server.endpoint();
    let credentials = [("access_key_id", "id"), ("secret_access_key", "secret"), ("endpoint", &endpoint)];
    let config = StorageConfig {
        url: "s3://bucket".into(),
        credentials: credentials.map(|(name, value)| (name.into(), value.into())).into(),
        ..StorageConfig::default()
    };
    let config = create(&storage, Tenant::Globex, config).await;
    let sql = storage.shelf.0.results_database.sql().await;
    // More than are looked at together; they come before the one in the table, too.
    sql.batch_execute(&more(&config.id, "acme", 101, 4, "NULL", "'lost'")).await.unwrap();
    let moves = "WITH moved AS (DELETE FROM storage_config WHERE organisation = 'globex' RETURNING *)
                 INSERT INTO storage_config SELECT * FROM moved";
    sql.batch_execute(moves).await.unwrap();
    let first =
        "SELECT bool_and(organisation = 'acme') FROM (SELECT * FROM storage_config LIMIT 100) AS first";
    assert!(sql.query_one(first, &[]).await.unwrap().get::<_, bool>(0));
    std::fs::write(&file, key("new", "02") + &key("old", "01")).unwrap();
    storage.shelf.0.results[0].stop().await;
    storage.shelf.0.results[0].restart(false).await;
    let moved = "SELECT credentials_key = 'new' FROM storage_config WHERE organisation = 'globex'";
    eventually("the credentials under the new key", || async {
        sql.query_one(moved, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}
