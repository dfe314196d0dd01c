//! Records and their data, as the database tells them.

use std::{collections::HashMap, pin::pin};

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::TryStreamExt;
use sluice_service::OrganisationId;
use tokio_postgres::{Error as PgError, Row, types::ToSql};
use uuid::Uuid;

use crate::{
    result::{Labels, Placement, Record},
    storage::inline::{self, Block},
    time::Micros,
};

const BLOCKS: &str = include_str!("../sql/blocks.sql");

/// A record, as the statements that read records tell it.
pub fn record(row: &Row) -> Result<Record, PgError> {
    let block: Option<Uuid> = row.try_get("block")?;
    let offset: Option<i32> = row.try_get("block_offset")?;
    let placement = block
        .zip(offset)
        .map(|(block, offset)| Placement { block, offset: usize::try_from(offset).unwrap_or(usize::MAX) });
    Ok(Record {
        id: row.try_get("id")?,
        labels: Labels {
            definition: row.try_get("definition")?,
            poll: row.try_get("poll")?,
            task: row.try_get("task")?,
            identifier: row.try_get("identifier")?,
            media_type: row.try_get("type")?,
        },
        checksum: row.try_get::<_, Uuid>("checksum")?.into(),
        size: u64::try_from(row.try_get::<_, i64>("size")?).unwrap_or(0),
        placement,
        storage_config: row.try_get("storage_config")?,
        date_created: row.try_get("date_created")?,
        date_consumed: row.try_get::<_, Option<Micros>>("date_consumed")?,
        date_deleted: row.try_get::<_, Option<Micros>>("date_deleted")?,
        expired: row.try_get("expired")?,
        signed_urls_seconds: row.try_get("signed_urls_seconds")?,
    })
}

/// The data of some inline records, by id, each verified; what is damaged or
/// gone is left out. Blocks are opened one at a time, so that no more is in
/// memory than what was asked for and one block.
pub async fn read(
    client: &ClientWrapper,
    organisation: &OrganisationId,
    records: &[&Record],
) -> Result<HashMap<Uuid, Bytes>, PgError> {
    let mut by_block: HashMap<Uuid, Vec<&Record>> = HashMap::new();
    for record in records {
        if let Some(placement) = record.placement {
            by_block.entry(placement.block).or_default().push(record);
        }
    }
    let mut data = HashMap::with_capacity(records.len());
    if by_block.is_empty() {
        return Ok(data);
    }
    let blocks: Vec<Uuid> = by_block.keys().copied().collect();
    let statement = client.prepare_cached(BLOCKS).await?;
    let params: [&(dyn ToSql + Sync); 2] = [&organisation.as_str(), &blocks];
    let rows = client.query_raw(&statement, params).await?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await? {
        let id: Uuid = row.try_get("id")?;
        let block = Block { size: row.try_get("size")?, bytes: row.try_get("bytes")? };
        let opened = block.open();
        for record in by_block.remove(&id).unwrap_or_default() {
            match opened.as_deref().and_then(|bytes| inline::slice(bytes, record)) {
                Some(bytes) => drop(data.insert(record.id, Bytes::copy_from_slice(bytes))),
                None => tracing::error!(%organisation, id = %record.id, block = %id, "data damaged"),
            }
        }
    }
    Ok(data)
}
