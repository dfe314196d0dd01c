//! Files from the publisher to their storage and back: byte for byte, and
//! through the death of either service at every stage.

use std::{sync::Arc, time::Duration};

use futures_util::stream;
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::{Definition, FileMetadata, Outcome, PublicationOutcome},
    results::v1::{
        GetResultRequest, ListStorageConfigsRequest, Result as Record, StorageConfig,
        TestStorageConfigRequest,
    },
};
use sluice_tests::{PairBuilder, Service, Tenant, eventually};
use tokio::task::JoinSet;

use crate::{files::support::*, storage::support::Storage, support::*};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes that differ from place to place and from file to file.
fn content(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|place| (place * 31 / 7 + place / 4096 + seed) as u8).collect()
}

/// A pair with a folder as the organisation's storage, both definitions put.
async fn start(more: impl FnOnce(PairBuilder) -> PairBuilder) -> (Storage, Clients) {
    let storage = Storage::with(|builder| {
        let builder = builder.ingest_replicas(1).flag(Service::Results, "upload-idle-seconds", "2");
        more(builder.flag(Service::Ingest, "gate-retention-seconds", &LONG.to_string()))
    })
    .await;
    storage.default_folder(StorageConfig::default()).await;
    let acme = storage.shelf.0.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (storage, acme)
}

/// Waits until nothing is under way in either service.
async fn at_rest(storage: &Storage) {
    let sql = storage.shelf.0.ingest_database.sql().await;
    let left = "SELECT (SELECT count(*) FROM file_upload) + (SELECT count(*) FROM outbox)";
    eventually("no upload and an empty outbox", || async {
        (sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    storage.no_uploads().await;
}

/// The ids of the objects that are there.
fn objects(storage: &Storage) -> Vec<String> {
    let name = |file: &std::path::PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = storage.files().iter().map(name).collect();
    // What a probe writes has another name.
    names.retain(|name| uuid::Uuid::parse_str(name).is_ok());
    names.sort_unstable();
    names
}

/// No result without its object, none more, no object without its result, and no
/// marker but theirs.
async fn adds_up(storage: &Storage, accepted: &Contents) {
    at_rest(storage).await;
    are_the_results(&storage.shelf.0.clients(Tenant::Acme), accepted).await;
    assert!(objects(storage).iter().eq(accepted.keys()), "{:?}, {:?}", objects(storage), accepted.keys());
    let sql = storage.shelf.0.ingest_database.sql().await;
    let markers = "SELECT count(*) FROM marker";
    assert_eq!(sql.query_one(markers, &[]).await.unwrap().get::<_, i64>(0), accepted.len() as i64);
}

#[tokio::test]
async fn files_come_back_byte_for_byte_from_a_folder_and_from_the_database() {
    let (storage, acme) = start(|builder| builder).await;
    let globex = storage.shelf.0.clients(Tenant::Globex);
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    let clients = [(&acme, "local://bucket/a/acme/"), (&globex, "db:")];
    for (n, size) in [0, 1, MIB, MIB + 1, 9 * MIB + 3].into_iter().enumerate() {
        let bytes = content(n, size);
        for (clients, url) in clients {
            let metadata = FileMetadata { identifier: "name".into(), ..marked_file("plain", &n.to_string()) };
            let said = publish_file(clients, metadata, &bytes).await;
            assert_eq!((said.size, said.checksum), (size as u64, md5(&bytes)));
            let said = said.outcome.unwrap();
            assert_eq!(said.outcome(), Outcome::Success, "{said:?}");
            let record = eventually("the result", || get(clients, &said.ingest_id)).await;
            assert_eq!((record.size, &record.checksum), (size as u64, &md5(&bytes)));
            let labels = [&record.definition, &record.identifier, &record.r#type];
            assert_eq!(labels, ["plain", "name", "application/x-thing"]);
            assert!(record.url.starts_with(url), "{}", record.url);
            assert!(download(clients, &said.ingest_id).await == bytes, "{size} bytes");
        }
    }
    at_rest(&storage).await;
}

async fn get(clients: &Clients, id: &str) -> Option<Record> {
    let request = GetResultRequest { id: id.into(), ..GetResultRequest::default() };
    clients.results.clone().get_result(request).await.ok()?.into_inner().result
}

#[tokio::test]
async fn what_is_not_let_in_leaves_no_object() {
    let (storage, acme) = start(|builder| builder).await;
    put(&acme, Definition { unique_by: vec![String::new()], ..unique("once") }).await;
    let first = outcome(&acme, marked_file("once", "a"), &content(1, 2 * MIB)).await;
    let second = outcome(&acme, marked_file("once", "b"), &content(1, 2 * MIB)).await;
    assert_eq!((second.outcome(), &second.ingest_id), (Outcome::Suppressed, &first.ingest_id));
    let wrong = FileMetadata { checksum: md5(b"other"), ..marked_file("plain", "c") };
    let said = outcome(&acme, wrong, &content(2, 9 * MIB)).await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Error, "CHECKSUM_MISMATCH"));
    let said = outcome(&acme, json_file("plain"), b"{").await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Error, "INVALID_JSON"));
    let broken = Sending::begin(&acme, marked_file("plain", "d"));
    for _ in 0..9 {
        broken.chunk(content(3, MIB)).await;
    }
    broken.break_off().await;
    at_rest(&storage).await;
    are_the_results(&acme, &[(first.ingest_id.clone(), content(1, 2 * MIB).into())].into()).await;
    assert_eq!(objects(&storage), [first.ingest_id]);
    let sql = storage.shelf.0.ingest_database.sql().await;
    let markers = sql.query_one("SELECT count(*) FROM marker", &[]).await.unwrap();
    assert_eq!(markers.get::<_, i64>(0), 2, "of what was accepted and of what was suppressed");
}

#[tokio::test]
async fn a_storage_that_is_unusable_makes_files_come_again() {
    let (storage, acme) = start(|builder| builder).await;
    storage.forbid(true);
    let said = outcome(&acme, marked_file("plain", "m"), &content(1, 9 * MIB)).await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    storage.forbid(false);
    // Nobody has to wait for the next look at it.
    let mut configs = storage.configs(Tenant::Acme);
    let listed = configs.list_storage_configs(ListStorageConfigsRequest::default()).await.unwrap();
    for config in listed.into_inner().storage_configs {
        let request = TestStorageConfigRequest { id: config.id, ..TestStorageConfigRequest::default() };
        configs.test_storage_config(request).await.unwrap();
    }
    let all = until_final(&acme, "m", &content(1, 9 * MIB)).await;
    adds_up(&storage, &all).await;
}

/// Publishes one file until its outcome is final. Only what may happen in an
/// outage is borne.
async fn until_final(clients: &Clients, chkpt: &str, bytes: &[u8]) -> Contents {
    loop {
        let chunks = bytes.chunks(MIB).map(|chunk| chunk_message(chunk.to_vec()));
        let first = std::iter::once(metadata_message(marked_file("plain", chkpt)));
        let messages: Vec<_> = first.chain(chunks).collect();
        let said = match send(clients, stream::iter(messages)).await {
            Ok(said) => said.outcome.unwrap(),
            Err(status) => {
                // The connection's words, when the replica died.
                assert!(status.details().is_empty(), "{status:?}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match said.outcome() {
            Outcome::Success => {}
            Outcome::Duplicate if said.original_outcome() == Outcome::Success => {}
            Outcome::Retry => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            _ => panic!("{said:?}"),
        }
        return [(said.ingest_id, bytes.to_vec().into())].into();
    }
}

/// Uploads of the results service in a state: 1 is open, 2 sealed.
async fn stored(storage: &Storage, state: i16) {
    let sql = storage.shelf.0.results_database.sql().await;
    eventually("an upload in that state", || async {
        sql.query_opt("SELECT 1 FROM upload WHERE state = $1", &[&state]).await.unwrap()
    })
    .await;
}

/// Keeps gates from ending for as long as the session lives.
async fn hold_the_gate(storage: &Storage) -> tokio_postgres::Client {
    let sql = storage.shelf.0.ingest_database.sql().await;
    sql.batch_execute("BEGIN; LOCK TABLE marker IN SHARE MODE").await.unwrap();
    sql
}

/// Begins a file of 9 MiB of which so many are sent.
async fn begun(clients: &Clients, sent: usize) -> Sending {
    let sending = Sending::begin(clients, marked_file("plain", "m"));
    for chunk in content(1, 9 * MIB).chunks(MIB).take(sent) {
        sending.chunk(chunk.to_vec()).await;
    }
    sending
}

#[tokio::test]
async fn results_dies_while_bytes_flow() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let sending = begun(&acme, 8).await;
    stored(&storage, 1).await;
    storage.shelf.0.results[0].kill();
    let said = sending.end().await.unwrap().outcome.unwrap();
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"));
    storage.shelf.0.results[0].restart(true).await;
    at_rest(&storage).await;
    assert!(objects(&storage).is_empty());
    let all = until_final(&acme, "m", &content(1, 9 * MIB)).await;
    adds_up(&storage, &all).await;
}

#[tokio::test]
async fn results_dies_between_sealing_and_the_gate_and_after_it() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let gate = hold_the_gate(&storage).await;
    let ending = tokio::spawn(begun(&acme, 9).await.end());
    stored(&storage, 2).await;
    storage.shelf.0.results[0].kill();
    drop(gate);
    // A success, unless the gate was held for too long.
    let said = ending.await.unwrap().unwrap().outcome.unwrap();
    assert!([Outcome::Success, Outcome::Retry].contains(&said.outcome()), "{said:?}");
    storage.shelf.0.results[0].restart(true).await;
    let all = until_final(&acme, "m", &content(1, 9 * MIB)).await;
    if said.outcome() == Outcome::Success {
        assert!(all.contains_key(&said.ingest_id));
    }
    adds_up(&storage, &all).await;
}

#[tokio::test]
async fn ingest_dies_while_bytes_flow() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let sending = begun(&acme, 8).await;
    stored(&storage, 1).await;
    storage.shelf.0.ingest[0].kill();
    assert!(sending.end().await.is_err());
    storage.shelf.0.ingest[0].restart(true).await;
    at_rest(&storage).await;
    assert!(objects(&storage).is_empty());
    let all = until_final(&acme, "m", &content(1, 9 * MIB)).await;
    adds_up(&storage, &all).await;
}

#[tokio::test]
async fn ingest_dies_between_sealing_and_the_gate() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let gate = hold_the_gate(&storage).await;
    let ending = tokio::spawn(begun(&acme, 9).await.end());
    stored(&storage, 2).await;
    storage.shelf.0.ingest[0].kill();
    drop(gate);
    drop(ending.await.unwrap());
    assert!(get_ids(&acme).await.is_empty());
    storage.shelf.0.ingest[0].restart(true).await;
    at_rest(&storage).await;
    assert!(objects(&storage).is_empty());
    let all = until_final(&acme, "m", &content(1, 9 * MIB)).await;
    adds_up(&storage, &all).await;
}

async fn get_ids(clients: &Clients) -> Vec<String> {
    list(clients).await.into_iter().map(|record| record.id).collect()
}

#[tokio::test]
async fn both_die_right_after_the_gate() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let bytes = content(1, 9 * MIB);
    let said: PublicationOutcome = outcome(&acme, marked_file("plain", "m"), &bytes).await;
    storage.shelf.0.ingest[0].kill();
    storage.shelf.0.results[0].kill();
    assert_eq!(said.outcome(), Outcome::Success);
    storage.shelf.0.results[0].restart(true).await;
    storage.shelf.0.ingest[0].restart(true).await;
    adds_up(&storage, &[(said.ingest_id, bytes.into())].into()).await;
}

#[tokio::test]
async fn files_add_up_while_both_services_die_again_and_again() {
    let (mut storage, acme) = start(PairBuilder::processes).await;
    let finished = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut publishers = JoinSet::new();
    for publisher in 0..3 {
        let (acme, finished) = (acme.clone(), finished.clone());
        publishers.spawn(async move {
            let mut all = Contents::new();
            for n in 0..6 {
                let bytes = content(publisher * 10 + n, n * MIB * 2 + publisher);
                all.extend(until_final(&acme, &format!("{publisher}/{n}"), &bytes).await);
                finished.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            all
        });
    }
    for round in 1..=4 {
        eventually("some files", || async {
            (finished.load(std::sync::atomic::Ordering::Relaxed) >= round * 3).then_some(())
        })
        .await;
        let pair = &mut storage.shelf.0;
        let victim = if round % 2 == 0 { &mut pair.ingest[0] } else { &mut pair.results[0] };
        victim.kill();
        victim.restart(true).await;
    }
    let all: Contents = publishers.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len(), 18);
    adds_up(&storage, &all).await;
}
