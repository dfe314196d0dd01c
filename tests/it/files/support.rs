//! What the tests of files say often, and a small stand-in for the results
//! service's intake, over real gRPC: it keeps what it is sent, and answers, errs
//! or hangs where a test wants it to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use md5::{Digest, Md5};
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::{
        FileMetadata, PublicationOutcome, PublishFileRequest, PublishFileResponse, publish_file_request::Part,
    },
    results::v1::{
        FileUpload, NewResult, RecordResultsRequest, RecordResultsResponse, StoreFileRequest,
        StoreFileResponse,
        record_results_response::Recording,
        results_intake_service_server::{ResultsIntakeService, ResultsIntakeServiceServer},
        store_file_request::Part as StorePart,
    },
};
use sluice_service::{Error, Kind, whole::Whole};
use sluice_tests::{Pair, PairBuilder, Proxy, Service, Tenant, eventually};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, body::Body};
use tower::util::MapRequestLayer;

use crate::support::*;

pub const MIB: usize = 1024 * 1024;

/// How the next `StoreFile` goes.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Store,
    /// As it should, but the bytes are only counted.
    Swallow,
    /// An error before a byte is read.
    Refuse(Kind, &'static str),
    /// An error after all was read.
    RefuseSealing(Kind, &'static str),
    /// Nothing is read or answered.
    Hang,
    /// All is read and sealed, and no answer comes.
    HangSealed,
    /// An answer with another size.
    WrongSize,
    /// An answer with another checksum.
    WrongChecksum,
}

/// What the stand-in was told.
#[derive(Debug, Default)]
pub struct Told {
    /// Every call of `StoreFile` that named an upload.
    pub begun: Vec<FileUpload>,
    /// What was sealed, by id.
    pub sealed: BTreeMap<String, Bytes>,
    /// How many streams broke off, or said something that is no file.
    pub broken: usize,
    /// Bytes that were read, of all streams.
    pub bytes: usize,
    /// Results that were recorded, by id.
    pub results: BTreeMap<String, NewResult>,
    /// Files that were discarded.
    pub discarded: BTreeSet<String>,
}

/// The stand-in. Ends when dropped.
pub struct Intake {
    proxy: Proxy,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    manner: Mutex<Manner>,
    told: Mutex<Told>,
    recording: Mutex<Option<Recording>>,
    changed: watch::Sender<()>,
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Intake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let service =
            ResultsIntakeServiceServer::new(Handlers(shared.clone())).max_decoding_message_size(32 * MIB);
        let serving = tokio::spawn(async move {
            // As the real service does: half a stream is never taken for a whole one.
            let whole = |request: http::Request<Body>| request.map(|body| Body::new(Whole::new(body)));
            let server =
                tonic::transport::Server::builder().layer(MapRequestLayer::new(whole)).add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { proxy: Proxy::start(address).await, shared, serving }
    }

    /// A pair whose ingest hands over to it.
    pub fn pair(&self, builder: PairBuilder) -> PairBuilder {
        builder.flag(Service::Ingest, "results-url", &format!("http://{}", self.proxy.address()))
    }

    /// Breaks all connections, and lets none in.
    pub fn goes_away(&self) {
        self.proxy.refuse();
    }

    /// How every `StoreFile` goes from now on.
    pub fn goes(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// What every result and discard is answered; `None`: as it should be.
    pub fn answers(&self, recording: Option<Recording>) {
        *self.shared.recording.lock().unwrap() = recording;
    }

    /// Looks at what it was told.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.shared.told.lock().unwrap())
    }

    /// Waits for something to be told.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&Told) -> Option<T>) -> T {
        eventually(what, || async { self.told(&look) }).await
    }

    /// Waits until nothing is under way any more.
    pub async fn at_rest(&self, pair: &Pair) {
        let sql = pair.ingest_database.sql().await;
        let at_rest = "SELECT (SELECT count(*) FROM file_upload) + (SELECT count(*) FROM outbox)";
        eventually("no upload and an empty outbox", || async {
            (sql.query_one(at_rest, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    /// Waits until nothing is under way any more, then makes sure that every
    /// sealed file became a result or was discarded, and no file both; that a
    /// result has the bytes that were published; and that exactly those in
    /// `accepted` became results.
    pub async fn adds_up(&self, pair: &Pair, accepted: &Contents) {
        self.at_rest(pair).await;
        self.told(|told| {
            let results: Contents = told
                .results
                .iter()
                .map(|(id, result)| {
                    assert!(!told.discarded.contains(id), "{id} is a result and discarded");
                    let sealed = result.stored_file.then(|| told.sealed[id].clone());
                    (id.clone(), sealed.unwrap_or_else(|| result.data.clone()))
                })
                .collect();
            assert!(results == *accepted, "{:?} are not {:?}", results.keys(), accepted.keys());
            for upload in &told.begun {
                let (kept, gone) =
                    (told.results.contains_key(&upload.id), told.discarded.contains(&upload.id));
                assert!(kept != gone, "{} was begun: a result {kept}, discarded {gone}", upload.id);
            }
        });
    }
}

struct Handlers(Arc<Shared>);

impl Handlers {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.0.told.lock().unwrap());
        self.0.changed.send_replace(());
    }

    /// The bytes, their number and their MD5.
    async fn read(
        &self,
        messages: &mut Streaming<StoreFileRequest>,
        swallow: bool,
    ) -> Result<(Bytes, u64, String), Status> {
        let (mut bytes, mut size, mut checksum) = (Vec::new(), 0, Md5::new());
        while let Some(message) = messages.message().await? {
            let Some(StorePart::Chunk(chunk)) = message.part else {
                return Err(Error::invalid("part", "must be a chunk").into());
            };
            assert!((1..=MIB).contains(&chunk.len()), "a chunk of {} bytes", chunk.len());
            size += chunk.len() as u64;
            checksum.update(&chunk);
            if !swallow {
                bytes.extend_from_slice(&chunk);
            }
            self.tell(|told| told.bytes += chunk.len());
        }
        Ok((bytes.into(), size, hex::encode(checksum.finalize())))
    }
}

pub fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

#[tonic::async_trait]
impl ResultsIntakeService for Handlers {
    async fn record_results(
        &self,
        request: Request<RecordResultsRequest>,
    ) -> Result<Response<RecordResultsResponse>, Status> {
        let answer = *self.0.recording.lock().unwrap();
        let done = answer.unwrap_or(Recording::Recorded) as i32;
        let mut response = RecordResultsResponse::default();
        for batch in request.into_inner().batches {
            response.recordings.extend(batch.results.iter().map(|_| done));
            response.discards.extend(batch.discarded_files.iter().map(|_| done));
            if answer.is_none() {
                self.tell(|told| {
                    told.results.extend(batch.results.into_iter().map(|result| (result.id.clone(), result)));
                    told.discarded.extend(batch.discarded_files);
                });
            }
        }
        Ok(Response::new(response))
    }

    async fn store_file(
        &self,
        request: Request<Streaming<StoreFileRequest>>,
    ) -> Result<Response<StoreFileResponse>, Status> {
        assert!(request.metadata().get("authorization").is_some(), "the intake token goes along");
        let manner = self.0.manner.lock().unwrap().clone();
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.part);
        let Some(StorePart::Upload(upload)) = first else {
            return Err(Error::invalid("upload", "must be the first message").into());
        };
        self.tell(|told| told.begun.push(upload.clone()));
        match manner {
            Manner::Refuse(kind, reason) => return Err(Error::new(kind, reason, "refused").into()),
            Manner::Hang => std::future::pending().await,
            _ => {}
        }
        let read = self.read(&mut messages, matches!(manner, Manner::Swallow)).await;
        let (bytes, size, checksum) = match read {
            Ok(read) => read,
            Err(status) => {
                self.tell(|told| told.broken += 1);
                return Err(status);
            }
        };
        if let Manner::RefuseSealing(kind, reason) = manner {
            return Err(Error::new(kind, reason, "refused").into());
        }
        let media_type = if upload.r#type.is_empty() { "text/found".into() } else { upload.r#type };
        let mut answer = StoreFileResponse { checksum, size, r#type: media_type };
        self.tell(|told| drop(told.sealed.insert(upload.id, bytes)));
        match manner {
            Manner::HangSealed => std::future::pending().await,
            Manner::WrongSize => answer.size += 1,
            Manner::WrongChecksum => answer.checksum = md5(b"other"),
            _ => {}
        }
        Ok(Response::new(answer))
    }
}

/// A stand-in, a pair that hands over to it, and clients.
pub async fn start() -> (Intake, Pair, Clients) {
    start_with(builder()).await
}

pub async fn start_with(builder: PairBuilder) -> (Intake, Pair, Clients) {
    let intake = Intake::start().await;
    let pair = intake.pair(builder).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    (intake, pair, acme)
}

/// A file's metadata.
pub fn file(definition: &str) -> FileMetadata {
    FileMetadata {
        definition: definition.into(),
        r#type: "application/x-thing".into(),
        ..FileMetadata::default()
    }
}

/// The same with a progress marker.
pub fn marked_file(definition: &str, chkpt: &str) -> FileMetadata {
    FileMetadata { chkpt: chkpt.into(), ..file(definition) }
}

/// A file of a JSON type.
pub fn json_file(definition: &str) -> FileMetadata {
    FileMetadata { r#type: "application/json".into(), ..file(definition) }
}

pub fn metadata_message(metadata: FileMetadata) -> PublishFileRequest {
    PublishFileRequest { part: Some(Part::Metadata(metadata)) }
}

pub fn chunk_message(chunk: impl Into<Bytes>) -> PublishFileRequest {
    PublishFileRequest { part: Some(Part::Chunk(chunk.into())) }
}

/// Publishes whatever messages.
pub async fn send(
    clients: &Clients,
    messages: impl Stream<Item = PublishFileRequest> + Send + 'static,
) -> Result<PublishFileResponse, Status> {
    clients.ingest.clone().publish_file(messages).await.map(Response::into_inner)
}

/// Publishes a file in chunks of up to 1 MiB.
pub async fn publish_file(clients: &Clients, metadata: FileMetadata, bytes: &[u8]) -> PublishFileResponse {
    let chunks = bytes.chunks(MIB).map(|chunk| chunk_message(chunk.to_vec()));
    let messages: Vec<_> = [metadata_message(metadata)].into_iter().chain(chunks).collect();
    send(clients, stream::iter(messages)).await.unwrap()
}

/// What became of a file.
pub async fn outcome(clients: &Clients, metadata: FileMetadata, bytes: &[u8]) -> PublicationOutcome {
    publish_file(clients, metadata, bytes).await.outcome.unwrap()
}

/// A file that is sent by and by.
pub struct Sending {
    messages: mpsc::Sender<PublishFileRequest>,
    pub publishing: JoinHandle<Result<PublishFileResponse, Status>>,
}

impl Sending {
    /// Begins with the metadata.
    pub fn begin(clients: &Clients, metadata: FileMetadata) -> Self {
        let (messages, sent) = mpsc::channel(4);
        messages.try_send(metadata_message(metadata)).unwrap();
        let clients = clients.clone();
        let publishing = tokio::spawn(async move { send(&clients, ReceiverStream::new(sent)).await });
        Self { messages, publishing }
    }

    pub async fn chunk(&self, bytes: impl Into<Bytes>) {
        self.messages.send(chunk_message(bytes)).await.unwrap();
    }

    /// The same; it may be answered already.
    pub async fn try_chunk(&self, bytes: impl Into<Bytes>) {
        drop(self.messages.send(chunk_message(bytes)).await);
    }

    /// Ends the file; what became of it.
    pub async fn end(self) -> Result<PublishFileResponse, Status> {
        drop(self.messages);
        self.publishing.await.unwrap()
    }

    /// Breaks the stream off, as a publisher does that goes away.
    pub async fn break_off(self) {
        self.publishing.abort();
        assert!(self.publishing.await.unwrap_err().is_cancelled());
    }
}

/// Rows of uploads that are not decided.
pub async fn uploads(pair: &Pair) -> i64 {
    let sql = pair.ingest_database.sql().await;
    sql.query_one("SELECT count(*) FROM file_upload", &[]).await.unwrap().get(0)
}

/// Everything that the gate remembers.
pub async fn gate_rows(pair: &Pair) -> i64 {
    let sql = pair.ingest_database.sql().await;
    let rows = "SELECT (SELECT count(*) FROM marker) + (SELECT count(*) FROM unique_window
                WHERE accepted_at > 'epoch') + (SELECT coalesce(sum(used), 0)::bigint FROM throttle_counter)";
    sql.query_one(rows, &[]).await.unwrap().get(0)
}
