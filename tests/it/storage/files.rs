//! Files on their way in: stored and sealed, then let in or given up. Nothing stays
//! of those that broke off.

use std::{future::Future, time::Duration};

use sluice_proto::results::v1::{
    DownloadResultRequest, FileUpload, RecordResultsRequest, ResultBatch, StorageConfig, StoreFileRequest,
    record_results_response::Recording, result::State, store_file_request::Part,
};
use sluice_tests::{Service, Tenant, eventually};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    results::shelf::{ACME, new, record},
    storage::support::{Storage, stored, upload},
};

const MEBIBYTE: usize = 1024 * 1024;

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

/// Bytes that differ from place to place.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|place| (place * 31 / 7 + place / 4096) as u8).collect()
}

fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.chunks(MEBIBYTE).map(<[u8]>::to_vec).collect()
}

pub async fn discard(storage: &Storage, ids: &[&str]) -> Vec<Recording> {
    let discarded_files = ids.iter().map(|id| (*id).to_owned()).collect();
    let batch = ResultBatch { organisation: ACME.into(), discarded_files, ..ResultBatch::default() };
    let request = RecordResultsRequest { batches: vec![batch] };
    storage.shelf.intake(0).record_results(request).await.unwrap().into_inner().discards().collect()
}

/// Stores, records and downloads files of sizes around every limit there is.
async fn every_size_comes_back(storage: &Storage) {
    let sizes =
        [0, 1, 512 * 1024, 512 * 1024 + 1, 4 * MEBIBYTE, 8 * MEBIBYTE - 1, 8 * MEBIBYTE, 19 * MEBIBYTE + 5];
    for size in sizes {
        let (file, content) = (upload(), bytes(size));
        let sealed = storage.store(file.clone(), chunks(&content)).await.unwrap();
        assert_eq!(sealed.size, size as u64);
        let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
        assert_eq!(told, [Recording::Recorded], "{size} bytes");
        assert!(storage.download(&file.id).await.unwrap() == content, "{size} bytes");
        let record = storage.get(&file.id).await.unwrap();
        assert_eq!(
            (record.size, record.checksum, record.r#type),
            (sealed.size, sealed.checksum, sealed.r#type)
        );
    }
    assert_eq!(storage.uploads().await, 0);
}

#[tokio::test]
async fn files_of_every_size_come_back_from_the_database() {
    every_size_comes_back(&Storage::start().await).await;
}

#[tokio::test]
async fn files_of_every_size_come_back_from_a_folder() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    every_size_comes_back(&storage).await;
}

#[tokio::test]
async fn the_type_is_the_declared_one_or_the_one_found() {
    let storage = Storage::start().await;
    for (declared, content, expected) in [
        ("", &b"%PDF-1.7\n"[..], "application/pdf"),
        ("", b"hello", "text/plain; charset=utf-8"),
        ("", b"{\"a\": [1]}\n", "application/json"),
        ("image/x-own", b"%PDF-1.7\n", "image/x-own"),
    ] {
        let file = FileUpload { r#type: declared.into(), ..upload() };
        assert_eq!(storage.store(file, vec![content.to_vec()]).await.unwrap().r#type, expected);
    }
}

#[tokio::test]
async fn bytes_of_another_checksum_are_not_sealed() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let good = FileUpload { checksum: "900150983CD24FB0D6963F7D28E17F72".into(), ..upload() };
    storage.store(good.clone(), vec![b"ab".to_vec(), b"c".to_vec()]).await.unwrap();
    let bad = FileUpload { id: upload().id, ..good.clone() };
    let refused = storage.store(bad.clone(), vec![b"abd".to_vec()]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "CHECKSUM_MISMATCH"));
    let told =
        record(&mut storage.shelf.intake(0), ACME, vec![stored(&bad.id), stored(&good.id)]).await.unwrap();
    assert_eq!(told, [Recording::Refused, Recording::Recorded]);
    storage.no_uploads().await;
    assert_eq!(storage.files().len(), 1);
}

#[tokio::test]
async fn malformed_streams_are_refused() {
    let storage = Storage::start().await;
    let chunk = |size: usize| StoreFileRequest { part: Some(Part::Chunk(vec![0; size].into())) };
    let first = || StoreFileRequest { part: Some(Part::Upload(upload())) };
    let of = |change: fn(&mut FileUpload)| {
        let mut upload = upload();
        change(&mut upload);
        StoreFileRequest { part: Some(Part::Upload(upload)) }
    };
    for (messages, fits) in [
        (vec![first(), chunk(MEBIBYTE)], true),
        (vec![first(), chunk(MEBIBYTE + 1)], false),
        (vec![chunk(1)], false),
        (vec![], false),
        (vec![first(), first()], false),
        (vec![first(), StoreFileRequest::default()], false),
        (vec![of(|upload| upload.id = "x".into())], false),
        (vec![of(|upload| upload.organisation = "a/b".into())], false),
        (vec![of(|upload| upload.checksum = "00".into())], false),
        (vec![of(|upload| upload.r#type = "t".repeat(255))], true),
        (vec![of(|upload| upload.r#type = "t".repeat(256))], false),
    ] {
        let told = storage.shelf.intake(0).store_file(tokio_stream::iter(messages.clone())).await;
        assert_eq!(told.is_ok(), fits, "{told:?}");
        if let Err(status) = told {
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    }
}

#[tokio::test]
async fn an_id_is_used_once() {
    let storage = Storage::start().await;
    let (sealed, recorded, given_up) = (upload(), upload(), upload());
    storage.store(sealed.clone(), vec![b"a".to_vec()]).await.unwrap();
    storage.store(recorded.clone(), vec![b"a".to_vec()]).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&recorded.id)]).await.unwrap();
    assert_eq!(discard(&storage, &[&given_up.id]).await, [Recording::Recorded]);
    for used in [sealed, recorded, given_up] {
        let refused = storage.store(used, vec![b"b".to_vec()]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "UPLOAD_EXISTS"));
    }
}

#[tokio::test]
async fn the_operator_is_told_of_files_that_were_never_here() {
    let storage = Storage::with(|pair| pair.processes()).await;
    let ids = [upload().id, "nonsense".to_owned()];
    let files = ids.iter().map(|id| stored(id)).collect();
    assert_eq!(record(&mut storage.shelf.intake(0), ACME, files).await.unwrap(), [Recording::Refused; 2]);
    eventually("a line for each", || async {
        let log = storage.shelf.0.results[0].log();
        let told = |id| log.lines().any(|line| line.contains("neither sealed nor") && line.contains(id));
        ids.iter().map(String::as_str).all(told).then_some(())
    })
    .await;
}

#[tokio::test]
async fn recording_and_discarding_again_change_nothing() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let (kept, gone) = (upload(), upload());
    for file in [&kept, &gone] {
        storage.store(file.clone(), vec![b"content".to_vec()]).await.unwrap();
    }
    for _ in 0..2 {
        let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&kept.id)]).await.unwrap();
        assert_eq!(told, [Recording::Recorded]);
        assert_eq!(
            discard(&storage, &[&gone.id, "nonsense"]).await,
            [Recording::Recorded, Recording::Refused]
        );
        storage.no_uploads().await;
    }
    // What became a result stays, whoever says what.
    assert_eq!(discard(&storage, &[&kept.id]).await, [Recording::Recorded]);
    storage.no_uploads().await;
    assert_eq!(storage.download(&kept.id).await.unwrap(), b"content");
    assert_eq!(storage.files().len(), 1);
    let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&gone.id)]).await.unwrap();
    assert_eq!(told, [Recording::Refused]);
}

#[tokio::test]
async fn nothing_stays_of_a_stream_that_breaks_off() {
    let storage = Storage::with(|pair| pair.flag(Service::Results, "upload-idle-seconds", "1")).await;
    storage.default_folder(StorageConfig::default()).await;
    // With one part, and with several.
    for mebibytes in [1, 20] {
        let file = upload();
        let (sender, receiver) = mpsc::channel(1);
        let mut intake = storage.shelf.intake(0);
        let call = tokio::spawn(async move { intake.store_file(ReceiverStream::new(receiver)).await });
        sender.send(StoreFileRequest { part: Some(Part::Upload(file.clone())) }).await.unwrap();
        for _ in 0..mebibytes {
            let part = Some(Part::Chunk(vec![7; MEBIBYTE].into()));
            sender.send(StoreFileRequest { part }).await.unwrap();
        }
        eventually("the upload", || async { (storage.uploads().await == 1).then_some(()) }).await;
        call.abort();
        storage.no_uploads().await;
        assert!(storage.files().is_empty(), "{:?}", storage.files());
        let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
        assert_eq!(told, [Recording::Refused]);
    }
}

#[tokio::test]
async fn nothing_stays_of_a_service_that_is_killed_while_bytes_flow() {
    let mut storage =
        Storage::with(|pair| pair.processes().flag(Service::Results, "upload-idle-seconds", "1")).await;
    storage.default_folder(StorageConfig::default()).await;
    let file = upload();
    let (sender, receiver) = mpsc::channel(1);
    let mut intake = storage.shelf.intake(0);
    let call = tokio::spawn(async move { intake.store_file(ReceiverStream::new(receiver)).await });
    sender.send(StoreFileRequest { part: Some(Part::Upload(file.clone())) }).await.unwrap();
    for _ in 0..20 {
        sender.send(StoreFileRequest { part: Some(Part::Chunk(vec![7; MEBIBYTE].into())) }).await.unwrap();
    }
    eventually("bytes", || async { (!storage.files().is_empty()).then_some(()) }).await;
    storage.shelf.0.results[0].kill();
    assert!(call.await.unwrap().is_err());
    storage.shelf.0.results[0].restart(true).await;
    storage.no_uploads().await;
    assert!(storage.files().is_empty(), "{:?}", storage.files());
}

#[tokio::test]
async fn a_file_larger_than_the_database_takes_is_refused() {
    let storage = Storage::with(|pair| pair.flag(Service::Results, "db-file-bytes-max", "1000")).await;
    storage.store(upload(), vec![vec![0; 999], vec![0; 1]]).await.unwrap();
    let refused = storage.store(upload(), vec![vec![0; 999], vec![0; 2]]).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "FILE_TOO_LARGE"));
}

#[tokio::test]
async fn files_and_results_are_recorded_side_by_side() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let file = upload();
    storage.store(file.clone(), vec![b"file".to_vec()]).await.unwrap();
    let unknown = upload();
    let batch = vec![new("one"), stored(&file.id), stored(&unknown.id), new("two")];
    let told = record(&mut storage.shelf.intake(0), ACME, batch.clone()).await.unwrap();
    let expected = [Recording::Recorded, Recording::Recorded, Recording::Refused, Recording::Recorded];
    assert_eq!(told, expected);
    for (result, data) in [(&batch[0], "one"), (&batch[1], "file"), (&batch[3], "two")] {
        assert_eq!(storage.download(&result.id).await.unwrap(), data.as_bytes());
        assert_eq!(storage.get(&result.id).await.unwrap().state(), State::Available);
    }
}

/// The caller's own client has no clock once the stream has begun: nobody but the
/// service ends it, and tells as soon as the caller reads on.
#[tokio::test]
async fn a_download_ends_at_its_callers_deadline() {
    let storage = Storage::start().await;
    let file = upload();
    let chunks = vec![vec![7; MEBIBYTE]; 24];
    storage.store(file.clone(), chunks).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    // On a busy machine a short one passes before the first part comes.
    for deadline in [1, 2, 4, 8, 16, 32].map(Duration::from_secs) {
        if let Some(ended) = ended_by(&storage, &file.id, deadline).await {
            assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
            return;
        }
    }
    panic!("no part came in time");
}

/// How a download ends that nobody reads on before its deadline; if a part of it came.
async fn ended_by(storage: &Storage, id: &str, deadline: Duration) -> Option<Status> {
    let mut request = Request::new(DownloadResultRequest { organisation: String::new(), id: id.into() });
    request.set_timeout(deadline);
    let too_late = |status: Status| {
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    };
    let answer = storage.shelf.results(Tenant::Acme).download_result(request).await.map_err(too_late).ok()?;
    let mut parts = answer.into_inner();
    parts.message().await.map_err(too_late).ok()?;
    // The deadline itself is what is waited for; the service's clock began before this.
    tokio::time::sleep(deadline).await;
    loop {
        match parts.message().await {
            Ok(part) => assert!(part.is_some(), "it went on to its end"),
            Err(status) => return Some(status),
        }
    }
}

/// How a download ends of which the chunks go after the first part was read.
async fn cut_short(storage: &Storage, how: impl Future<Output = ()>) -> Status {
    let file = upload();
    // Far more than is on its way to somebody who doesn't read.
    storage.store(file.clone(), chunks(&bytes(30 * MEBIBYTE))).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    let request = DownloadResultRequest { organisation: String::new(), id: file.id.clone() };
    let mut parts = storage.shelf.results(Tenant::Acme).download_result(request).await.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some());
    how.await;
    loop {
        match parts.message().await {
            Ok(part) => assert!(part.is_some(), "it ended well"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_file_that_expires_while_it_is_downloaded_is_told_to_have() {
    let storage = Storage::start().await;
    let sql = storage.shelf.0.results_database.sql().await;
    let expires = async {
        storage.age(31).await;
        eventually("no chunk", || async {
            let left = sql.query_one("SELECT count(*) FROM file_chunk", &[]).await.unwrap();
            (left.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    };
    let told = cut_short(&storage, expires).await;
    assert_eq!((told.code(), reason(&told).as_str()), (Code::FailedPrecondition, "EXPIRED"));
    // What is gone and did not expire is lost.
    let goes = async { sql.batch_execute("DELETE FROM file_chunk").await.unwrap() };
    let told = cut_short(&storage, goes).await;
    assert_eq!((told.code(), reason(&told).as_str()), (Code::DataLoss, "CHECKSUM_MISMATCH"));
}

#[tokio::test]
async fn a_sealed_file_waits_for_its_fate_however_long() {
    let storage = Storage::start().await;
    let (sealed, open) = (upload(), upload());
    for file in [&sealed, &open] {
        storage.store(file.clone(), vec![b"content".to_vec()]).await.unwrap();
    }
    let sql = storage.shelf.0.results_database.sql().await;
    let id: Uuid = open.id.parse().unwrap();
    let long_ago =
        "UPDATE upload SET date_touched = '-infinity', state = CASE id WHEN $1 THEN 1 ELSE state END";
    sql.execute(long_ago, &[&id]).await.unwrap();
    let gone = "SELECT FROM upload WHERE id = $1 AND state = 4";
    eventually("the open one to go", || async { sql.query_opt(gone, &[&id]).await.unwrap() }).await;
    let told = record(&mut storage.shelf.intake(0), ACME, vec![stored(&sealed.id)]).await.unwrap();
    assert_eq!(told, [Recording::Recorded]);
    assert_eq!(storage.download(&sealed.id).await.unwrap(), b"content");
}

#[tokio::test]
async fn an_upload_that_goes_on_is_not_given_up() {
    let storage = Storage::with(|pair| pair.flag(Service::Results, "upload-idle-seconds", "10")).await;
    let file = upload();
    let (sender, receiver) = mpsc::channel(1);
    let mut intake = storage.shelf.intake(0);
    let call = tokio::spawn(async move { intake.store_file(ReceiverStream::new(receiver)).await });
    sender.send(StoreFileRequest { part: Some(Part::Upload(file.clone())) }).await.unwrap();
    eventually("the upload", || async { (storage.uploads().await == 1).then_some(()) }).await;
    // By the clock that its age is told by.
    let sql = storage.shelf.0.results_database.sql().await;
    let clock = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let seconds = async || -> f64 { sql.query_one(clock, &[]).await.unwrap().get(0) };
    let began = seconds().await;
    let mut sent = began;
    while sent < began + 12.0 {
        let next = || async { Some(seconds().await).filter(|now| *now > sent + 0.2) };
        sent = eventually("the clock", next).await;
        // Nobody takes it once the call has ended, which tells why.
        let _ended = sender.send(StoreFileRequest { part: Some(Part::Chunk(vec![7].into())) }).await;
    }
    drop(sender);
    call.await.unwrap().unwrap();
}
