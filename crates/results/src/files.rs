//! Storing a file: its bytes flow into its storage as they come, counted and
//! hashed on the way, and are sealed when all are there. Before the first byte
//! there is a row that tells the clean-up of them, whatever happens.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use deadpool_postgres::Pool;
use futures_util::{FutureExt, Stream, StreamExt};
use md5::{Digest, Md5};
use sluice_proto::{
    limits::CHUNK_BYTES_MAX,
    results::v1::{FileUpload, StoreFileRequest, store_file_request::Part},
};
use sluice_service::{
    Error, Kind,
    rations::{Ration, Rations},
    shares::Owner,
};
use tokio::time::{Instant, timeout};
use tonic::Status;
use uuid::Uuid;

use crate::{
    chunks::{self, ChunkWriter},
    metrics,
    placing::{Destination, Placing},
    result::{Checksum, NAME_BYTES_MAX, Sealed, is_text, parse_id, parse_new_id},
    storage::{
        place::Place,
        sniff,
        store::{Store, StoreError},
        upload::{Upload, part_bytes},
    },
    uploads::{Key, Uploads},
};

/// So much of a file needs no room in the memory for parts.
const UNCOUNTED_BYTES_MAX: usize = 256 * 1024;
/// How often an upload under way gives a sign of life, at least.
const TOUCH_EVERY: Duration = Duration::from_secs(30);

/// Stores files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    /// Decides where they go.
    pub placing: Placing,
    /// Sessions for files in the results database.
    pub pool: Pool,
    /// Room for the parts that gather.
    pub memory: Arc<Rations>,
    /// An upload without a sign of life for so long is removed; a stream that
    /// pauses for longer is given up.
    pub idle: Duration,
    /// Largest file in the results database, in bytes.
    pub db_file_bytes_max: u64,
    /// Where they are counted.
    pub metrics: Arc<metrics::Shelf>,
}

/// What a stream begins with, checked.
struct Asked {
    key: Key,
    named: Option<Uuid>,
    media_type: Option<String>,
    checksum: Option<Checksum>,
}

fn invalid(reason: &'static str, message: &str) -> Error {
    Error::new(Kind::InvalidArgument, reason, message)
}

fn given_up() -> Error {
    Error::new(Kind::FailedPrecondition, "UPLOAD_EXISTS", "the id was uploaded, recorded or given up before")
}

fn too_large() -> Error {
    Error::new(Kind::ResourceExhausted, "FILE_TOO_LARGE", "the file is larger than its storage takes")
}

fn failed(error: StoreError) -> Error {
    match error {
        StoreError::TooLarge => too_large(),
        _ => Error::unavailable("the storage can't take the file now").because(error),
    }
}

impl Asked {
    fn read(upload: FileUpload) -> Result<Self, Error> {
        let organisation = upload.organisation.parse()?;
        let id = parse_new_id(&upload.id).ok_or_else(|| Error::invalid("id", "must be a UUIDv7"))?;
        if !is_text(&upload.r#type, NAME_BYTES_MAX) {
            let text = format!("must be up to {NAME_BYTES_MAX} bytes without U+0000");
            return Err(Error::invalid("type", text));
        }
        let checksum = match upload.checksum.as_str() {
            "" => None,
            hex => Some(
                Checksum::parse(hex).ok_or_else(|| Error::invalid("checksum", "must be 32 hex digits"))?,
            ),
        };
        Ok(Self {
            key: Key { organisation, id, config: None },
            named: parse_id(&upload.storage_config),
            media_type: Some(upload.r#type).filter(|given| !given.is_empty()),
            checksum,
        })
    }
}

impl Files {
    /// Stores what a stream brings, and seals it.
    ///
    /// # Errors
    /// As the contract says of StoreFile; nothing stays of the bytes then.
    pub async fn store(
        &self,
        stream: impl Stream<Item = Result<StoreFileRequest, Status>> + Unpin + Send,
    ) -> Result<Sealed, Error> {
        let stored = self.store_uncounted(stream).await;
        match &stored {
            Ok(sealed) => self.metrics.uploaded(sealed.size),
            Err(_) => self.metrics.upload_failed(),
        }
        stored
    }

    async fn store_uncounted(
        &self,
        mut stream: impl Stream<Item = Result<StoreFileRequest, Status>> + Unpin + Send,
    ) -> Result<Sealed, Error> {
        let first = self.next(&mut stream).await?;
        let Some(Part::Upload(upload)) = first else {
            return Err(invalid("UPLOAD_EXPECTED", "the first message must be the upload"));
        };
        let mut asked = Asked::read(upload)?;
        let organisation = asked.key.organisation.clone();
        let deciding = self.placing.deciding([(&organisation, asked.named)].into_iter()).await?;
        let destination = deciding.destination(&organisation, asked.named);
        let store = match destination {
            Destination::Wait => return Err(Error::unavailable("the storage is not usable now")),
            Destination::Database(_) => None,
            Destination::Bucket(config) => match self.placing.stores.open(config) {
                Ok(store) => Some(store),
                Err(why) => {
                    self.placing.doubts.look_into(config).await;
                    return Err(Error::unavailable("the storage is not usable now").because(why));
                }
            },
        };
        asked.key.config = destination.storage().config;
        if !self.placing.uploads.open(&asked.key).await? {
            return Err(given_up());
        }
        let sink = Sink::new(self, &asked.key, store);
        let stored = self.pour(&asked, sink, &mut stream).await;
        if let Err(error) = &stored {
            tracing::info!(%organisation, id = %asked.key.id, %error, "file not stored");
            // Its age tells the clean-up, should this not get through.
            let _told = self.placing.uploads.fail(&asked.key).await;
            if let (Destination::Bucket(config), Kind::Unavailable) = (destination, error.kind()) {
                self.placing.doubts.look_into(config).await;
            }
        }
        stored
    }

    async fn pour(
        &self,
        asked: &Asked,
        mut sink: Sink,
        stream: &mut (impl Stream<Item = Result<StoreFileRequest, Status>> + Unpin + Send),
    ) -> Result<Sealed, Error> {
        let (mut hash, mut size, mut touched) = (Md5::new(), 0_u64, Instant::now());
        while let Some(part) = self.next(stream).await? {
            let Part::Chunk(chunk) = part else {
                return Err(invalid("CHUNK_EXPECTED", "only the first message may be the upload"));
            };
            if chunk.len() > CHUNK_BYTES_MAX {
                return Err(invalid("CHUNK_TOO_LARGE", "a chunk must be up to 1 MiB"));
            }
            size += chunk.len() as u64;
            hash.update(&chunk);
            sink.write(asked, chunk).await?;
            if touched.elapsed() > TOUCH_EVERY.min(self.idle / 4) {
                sink.touch().await?;
                touched = Instant::now();
            }
        }
        let checksum = Checksum::from(hash);
        if asked.checksum.is_some_and(|declared| declared != checksum) {
            return Err(invalid("CHECKSUM_MISMATCH", "the bytes are not those of the checksum"));
        }
        // From here on nothing may take longer than the clean-up waits.
        sink.touch().await?;
        let media_type = sink.finish(asked).await?;
        let sealed = Sealed { checksum, size, media_type };
        if self.placing.uploads.seal(&asked.key, &sealed).await? { Ok(sealed) } else { Err(given_up()) }
    }

    /// The next part of a stream. `None`: all is there.
    async fn next(
        &self,
        stream: &mut (impl Stream<Item = Result<StoreFileRequest, Status>> + Unpin),
    ) -> Result<Option<Part>, Error> {
        let next = timeout(self.idle, stream.next());
        match next.await {
            Err(_) => Err(Error::new(Kind::DeadlineExceeded, "IDLE", "no bytes came for too long")),
            Ok(None) => {
                // A caller's cancellation looks like the end of its stream. Whoever
                // serves this call notices it when the call waits, and drops it: so
                // nothing is done after the end before having waited once.
                tokio::task::yield_now().await;
                Ok(None)
            }
            Ok(Some(Ok(StoreFileRequest { part: Some(part) }))) => Ok(Some(part)),
            Ok(Some(Ok(_))) => Err(invalid("EMPTY_MESSAGE", "each message must be the upload or a chunk")),
            Ok(Some(Err(_))) => Err(invalid("BROKEN_STREAM", "the stream broke off")),
        }
    }
}

/// Where a file's bytes go.
struct Sink {
    uploads: Uploads,
    key: Key,
    /// The first bytes, for finding the type.
    first: BytesMut,
    /// The next part. Copied, since a chunk keeps more alive than itself, and many are small.
    gathered: BytesMut,
    /// For the part, once it is more than what needs none.
    room: Option<Ration>,
    memory: Arc<Rations>,
    /// How long room is waited for.
    patience: Duration,
    target: Target,
}

enum Target {
    /// A bucket, not written to yet: a file of one part is written whole.
    Whole(Store),
    /// A bucket, in parts.
    Parts(Upload),
    /// The results database.
    Chunks(ChunkWriter),
}

impl Target {
    /// How many bytes are written at once, and how many are in memory then.
    fn part_bytes(&self) -> (usize, usize) {
        match self {
            Self::Whole(_) => (part_bytes(0), part_bytes(0)),
            Self::Parts(upload) => (part_bytes(upload.parts()), part_bytes(upload.parts())),
            // A statement has a copy of them.
            Self::Chunks(_) => (chunks::WRITTEN_BYTES, 2 * chunks::WRITTEN_BYTES),
        }
    }
}

impl Sink {
    fn new(files: &Files, key: &Key, store: Option<Store>) -> Self {
        let target = match store {
            Some(store) => Target::Whole(store),
            None => Target::Chunks(ChunkWriter::new(
                files.pool.clone(),
                key.organisation.clone(),
                key.id,
                files.db_file_bytes_max,
            )),
        };
        Self {
            uploads: files.placing.uploads.clone(),
            key: key.clone(),
            first: BytesMut::new(),
            gathered: BytesMut::new(),
            room: None,
            memory: files.memory.clone(),
            // The clean-up waits for longer.
            patience: files.idle / 2,
            target,
        }
    }

    async fn write(&mut self, asked: &Asked, mut chunk: Bytes) -> Result<(), Error> {
        let wanted = sniff::BYTES.saturating_sub(self.first.len()).min(chunk.len());
        self.first.extend_from_slice(&chunk[..wanted]);
        while !chunk.is_empty() {
            let (part, in_memory) = self.target.part_bytes();
            let some = chunk.split_to(chunk.len().min(part - self.gathered.len()));
            if self.room.is_none() && self.gathered.len() + some.len() > UNCOUNTED_BYTES_MAX {
                self.take_room(in_memory).await?;
                self.gathered.reserve(part - self.gathered.len());
            }
            self.gathered.extend_from_slice(&some);
            if self.gathered.len() == part {
                if let Target::Whole(_) = self.target {
                    self.begin_parts(asked).await?;
                }
                self.pass_on().await?;
            }
        }
        Ok(())
    }

    /// Takes room for a part; waits while there is none, and has a sign of life before.
    async fn take_room(&mut self, bytes: usize) -> Result<(), Error> {
        let memory = self.memory.clone();
        let owner = Owner::from(&self.key.organisation);
        let mut room = Box::pin(timeout(self.patience, memory.take(&owner, bytes)));
        let room = match room.as_mut().now_or_never() {
            Some(room) => room,
            None => {
                self.touch().await?;
                room.await
            }
        };
        self.room = Some(room.map_err(|late| Error::overloaded().because(late))?);
        Ok(())
    }

    /// Goes over to writing in parts.
    async fn begin_parts(&mut self, asked: &Asked) -> Result<(), Error> {
        let media_type = self.media_type(asked, false);
        let Target::Whole(store) = &self.target else { return Ok(()) };
        let key = object_key(store.place(), &self.key);
        let upload = store.begin(&key, &media_type).await.map_err(failed)?;
        let multipart = upload.multipart().map(str::to_owned);
        self.target = Target::Parts(upload);
        // The clean-up has to know its name before there is anything to remove.
        if self.uploads.touch(&self.key, multipart.as_deref()).await? { Ok(()) } else { Err(given_up()) }
    }

    /// Writes what is gathered. Its room is free again when it is written.
    async fn pass_on(&mut self) -> Result<(), Error> {
        let (part, room) = (std::mem::take(&mut self.gathered).freeze(), self.room.take());
        match &mut self.target {
            Target::Whole(_) => Ok(()),
            Target::Parts(upload) => upload.send(part, room).await.map_err(failed),
            Target::Chunks(chunks) => {
                if chunks.write(&part).await? {
                    Ok(())
                } else {
                    Err(too_large())
                }
            }
        }
    }

    async fn touch(&mut self) -> Result<(), Error> {
        if self.uploads.touch(&self.key, None).await? { Ok(()) } else { Err(given_up()) }
    }

    /// Completes the object; its media type.
    async fn finish(mut self, asked: &Asked) -> Result<String, Error> {
        let media_type = self.media_type(asked, self.first.len() < sniff::BYTES);
        if let Target::Whole(store) = &self.target {
            let key = object_key(store.place(), &self.key);
            store.put(&key, self.gathered.freeze(), &media_type).await.map_err(failed)?;
            return Ok(media_type);
        }
        if !self.gathered.is_empty() {
            self.pass_on().await?;
        }
        if let Target::Parts(upload) = self.target {
            upload.finish().await.map_err(failed)?;
        }
        Ok(media_type)
    }

    fn media_type(&self, asked: &Asked, whole: bool) -> String {
        asked.media_type.clone().unwrap_or_else(|| sniff::media_type(&self.first, whole).to_owned())
    }
}

fn object_key(place: &Place, key: &Key) -> object_store::path::Path {
    place.key(&key.organisation, key.id)
}
