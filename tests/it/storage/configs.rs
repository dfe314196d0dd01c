//! Storage configs: what is taken, what is told, and that nobody sees another's.

use sluice_proto::results::v1::{
    DeactivateStorageConfigRequest, GetStorageConfigRequest, ListStorageConfigsRequest,
    SetDefaultStorageConfigRequest, StorageConfig, TestStorageConfigRequest, UpdateStorageConfigRequest,
    storage_config::State,
};
use sluice_tests::{Service, Tenant, eventually};
use tonic::Code;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    results::shelf::ACME,
    storage::support::{Storage, seconds},
};

fn folder(url: &str) -> StorageConfig {
    StorageConfig { url: url.into(), ..StorageConfig::default() }
}

fn bucket(endpoint: &str) -> StorageConfig {
    let credentials = [("access_key_id", "AKID"), ("secret_access_key", "hunter2"), ("endpoint", endpoint)];
    StorageConfig {
        url: "s3://bucket".into(),
        credentials: credentials.map(|(name, value)| (name.into(), value.into())).into(),
        ..StorageConfig::default()
    }
}

fn get(id: &str) -> GetStorageConfigRequest {
    GetStorageConfigRequest { organisation: String::new(), id: id.into() }
}

#[tokio::test]
async fn what_was_created_is_told_and_probed() {
    let storage = Storage::start().await;
    let asked = StorageConfig {
        signed_urls_enabled: true,
        signed_urls_expiry: seconds(60),
        managed: true,
        retention: seconds(86_400),
        ..folder("local://bucket/a/b")
    };
    let created = storage.create(asked).await.unwrap();
    assert_eq!(created.state(), State::Valid);
    let expected = StorageConfig {
        id: created.id.clone(),
        resource: "storage_config".into(),
        organisation: "acme".into(),
        r#type: "local".into(),
        url: "local://bucket/a/b".into(),
        signed_urls_enabled: true,
        signed_urls_expiry: seconds(60),
        managed: true,
        retention: seconds(86_400),
        state: State::Valid.into(),
        date_created: created.date_created,
        ..StorageConfig::default()
    };
    assert_eq!(created, expected);
    let mut configs = storage.configs(Tenant::Acme);
    assert_eq!(
        configs.get_storage_config(get(&created.id)).await.unwrap().into_inner().storage_config,
        Some(expected)
    );
    assert!(storage.files().is_empty(), "the probe left something: {:?}", storage.files());
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_answer_the_same() {
    let storage = Storage::start().await;
    let id = storage.create(folder("local://bucket")).await.unwrap().id;
    let mut globex = storage.configs(Tenant::Globex);
    let unknown = Uuid::now_v7().to_string();
    let mut told = Vec::new();
    for id in [id.as_str(), &unknown, "nonsense"] {
        let id = || id.to_owned();
        let organisation = String::new;
        let refused = [
            globex.get_storage_config(get(&id())).await.unwrap_err(),
            globex
                .deactivate_storage_config(DeactivateStorageConfigRequest {
                    organisation: organisation(),
                    id: id(),
                })
                .await
                .unwrap_err(),
            globex
                .set_default_storage_config(SetDefaultStorageConfigRequest {
                    organisation: organisation(),
                    id: id(),
                })
                .await
                .unwrap_err(),
            globex
                .test_storage_config(TestStorageConfigRequest { organisation: organisation(), id: id() })
                .await
                .unwrap_err(),
            globex
                .update_storage_config(UpdateStorageConfigRequest {
                    storage_config: Some(StorageConfig { id: id(), ..StorageConfig::default() }),
                    update_mask: None,
                })
                .await
                .unwrap_err(),
        ];
        told.push(refused.map(|status| (status.code(), status.message().to_owned())));
    }
    assert!(told.iter().flatten().all(|(code, _)| *code == Code::NotFound), "{told:?}");
    assert!(told[0] == told[1] && told[1] == told[2]);
    let listed =
        globex.list_storage_configs(ListStorageConfigsRequest::default()).await.unwrap().into_inner();
    assert!(listed.storage_configs.is_empty());
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_refused() {
    let storage =
        Storage::with(|pair| pair.flag(Service::Results, "storage-endpoints", "http://127.0.0.1:9")).await;
    let no_credentials = folder("s3://ours");
    let mut virtual_hosted = bucket("http://127.0.0.1:9");
    virtual_hosted.credentials.insert("virtual_hosted_style".into(), "true".into());
    for (config, field) in [
        (folder("local://../etc"), "storage_config.url"),
        (folder("ftp://x"), "storage_config.url"),
        (bucket("http://169.254.169.254"), "storage_config.credentials"),
        (bucket("http://127.0.0.1:8"), "storage_config.credentials"),
        (no_credentials, "storage_config.credentials"),
        (virtual_hosted, "storage_config.credentials"),
    ] {
        let refused = storage.create(config).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let details = refused.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    let invalid = storage.create(bucket("http://127.0.0.1:9")).await.unwrap();
    assert_eq!(invalid.state(), State::Invalid);
    assert!(!invalid.state_details.is_empty());
}

#[tokio::test]
async fn credentials_are_kept_encrypted_and_never_told() {
    let storage =
        Storage::with(|pair| pair.flag(Service::Results, "storage-endpoints", "http://127.0.0.1:9")).await;
    let created = storage.create(bucket("http://127.0.0.1:9")).await.unwrap();
    let mut configs = storage.configs(Tenant::Acme);
    let listed =
        configs.list_storage_configs(ListStorageConfigsRequest::default()).await.unwrap().into_inner();
    for told in [&created, &listed.storage_configs[0]] {
        assert!(told.credentials.is_empty() && !format!("{told:?}").contains("hunter2"), "{told:?}");
    }
    let sql = storage.shelf.0.results_database.sql().await;
    let row = sql.query_one("SELECT credentials, credentials_key FROM storage_config", &[]).await.unwrap();
    let kept: &[u8] = row.get(0);
    assert_eq!(row.get::<_, &str>(1), "k1");
    assert!(!kept.windows(7).any(|window| window == b"hunter2"));
}

#[tokio::test]
async fn credentials_without_a_key_can_not_be_kept() {
    let storage = Storage::with(|pair| {
        pair.flag(Service::Results, "storage-endpoints", "http://127.0.0.1:9").flag(
            Service::Results,
            "storage-keys",
            "",
        )
    })
    .await;
    let refused = storage.create(bucket("http://127.0.0.1:9")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "UNCONFIGURED");
}

#[tokio::test]
async fn changes_are_of_what_is_named_and_probed_again() {
    let storage = Storage::start().await;
    let created = storage.create(folder("local://bucket")).await.unwrap();
    let mut configs = storage.configs(Tenant::Acme);
    let asked =
        StorageConfig { id: created.id.clone(), managed: true, retention: seconds(5), ..Default::default() };
    let mask = prost_types::FieldMask { paths: vec!["retention".into()] };
    let mut update = async |config: &StorageConfig, mask| {
        let request = UpdateStorageConfigRequest { storage_config: Some(config.clone()), update_mask: mask };
        configs.update_storage_config(request).await.map(|answer| answer.into_inner().storage_config.unwrap())
    };
    let updated = update(&asked, Some(mask)).await.unwrap();
    assert_eq!((updated.retention, updated.managed, updated.state()), (seconds(5), false, State::Valid));
    assert!(update(&asked, None).await.unwrap().managed);
    let same = StorageConfig { url: "local://bucket/".into(), ..asked.clone() };
    assert!(update(&same, None).await.is_ok(), "another spelling of the same place");
    let moved = StorageConfig { url: "local://other".into(), ..asked };
    assert_eq!(update(&moved, None).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_a_valid_one_becomes_the_default_and_a_deactivated_one_is_none() {
    let storage = Storage::start().await;
    let config = storage.create(folder("local://bucket")).await.unwrap();
    storage.set_default(&config.id).await.unwrap();
    let mut configs = storage.configs(Tenant::Acme);
    let mut is_default = async || {
        let told = configs.get_storage_config(get(&config.id)).await.unwrap().into_inner();
        told.storage_config.unwrap().is_default
    };
    assert!(is_default().await);
    storage.set_default("").await.unwrap();
    assert!(!is_default().await);
    storage.set_default(&config.id).await.unwrap();

    let mut configs = storage.configs(Tenant::Acme);
    let request = DeactivateStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    for _ in 0..2 {
        let answer = configs.deactivate_storage_config(request.clone()).await.unwrap().into_inner();
        let told = answer.storage_config.unwrap();
        assert_eq!((told.state(), told.is_default), (State::Deactivated, false));
    }
    let refused = storage.set_default(&config.id).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "NOT_VALID");
    let test = TestStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    let refused = configs.test_storage_config(test).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "DEACTIVATED");
}

#[tokio::test]
async fn an_organisation_has_up_to_a_hundred_in_use() {
    let storage = Storage::start().await;
    for _ in 0..100 {
        storage.create(folder("db://results")).await.unwrap();
    }
    let refused = storage.create(folder("db://results")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut configs = storage.configs(Tenant::Acme);
    let (mut walked, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListStorageConfigsRequest { page_size: 33, page_token, ..Default::default() };
        let page = configs.list_storage_configs(request).await.unwrap().into_inner();
        walked.extend(page.storage_configs.into_iter().map(|config| config.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(walked.len() == 100 && walked.is_sorted());
    for (page_size, fits) in [(-1, false), (1000, true), (1001, false)] {
        let request = ListStorageConfigsRequest { page_size, ..Default::default() };
        assert_eq!(configs.list_storage_configs(request).await.is_ok(), fits);
    }
    let request = DeactivateStorageConfigRequest { organisation: String::new(), id: walked[0].clone() };
    configs.deactivate_storage_config(request).await.unwrap();
    storage.create(folder("db://results")).await.unwrap();
    // One more than come if nobody says how many.
    for (page_size, count) in [(0, 100), (1000, 101)] {
        let request = ListStorageConfigsRequest { page_size, ..Default::default() };
        let page = configs.list_storage_configs(request).await.unwrap().into_inner();
        assert_eq!((page.storage_configs.len(), page.next_page_token.is_empty()), (count, count == 101));
    }
}

#[tokio::test]
async fn an_invalid_one_is_probed_until_it_is_valid() {
    let storage = Storage::start().await;
    std::fs::write(storage.root.join("bucket"), "in the way").unwrap();
    let config = storage.create(folder("local://bucket")).await.unwrap();
    assert_eq!(config.state(), State::Invalid);
    std::fs::remove_file(storage.root.join("bucket")).unwrap();
    // As if the minute between probes had passed.
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE storage_config SET date_probed = '-infinity', date_created = '-infinity'")
        .await
        .unwrap();
    let mut configs = storage.configs(Tenant::Acme);
    eventually("a valid state", || async {
        let told =
            storage.configs(Tenant::Acme).get_storage_config(get(&config.id)).await.unwrap().into_inner();
        (told.storage_config.unwrap().state() == State::Valid).then_some(())
    })
    .await;
    let test = TestStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
    let told = configs.test_storage_config(test).await.unwrap().into_inner();
    assert_eq!((told.storage_config.unwrap().state(), told.details.as_str()), (State::Valid, ""));
}

#[tokio::test]
async fn a_change_of_what_was_changed_meanwhile_is_none() {
    let storage = Storage::start().await;
    let id: Uuid = storage.create(folder("local://bucket")).await.unwrap().id.parse().unwrap();
    let sql = storage.shelf.0.results_database.sql().await;
    let revision =
        async || -> i64 { sql.query_one("SELECT revision FROM storage_config", &[]).await.unwrap().get(0) };
    let changes = async |read: i64| {
        let (key, credentials) = ("k1", &b"sealed"[..]);
        [
            sql.execute(
                include_str!("../../../crates/results/src/sql/config_set_state.sql"),
                &[&ACME, &id, &read, &2_i16, &"details"],
            )
            .await
            .unwrap(),
            sql.execute(
                include_str!("../../../crates/results/src/sql/config_reseal.sql"),
                &[&ACME, &id, &read, &key, &credentials],
            )
            .await
            .unwrap(),
            sql.execute(
                include_str!("../../../crates/results/src/sql/config_update.sql"),
                &[&ACME, &id, &read, &key, &credentials, &true, &60_i64, &true, &5_i64],
            )
            .await
            .unwrap(),
        ]
    };
    let read = revision().await;
    assert_eq!((changes(read).await, changes(read).await), ([1, 1, 1], [0, 0, 0]));
    assert_eq!(changes(revision().await).await, [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_the_same_time_all_hold() {
    let storage = Storage::start().await;
    let created = storage.create(folder("local://bucket")).await.unwrap();
    let asked = StorageConfig { managed: true, signed_urls_expiry: seconds(77), ..created.clone() };
    let changes = (0..8).map(|number| {
        let configs = storage.configs(Tenant::Acme);
        let field = ["managed", "signed_urls_expiry"][number % 2];
        let mask = prost_types::FieldMask { paths: vec![field.into()] };
        let request =
            UpdateStorageConfigRequest { storage_config: Some(asked.clone()), update_mask: Some(mask) };
        tokio::spawn(async move {
            // One that others keep overtaking is told to come again.
            eventually("its turn", || {
                let (mut configs, request) = (configs.clone(), request.clone());
                async move {
                    let changed = configs.update_storage_config(request).await;
                    changed.map_err(|status| assert_eq!(status.code(), Code::Unavailable, "{status:?}")).ok()
                }
            })
            .await;
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let mut configs = storage.configs(Tenant::Acme);
    let told = configs.get_storage_config(get(&created.id)).await.unwrap().into_inner();
    let told = told.storage_config.unwrap();
    assert_eq!((told.managed, told.signed_urls_expiry), (true, seconds(77)));
}
