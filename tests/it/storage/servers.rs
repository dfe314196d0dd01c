//! The object stores that the storage tests run against: what those trust.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use http::{Method, StatusCode};
use object_store::{
    Error, MultipartUpload as _, ObjectStore, ObjectStoreExt as _, PutPayload, path::Path, signer::Signer,
};
use sluice_tests::{Answers, Azurite, GsServer, S3Server};

use crate::http::support::get_url;

/// The smallest part but for the last.
const PART_BYTES: usize = 5 * 1024 * 1024;

async fn keys(store: &impl ObjectStore, prefix: &str) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    let mut keys: Vec<String> = listed.into_iter().map(|object| object.location.to_string()).collect();
    keys.sort();
    keys
}

async fn objects_come_and_go(store: &impl ObjectStore) {
    let key = Path::from("pre fix/acme/2026-01-01/one");
    store.put(&key, PutPayload::from_static(b"0123456789")).await.unwrap();
    store.put(&Path::from("other/two"), PutPayload::from_static(b"")).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "0123456789");
    assert_eq!(store.get_range(&key, 2..5).await.unwrap(), "234");
    assert_eq!(store.head(&key).await.unwrap().size, 10);
    assert_eq!(keys(store, "pre fix/acme").await, ["pre fix/acme/2026-01-01/one"]);
    store.delete(&key).await.unwrap();
    assert!(matches!(store.get(&key).await, Err(Error::NotFound { .. })));
    assert_eq!(keys(store, "pre fix").await, [""; 0]);
}

/// Completes one upload and gives another one up. Returns the bytes of the first.
async fn parts_become_an_object_or_nothing(store: &impl ObjectStore) -> Vec<u8> {
    let parts = [vec![1_u8; PART_BYTES], vec![2; PART_BYTES], vec![3; 7]];
    let mut upload = store.put_multipart(&Path::from("parts/whole")).await.unwrap();
    for part in &parts {
        upload.put_part(part.clone().into()).await.unwrap();
    }
    assert_eq!(keys(store, "parts").await, [""; 0], "nothing is there before all is");
    upload.complete().await.unwrap();
    let bytes = parts.concat();
    assert!(store.get(&Path::from("parts/whole")).await.unwrap().bytes().await.unwrap() == bytes);

    let mut upload = store.put_multipart(&Path::from("parts/given-up")).await.unwrap();
    upload.put_part(vec![1; PART_BYTES].into()).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(keys(store, "parts").await, ["parts/whole"]);
    bytes
}

async fn signed_urls_need_no_more_and_bear_no_change(store: &(impl ObjectStore + Signer), signature: &str) {
    let key = Path::from("signed/one");
    store.put(&key, PutPayload::from_static(b"signed")).await.unwrap();
    let url = store.signed_url(Method::GET, &key, Duration::from_secs(60)).await.unwrap().to_string();
    let answer = get_url(&url, &[]).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "signed"));
    let unsigned = url.split('?').next().unwrap();
    let (before, after) = url.split_once(signature).unwrap();
    let other = if after.starts_with('1') { '2' } else { '1' };
    let tampered = format!("{before}{signature}{other}{}", &after[1..]);
    for refused in [unsigned, &tampered, &url.replace("/one?", "/two?")] {
        assert_eq!(get_url(refused, &[]).await.status, StatusCode::FORBIDDEN, "{refused}");
    }
}

async fn signed_urls_end(store: &(impl ObjectStore + Signer)) {
    let key = Path::from("signed/ends");
    store.put(&key, PutPayload::from_static(b"ends")).await.unwrap();
    let url = store.signed_url(Method::GET, &key, Duration::from_secs(1)).await.unwrap();
    sluice_tests::eventually("its end", || async {
        (get_url(url.as_str(), &[]).await.status == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
}

#[tokio::test]
async fn s3_keeps_objects_and_shows_them() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let client = server.client("bucket");
    objects_come_and_go(&client).await;
    assert_eq!(server.keys("bucket"), ["other/two"]);
    let bytes = parts_become_an_object_or_nothing(&client).await;
    assert!(server.read("bucket", "parts/whole").unwrap() == bytes);
    server.write("bucket", "planted/one", b"planted");
    assert_eq!(keys(&client, "planted").await, ["planted/one"]);
    server.delete("bucket", "planted/one");
    assert_eq!(keys(&client, "planted").await, [""; 0]);
    assert!(server.requests().contains(&"POST /bucket?delete".to_owned()));
}

#[tokio::test]
async fn s3_verifies_what_is_signed() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    signed_urls_need_no_more_and_bear_no_change(&server.client("bucket"), "X-Amz-Signature=").await;
    signed_urls_end(&server.client("bucket")).await;
    let stranger = server.client_with("bucket", "another secret");
    assert!(stranger.put(&Path::from("x"), PutPayload::from_static(b"x")).await.is_err());
    assert!(stranger.get(&Path::from("signed/one")).await.is_err());
    assert!(!server.keys("bucket").contains(&"x".to_owned()));
}

#[tokio::test]
async fn s3_counts_uploads_and_answers_badly_when_told() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let client = server.client("bucket");
    let key = Path::from("one");
    let mut upload = client.put_multipart(&key).await.unwrap();
    assert_eq!(server.open_uploads(), 1);
    upload.abort().await.unwrap();
    assert_eq!(server.open_uploads(), 0);

    client.put(&key, PutPayload::from_static(b"one")).await.unwrap();
    server.answer(Answers::Denied);
    let denied = client.get(&key).await.unwrap_err();
    assert!(matches!(denied, Error::PermissionDenied { .. }), "{denied:?}");
    for (answers, ends) in [(Answers::Unavailable, true), (Answers::Never, false)] {
        server.answer(answers);
        let url = client.signed_url(Method::GET, &key, Duration::from_secs(60)).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(500), get_url(url.as_str(), &[])).await;
        assert_eq!(answer.is_ok_and(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE), ends);
    }
    server.answer(Answers::Well);
    assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), "one");
}

#[tokio::test]
async fn azure_keeps_objects_and_verifies_what_is_signed() {
    let server = Azurite::start().await;
    server.create_container("container").await;
    let client = server.client("container");
    objects_come_and_go(&client).await;
    parts_become_an_object_or_nothing(&client).await;
    signed_urls_need_no_more_and_bear_no_change(&client, "sig=").await;
    signed_urls_end(&client).await;
    let stranger = server.client_with("container", "YW5vdGhlciBrZXk=");
    assert!(stranger.put(&Path::from("x"), PutPayload::from_static(b"x")).await.is_err());
}

#[tokio::test]
async fn gs_keeps_objects_and_verifies_what_is_signed() {
    let server = GsServer::start().await;
    server.create_bucket("bucket");
    let client = server.client("bucket");
    objects_come_and_go(&client).await;
    assert_eq!(server.keys("bucket"), ["other/two"]);
    parts_become_an_object_or_nothing(&client).await;
    assert_eq!(server.open_uploads(), 0);
    signed_urls_need_no_more_and_bear_no_change(&client, "X-Goog-Signature=").await;
    signed_urls_end(&client).await;
    let other = GsServer::start().await;
    let stranger = server.client_with("bucket", other.service_account_key());
    assert!(stranger.put(&Path::from("x"), PutPayload::from_static(b"x")).await.is_err());
    assert!(!server.keys("bucket").contains(&"x".to_owned()));
}
