//! Signed URLs of `db` and `local` data, fetched with a plain HTTP client.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::Full;
use sluice_proto::results::v1::{ListResultsRequest, StorageConfig, UpdateStorageConfigRequest};
use sluice_tests::{Service, Tenant, eventually};
use tokio::time::timeout;

use crate::{
    http::support::{Answer, send},
    results::acknowledging::acknowledge,
    results::shelf::{ACME, new, record},
    storage::support::{Storage, seconds, stored, upload},
};

const CONTENT: &str = "0123456789";

fn signed() -> StorageConfig {
    StorageConfig { signed_urls_enabled: true, signed_urls_expiry: seconds(600), ..StorageConfig::default() }
}

async fn fetch(storage: &Storage, method: Method, url: &str, headers: &[(&str, &str)]) -> Answer {
    let address = storage.shelf.0.results[0].address();
    let path = url.strip_prefix(&format!("http://{address}")).unwrap_or(url).to_owned();
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(address, Version::HTTP_11, request.body(Full::new(Bytes::new())).unwrap()).await
}

async fn url_of(storage: &Storage, id: &str) -> Option<String> {
    storage.get(id).await.unwrap().signed_url.map(|signed| signed.url)
}

/// A result in a folder, and one in the database, and a file in the database.
async fn results(storage: &Storage) -> [String; 3] {
    storage.default_folder(signed()).await;
    let (local, db, file) = (new(CONTENT), new(CONTENT), upload());
    storage.shelf.record(std::slice::from_ref(&local)).await;
    let config = storage.create(StorageConfig { url: "db://results".into(), ..signed() }).await.unwrap();
    storage.set_default(&config.id).await.unwrap();
    storage.shelf.record(std::slice::from_ref(&db)).await;
    storage.store(file.clone(), vec![CONTENT.into()]).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    [local.id, db.id, file.id]
}

#[tokio::test]
async fn a_signed_url_gives_the_bytes_and_says_what_they_are() {
    let storage = Storage::start().await;
    for id in results(&storage).await {
        let record = storage.get(&id).await.unwrap();
        let signed = record.signed_url.unwrap();
        let (created, expires) = (record.date_created.unwrap(), signed.date_expires.unwrap());
        assert_eq!((expires.seconds, expires.nanos), (created.seconds + 600, created.nanos));
        let told = fetch(&storage, Method::GET, &signed.url, &[]).await;
        assert_eq!((told.status.as_u16(), &told.body[..]), (200, CONTENT.as_bytes()));
        for (name, value) in [
            ("content-type", record.r#type.as_str()),
            ("content-length", "10"),
            ("etag", &format!("\"{}\"", record.checksum)),
            ("content-disposition", &format!("attachment; filename=\"{id}\"")),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("accept-ranges", "bytes"),
        ] {
            assert_eq!(told.headers[name], value);
        }
        let head = fetch(&storage, Method::HEAD, &signed.url, &[]).await;
        assert!(head.status == 200 && head.body.is_empty() && head.headers["content-length"] == "10");
    }
}

#[tokio::test]
async fn ranges_are_those_of_rfc_9110() {
    let storage = Storage::start().await;
    for id in results(&storage).await {
        let record = storage.get(&id).await.unwrap();
        let url = record.signed_url.unwrap().url;
        let tag = format!("\"{}\"", record.checksum);
        for (headers, status, body, range) in [
            (vec![("range", "bytes=0-0")], 206, "0", "bytes 0-0/10"),
            (vec![("range", "bytes=3-5")], 206, "345", "bytes 3-5/10"),
            (vec![("range", "bytes=8-")], 206, "89", "bytes 8-9/10"),
            (vec![("range", "bytes=-3")], 206, "789", "bytes 7-9/10"),
            (vec![("range", "bytes=5-99")], 206, "56789", "bytes 5-9/10"),
            (vec![("range", "bytes=10-")], 416, "", "bytes */10"),
            (vec![("range", "nonsense")], 200, CONTENT, ""),
            (vec![("range", "bytes=0-1,4-5")], 200, CONTENT, ""),
            (vec![("range", "bytes=3-5"), ("if-range", &tag)], 206, "345", "bytes 3-5/10"),
            (vec![("range", "bytes=3-5"), ("if-range", "\"other\"")], 200, CONTENT, ""),
            (vec![("if-none-match", &tag)], 304, "", ""),
            (vec![("if-none-match", "\"other\"")], 200, CONTENT, ""),
        ] {
            let told = fetch(&storage, Method::GET, &url, &headers).await;
            let told_range = told.headers.get("content-range").map_or("", |value| value.to_str().unwrap());
            assert_eq!((told.status.as_u16(), told.text(), told_range), (status, body, range), "{headers:?}");
        }
        // It is for GET only.
        for range in ["bytes=0-0", "bytes=10-", "nonsense"] {
            let told = fetch(&storage, Method::HEAD, &url, &[("range", range)]).await;
            assert_eq!(told.status, 200, "{range}");
            assert_eq!(told.headers["content-length"], "10", "{range}");
            assert!(told.body.is_empty() && !told.headers.contains_key("content-range"), "{range}");
        }
    }
}

#[tokio::test]
async fn who_has_no_good_url_learns_nothing() {
    let storage = Storage::start().await;
    let [local, db, _] = results(&storage).await;
    let url = url_of(&storage, &local).await.unwrap();
    let other = url.replace(&local, &db);
    let unknown = url.replace(&local, &uuid::Uuid::now_v7().to_string());
    let cut = &url[..url.len() - 1];
    let mut answers = Vec::new();
    for bad in [
        other.as_str(),
        &unknown,
        cut,
        &url.replace("organisation=acme", "organisation=globex"),
        &url.replace("key=k1", "key=k2"),
        &url.replace("expires=1", "expires=2"),
        &format!("{url}&more=1"),
        &format!("{url}&expires=9999999999"),
        &format!("/data/{local}"),
        "/data/nonsense?organisation=acme",
    ] {
        let told = fetch(&storage, Method::GET, bad, &[]).await;
        let mut headers: HeaderMap = told.headers.clone();
        headers.remove("date");
        answers.push((told.error(), told.body, headers));
    }
    assert_eq!(answers[0].0, (403, "missing-scope".into()));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn urls_end_when_it_was_fixed_and_are_absent_afterwards() {
    let storage = Storage::start().await;
    let [local, ..] = results(&storage).await;
    let url = url_of(&storage, &local).await.unwrap();
    // Nine minutes later, and two more.
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE result SET date_created = date_created - interval '9 minutes'").await.unwrap();
    assert!(url_of(&storage, &local).await.is_some());
    assert_eq!(fetch(&storage, Method::GET, &url, &[]).await.status, 200);
    sql.batch_execute("UPDATE result SET date_created = date_created - interval '2 minutes'").await.unwrap();
    assert_eq!(url_of(&storage, &local).await, None);
    assert_eq!(fetch(&storage, Method::GET, &url, &[]).await.status, 403);
}

#[tokio::test]
async fn a_longer_expiry_is_for_results_to_come_and_switching_off_for_all() {
    let storage = Storage::start().await;
    let config = storage.default_folder(signed()).await;
    let before = new(CONTENT);
    storage.shelf.record(std::slice::from_ref(&before)).await;
    let change = async |change: StorageConfig| {
        let storage_config = Some(StorageConfig { id: config.id.clone(), ..change });
        let request = UpdateStorageConfigRequest { storage_config, update_mask: None };
        storage.configs(Tenant::Acme).update_storage_config(request).await.unwrap();
    };
    change(StorageConfig { signed_urls_expiry: seconds(6000), ..signed() }).await;
    let after = new(CONTENT);
    storage.shelf.record(std::slice::from_ref(&after)).await;
    for (id, expected) in [(&before.id, 600), (&after.id, 6000)] {
        let record = storage.get(id).await.unwrap();
        let expires = record.signed_url.unwrap().date_expires.unwrap();
        assert_eq!(expires.seconds - record.date_created.unwrap().seconds, expected);
    }
    let url = url_of(&storage, &after.id).await.unwrap();
    change(StorageConfig::default()).await;
    eventually("no more URLs", || async { url_of(&storage, &after.id).await.is_none().then_some(()) }).await;
    assert_eq!(fetch(&storage, Method::GET, &url, &[]).await.status, 403);
}

#[tokio::test]
async fn lists_and_http_tell_signed_urls_too() {
    let storage =
        Storage::with(|pair| pair.flag(Service::Results, "public-url", "https://data.example.com/")).await;
    let [_, db, _] = results(&storage).await;
    let listed =
        storage.shelf.results(Tenant::Acme).list_results(ListResultsRequest::default()).await.unwrap();
    let urls: Vec<String> =
        listed.into_inner().results.into_iter().map(|record| record.signed_url.unwrap().url).collect();
    assert_eq!(urls.len(), 3);
    assert!(urls.iter().all(|url| url.starts_with("https://data.example.com/data/")), "{urls:?}");
    let token = format!("Token {}", storage.shelf.0.token(Tenant::Acme));
    let told = fetch(&storage, Method::GET, &format!("/results/{db}"), &[("authorization", &token)]).await;
    let url = told.json()["signed_url"]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix("https://data.example.com").unwrap();
    assert_eq!(fetch(&storage, Method::GET, path, &[]).await.text(), CONTENT);
}

#[tokio::test]
async fn what_is_not_signed_soon_is_told_without_a_url() {
    // Who tells the service's own credentials never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let storage = Storage::with(|pair| {
        pair.variable("AWS_METADATA_ENDPOINT", &endpoint)
            .variable("AWS_ENDPOINT", &endpoint)
            .variable("AWS_ALLOW_HTTP", "true")
            .flag(Service::Results, "storage-identity-buckets", "s3://ours")
            .flag(Service::Results, "recent-bytes-max", "0")
    })
    .await;
    let results: Vec<_> = (0..50).map(|_| new(CONTENT)).collect();
    storage.shelf.record(&results).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let in_bucket = "INSERT INTO storage_config (date_created, id, retention_seconds, signed_urls_seconds, state,
                         signed_urls_enabled, managed, organisation, url)
                     VALUES (now(), '01963f2e-7d9a-7c31-8f0e-000000000001', 0, 600, 2, true, false, 'acme', 's3://ours');
                     UPDATE result SET storage_config = '01963f2e-7d9a-7c31-8f0e-000000000001',
                                       signed_urls_seconds = 600";
    sql.batch_execute(in_bucket).await.unwrap();
    let mut client = storage.shelf.results(Tenant::Acme);
    let soon = Duration::from_secs(10);
    let told = timeout(soon, storage.get(&results[0].id)).await.unwrap().unwrap();
    assert!(told.url.starts_with("s3://ours/") && told.signed_url.is_none());
    let all = ListResultsRequest { page_size: 1000, ..Default::default() };
    let listed = timeout(soon, client.list_results(all)).await.unwrap().unwrap();
    assert_eq!(listed.into_inner().results.len(), results.len());
    let told = timeout(soon, client.acknowledge_result(acknowledge(&results[0].id))).await.unwrap().unwrap();
    assert!(told.into_inner().changed);
}
