//! Files of storage type `db`: chunks of one size in the results database, written
//! a few at a time and read one by one, so that no file is ever in memory.

use std::{future::Future, ops::Range};

use bytes::Bytes;
use deadpool_postgres::Pool;
use futures_util::{Stream, stream};
use sluice_service::{
    Error, OrganisationId,
    postgres::{execute, query},
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::sessions::Tenants;

/// Size of every chunk but the last, in bytes.
const CHUNK_BYTES: usize = 512 * 1024;
/// Chunks written by one statement, and their size in bytes.
const CHUNKS_AT_ONCE: usize = 8;
pub const WRITTEN_BYTES: usize = CHUNKS_AT_ONCE * CHUNK_BYTES;
/// Most chunks removed by one statement: what takes a second or two where disks are slow.
/// A statement has a time limit, and a file may have more gigabytes than fit into it.
const REMOVED_AT_ONCE: i64 = 256;

/// Writes a file's chunks.
pub struct ChunkWriter {
    pool: Pool,
    organisation: OrganisationId,
    id: Uuid,
    bytes_max: u64,
    /// Chunks written so far.
    written: i32,
}

impl ChunkWriter {
    /// For a file that may have up to `bytes_max` bytes.
    #[must_use]
    pub fn new(pool: Pool, organisation: OrganisationId, id: Uuid, bytes_max: u64) -> Self {
        Self { pool, organisation, id, bytes_max, written: 0 }
    }

    /// Writes the next [`WRITTEN_BYTES`], or what is left at the end; `false` if they are too
    /// many.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<bool, Error> {
        let before = u64::from(self.written.unsigned_abs()) * CHUNK_BYTES as u64;
        if before + bytes.len() as u64 > self.bytes_max {
            return Ok(false);
        }
        let chunks: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
        let params: [&(dyn ToSql + Sync); 4] =
            [&self.organisation.as_str(), &self.id, &i64::from(self.written), &chunks];
        query(&self.pool, include_str!("sql/chunks_insert.sql"), &params).await?;
        self.written += i32::try_from(chunks.len()).map_err(Error::internal)?;
        Ok(true)
    }
}

/// Removes some of a file's chunks, and says whether there may be more.
///
/// # Errors
/// UNAVAILABLE if the database can't answer.
pub async fn remove_some(pool: &Pool, organisation: &OrganisationId, id: Uuid) -> Result<bool, Error> {
    let params: [&(dyn ToSql + Sync); 3] = [&organisation.as_str(), &id, &REMOVED_AT_ONCE];
    let removed = execute(pool, include_str!("sql/chunks_delete.sql"), &params).await?;
    Ok(removed >= REMOVED_AT_ONCE.unsigned_abs())
}

/// A part of a file's bytes, chunk by chunk. Where one is missing it ends with what
/// `missing` says.
pub fn read<Missing: Future<Output = Error> + Send>(
    tenants: Tenants,
    organisation: OrganisationId,
    id: Uuid,
    range: Range<u64>,
    missing: impl Fn() -> Missing + Clone + Send,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::try_unfold(range.start, move |at| {
        let (tenants, organisation, end) = (tenants.clone(), organisation.clone(), range.end);
        let missing = missing.clone();
        async move {
            if at >= end {
                return Ok(None);
            }
            let number = i32::try_from(at / CHUNK_BYTES as u64).map_err(Error::internal)?;
            let chunk = chunk(&tenants, &organisation, id, number).await?.unwrap_or_default();
            // Both are below the size of a chunk, or bounded by it.
            let skipped = usize::try_from(at % CHUNK_BYTES as u64).unwrap_or(usize::MAX).min(chunk.len());
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let part = chunk.slice(skipped..chunk.len().min(skipped.saturating_add(wanted)));
            if part.is_empty() {
                return Err(missing().await);
            }
            let next = at + part.len() as u64;
            Ok(Some((part, next)))
        }
    })
}

async fn chunk(
    tenants: &Tenants,
    organisation: &OrganisationId,
    id: Uuid,
    number: i32,
) -> Result<Option<Bytes>, Error> {
    let params: [&(dyn ToSql + Sync); 3] = [&organisation.as_str(), &id, &number];
    let rows = tenants.query(organisation, include_str!("sql/chunk_get.sql"), &params).await?;
    let bytes = rows.first().map(|row| row.try_get::<_, &[u8]>(0).map(Bytes::copy_from_slice));
    Ok(bytes.transpose()?)
}
