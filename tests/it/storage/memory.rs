//! What files on their way take of the results service's memory: parts of as many as there
//! is room for, whatever pieces they come in; the others wait, at nobody else's cost.

use sluice_proto::results::v1::{
    FileUpload, NewResult, StorageConfig, StoreFileRequest, StoreFileResponse,
    record_results_response::Recording, store_file_request::Part,
};
use sluice_tests::{PairBuilder, Service, eventually};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    results::shelf::{ACME, record},
    storage::support::{Storage, stored, upload},
    telemetry::exposition::scrape,
};

const MEBIBYTE: usize = 1024 * 1024;
/// More than a file may have without room.
const LARGE: usize = 256 * 1024 + 1;

/// A file that is sent by and by.
struct Sending {
    messages: mpsc::Sender<StoreFileRequest>,
    storing: JoinHandle<Result<StoreFileResponse, Status>>,
}

impl Sending {
    async fn begin(storage: &Storage, upload: FileUpload, chunk: usize) -> Self {
        let (messages, sent) = mpsc::channel(1);
        let mut intake = storage.shelf.intake(0);
        let storing = async move { Ok(intake.store_file(ReceiverStream::new(sent)).await?.into_inner()) };
        let sending = Self { messages, storing: tokio::spawn(storing) };
        sending.send(Part::Upload(upload)).await;
        sending.send(Part::Chunk(vec![7; chunk].into())).await;
        sending
    }

    async fn send(&self, part: Part) {
        self.messages.send(StoreFileRequest { part: Some(part) }).await.unwrap();
    }

    async fn end(self) -> u64 {
        drop(self.messages);
        self.storing.await.unwrap().unwrap().size
    }
}

/// With the least room there may be: for four parts of 8 MiB.
async fn with_little_room() -> Storage {
    let least =
        |pair: PairBuilder| pair.admin().flag(Service::Results, "file-bytes-in-flight-max", "33554432");
    let storage = Storage::with(least).await;
    storage.default_folder(StorageConfig::default()).await;
    storage
}

/// How much room files have.
async fn taken(storage: &Storage) -> f64 {
    scrape(storage.shelf.0.results[0].admin()).await.sum("sluice_file_bytes_in_flight", &[])
}

#[tokio::test]
async fn a_file_waits_for_room_and_small_ones_and_those_of_others_do_not() {
    let storage = with_little_room().await;
    let first = Sending::begin(&storage, upload(), LARGE).await;
    let second = Sending::begin(&storage, upload(), LARGE).await;
    // As much as is free: acme has no more.
    let half = (16 * MEBIBYTE) as f64;
    eventually("both to have room", || async { (taken(&storage).await == half).then_some(()) }).await;
    let Sending { messages, storing: third } = Sending::begin(&storage, upload(), LARGE).await;
    drop(messages);
    storage.store(upload(), vec![vec![7; LARGE - 1]]).await.unwrap();
    for _ in 0..4 {
        let of_globex = FileUpload { organisation: "globex".into(), ..upload() };
        storage.store(of_globex, vec![vec![7; LARGE]]).await.unwrap();
    }
    assert!(!third.is_finished() && taken(&storage).await == half, "the third has to wait");
    assert_eq!(first.end().await, LARGE as u64);
    assert_eq!(third.await.unwrap().unwrap().size, LARGE as u64);
    assert_eq!(second.end().await, LARGE as u64);
    assert_eq!(taken(&storage).await, 0.0);
}

#[tokio::test]
async fn a_file_of_many_parts_gets_through_beside_others() {
    let storage = with_little_room().await;
    let stuck = Sending::begin(&storage, upload(), LARGE).await;
    let content = vec![vec![3; MEBIBYTE]; 40];
    let files = [upload(), upload(), upload()];
    let (a, b, c) = tokio::join!(
        storage.store(files[0].clone(), content.clone()),
        storage.store(files[1].clone(), content.clone()),
        storage.store(files[2].clone(), content.clone()),
    );
    assert_eq!([a, b, c].map(|sealed| sealed.unwrap().size), [40 * MEBIBYTE as u64; 3]);
    let all: Vec<NewResult> = files.iter().map(|file| stored(&file.id)).collect();
    let told = record(&mut storage.shelf.intake(0), ACME, all).await.unwrap();
    assert_eq!(told, [Recording::Recorded; 3]);
    assert!(storage.download(&files[2].id).await.unwrap() == content.concat());
    assert_eq!(stuck.end().await, LARGE as u64);
}

/// The most memory a process ever had, in bytes.
fn peak_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn chunks_of_one_byte_take_little_memory() {
    const CHUNKS: usize = 400_000;
    let storage = Storage::with(|pair| pair.processes()).await;
    storage.default_folder(StorageConfig::default()).await;
    storage.store(upload(), vec![vec![1]; 1000]).await.unwrap();
    let pid = storage.shelf.0.results[0].pid().unwrap();
    let before = peak_bytes(pid);
    let sealed = storage.store(upload(), vec![vec![1]; CHUNKS]).await.unwrap();
    let more = peak_bytes(pid) - before;
    assert_eq!(sealed.size, CHUNKS as u64);
    assert!(more < 8 * MEBIBYTE, "{} KiB more", more / 1024);
}
