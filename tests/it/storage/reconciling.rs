//! Reconciling: what a storage holds of an organisation against its records.

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, NewResult, ReconcileStorageConfigRequest,
    ReconcileStorageConfigResponse as Report, StorageConfig, reconcile_storage_config_response::Finding,
};
use sluice_tests::Tenant;
use uuid::Uuid;

use crate::{
    results::shelf::new,
    storage::support::{Storage, upload},
};

/// All that is reported of a storage config.
async fn reconcile(storage: &Storage, tenant: Tenant, id: &str) -> Vec<Report> {
    let request = ReconcileStorageConfigRequest { organisation: String::new(), id: id.into() };
    let mut stream = storage.configs(tenant).reconcile_storage_config(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(report) = stream.message().await.unwrap() {
        told.push(report);
    }
    told
}

#[tokio::test]
async fn reconciling_reports_what_does_not_fit() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    let results: Vec<NewResult> = (0..3).map(|_| new("data")).collect();
    storage.shelf.record(&results).await;
    let pending = upload();
    storage.store(pending, vec![b"on its way".to_vec()]).await.unwrap();
    let told = reconcile(&storage, Tenant::Acme, &config.id).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].finding(), told[0].objects, told[0].records), (Finding::Unspecified, 4, 3));

    let lost = storage.get(&results[0].id).await.unwrap().url;
    let lost = storage.root.join(lost.strip_prefix("local://").unwrap());
    std::fs::remove_file(&lost).unwrap();
    let shorter = storage.get(&results[1].id).await.unwrap().url;
    std::fs::write(storage.root.join(shorter.strip_prefix("local://").unwrap()), "dat").unwrap();
    let stray = Uuid::now_v7();
    for name in ["readme", &stray.to_string()] {
        std::fs::write(lost.with_file_name(name), "stray").unwrap();
    }
    let mut found: Vec<(Finding, String)> = reconcile(&storage, Tenant::Acme, &config.id)
        .await
        .into_iter()
        .map(|report| (report.finding(), report.id))
        .collect();
    found.sort_by_key(|(finding, id)| (*finding as i32, id.clone()));
    let mut expected = vec![
        (Finding::Unspecified, String::new()),
        (Finding::ObjectWithoutRecord, String::new()),
        (Finding::ObjectWithoutRecord, stray.to_string()),
        (Finding::RecordWithoutObject, results[0].id.clone()),
        (Finding::RecordWithoutObject, results[1].id.clone()),
    ];
    expected.sort_by_key(|(finding, id)| (*finding as i32, id.clone()));
    assert_eq!(found, expected);
}

#[tokio::test]
async fn an_organisation_whose_place_lies_in_anothers_folder_is_not_told_of() {
    let storage = Storage::start().await;
    let place = |url: &str| StorageConfig { url: url.into(), ..StorageConfig::default() };
    let request = CreateStorageConfigRequest { storage_config: Some(place("local://shared")) };
    let answer = storage.configs(Tenant::Globex).create_storage_config(request).await.unwrap();
    let outer = answer.into_inner().storage_config.unwrap();
    // Its objects are at `globex/acme/<date>/<id>`.
    let inner = storage.create(place("local://shared/globex")).await.unwrap();
    storage.set_default(&inner.id).await.unwrap();
    storage.shelf.record(&[new("of acme")]).await;
    let told = reconcile(&storage, Tenant::Globex, &outer.id).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].finding(), told[0].objects), (Finding::Unspecified, 0));
    let told = reconcile(&storage, Tenant::Acme, &inner.id).await;
    assert_eq!((told.len(), told[0].objects, told[0].records), (1, 1, 1), "{told:?}");
}
