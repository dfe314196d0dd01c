//! The records: get, list, read the data of, acknowledge. The gRPC surface (and
//! any other) calls these and decides nothing itself.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
};

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::{
    TryStreamExt,
    future::{try_join, try_join4},
};
use sluice_service::{
    Error, Kind, OrganisationId,
    postgres::{Failure, classify, patiently},
};
use tokio_postgres::{Error as PgError, Row, Statement, types::ToSql};
use uuid::Uuid;

use crate::{
    filter::{Key, Order, Source, States, Walk},
    result::{Checksum, Labels, Placement, Record, State},
    sessions::{Tenants, within},
    storage::inline::{self, Block},
    time::Micros,
};

/// Tries of a call that deadlocks with another. Rows are locked in the order of
/// their key, so only another kind of statement could cause that.
const TRIES_MAX: u32 = 5;

const GET: &str = include_str!("sql/get.sql");
const BLOCKS: &str = include_str!("sql/blocks.sql");
const ACKNOWLEDGE: &str = include_str!("sql/acknowledge.sql");

fn list_statement(source: Source, order: Order) -> &'static str {
    match (source, order) {
        (Source::Available, Order::NewestFirst) => include_str!("sql/list_available_newest.sql"),
        (Source::Available, Order::OldestFirst) => include_str!("sql/list_available_oldest.sql"),
        (Source::Poll, Order::NewestFirst) => include_str!("sql/list_poll_newest.sql"),
        (Source::Poll, Order::OldestFirst) => include_str!("sql/list_poll_oldest.sql"),
        (Source::All, Order::NewestFirst) => include_str!("sql/list_all_newest.sql"),
        (Source::All, Order::OldestFirst) => include_str!("sql/list_all_oldest.sql"),
    }
}

/// One page of a list.
#[derive(Debug, Default)]
pub struct Page {
    /// The records, each with its data if it was asked for and fits.
    pub records: Vec<(Record, Option<Bytes>)>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Key>,
}

/// The records in the results database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    tenants: Tenants,
}

impl Shelf {
    /// Over sessions that see one organisation's rows.
    #[must_use]
    pub fn new(tenants: Tenants) -> Self {
        Self { tenants }
    }

    /// One record.
    ///
    /// # Errors
    /// NOT_FOUND if the organisation has none with this id.
    pub async fn get(&self, organisation: &OrganisationId, id: Uuid) -> Result<Record, Error> {
        let session = self.tenants.borrow().await?;
        let found = patiently(within(&session, organisation, get(session.client(), organisation, id))).await;
        session.settle(found)?.ok_or_else(not_found)
    }

    /// One page of a walk: up to `page_size` records between two keys, and up to
    /// `data_bytes_max` bytes of their data.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn list(
        &self,
        walk: &Walk,
        between: (Key, Key),
        page_size: usize,
        data_bytes_max: usize,
    ) -> Result<Page, Error> {
        if walk.filter.is_void() || between.0 >= between.1 {
            return Ok(Page::default());
        }
        let session = self.tenants.borrow().await?;
        let outcome = patiently(within(&session, &walk.organisation, async {
            let rows = list(session.client(), walk, between, page_size).await?;
            let (records, next) = cut(&rows, page_size)?;
            let mut data = HashMap::new();
            if data_bytes_max > 0 {
                let wanted = inline::fitting(&records, data_bytes_max);
                data = read(session.client(), &walk.organisation, &wanted).await?;
            }
            let with_data = |record: Record| {
                let data = data.remove(&record.id);
                (record, data)
            };
            Ok(Page { records: records.into_iter().map(with_data).collect(), next })
        }))
        .await;
        session.settle(outcome)
    }

    /// The data of a record that is kept inline, its checksum verified.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION (`EXPIRED`) if the data is gone; DATA_LOSS
    /// if it is not what was published.
    pub async fn inline_data(&self, organisation: &OrganisationId, id: Uuid) -> Result<Bytes, Error> {
        let session = self.tenants.borrow().await?;
        let outcome = patiently(within(&session, organisation, async {
            let client = session.client();
            let Some(record) = get(client, organisation, id).await? else { return Ok(None) };
            let data = read(client, organisation, &[&record]).await?.remove(&id);
            // The clean-up may have come between the two reads.
            let record = if data.is_none() { get(client, organisation, id).await? } else { Some(record) };
            Ok(record.map(|record| (record, data)))
        }))
        .await;
        let (record, data) = session.settle(outcome)?.ok_or_else(not_found)?;
        if record.state() == State::Expired {
            return Err(expired("its data was removed after the retention"));
        }
        data.ok_or_else(|| {
            tracing::error!(%organisation, %id, "the data kept is damaged or lost");
            Error::new(Kind::DataLoss, "CHECKSUM_MISMATCH", "the data kept is not what was published")
        })
    }

    /// Moves a record from AVAILABLE to CONSUMED; `true` if this very call did.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION (`EXPIRED`) if it expired before it was
    /// consumed.
    pub async fn acknowledge(
        &self,
        organisation: &OrganisationId,
        id: Uuid,
    ) -> Result<(Record, bool), Error> {
        let session = self.tenants.borrow().await?;
        let outcome = patiently(within(&session, organisation, async {
            let client = session.client();
            // Both are prepared first, so that they are sent together and run in
            // this order: the second sees what the first committed.
            let acknowledging = client.prepare_cached(ACKNOWLEDGE).await?;
            let getting = client.prepare_cached(GET).await?;
            let ids = [id];
            let moved = acknowledge(client, &acknowledging, organisation, &ids);
            let (moved, found) = try_join(moved, find(client, &getting, organisation, id)).await?;
            let Some(moved) = moved else {
                // Rare, and large.
                let moved = Box::pin(insist(client, &acknowledging, organisation, &ids));
                return try_join(moved, find(client, &getting, organisation, id)).await;
            };
            Ok((moved, found))
        }))
        .await;
        let (moved, record) = session.settle(outcome)?;
        let record = record.ok_or_else(not_found)?;
        if record.state() == State::Expired && record.date_consumed.is_none() {
            return Err(expired("it expired before it was acknowledged"));
        }
        Ok((record, !moved.is_empty()))
    }

    /// Moves many records from AVAILABLE to CONSUMED; the ids that this very
    /// call moved. Other ids are passed over.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer: all or none were moved.
    pub async fn acknowledge_many(
        &self,
        organisation: &OrganisationId,
        mut ids: Vec<Uuid>,
    ) -> Result<HashSet<Uuid>, Error> {
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let mut tries = 1;
        loop {
            let session = self.tenants.borrow().await?;
            let outcome = async {
                let client = session.client();
                let acknowledging = client.prepare_cached(ACKNOWLEDGE).await?;
                match acknowledge(client, &acknowledging, organisation, &ids).await? {
                    Some(moved) => Ok(moved),
                    None => Box::pin(insist(client, &acknowledging, organisation, &ids)).await,
                }
            };
            match patiently(within(&session, organisation, outcome)).await {
                Ok(Err(error)) if tries < TRIES_MAX && classify(&error) == Failure::Conflict => tries += 1,
                outcome => return Ok(session.settle(outcome)?.into_iter().collect()),
            }
        }
    }
}

fn not_found() -> Error {
    Error::not_found("result")
}

fn expired(message: &'static str) -> Error {
    Error::new(Kind::FailedPrecondition, "EXPIRED", message)
}

async fn get(
    client: &ClientWrapper,
    organisation: &OrganisationId,
    id: Uuid,
) -> Result<Option<Record>, PgError> {
    let statement = client.prepare_cached(GET).await?;
    find(client, &statement, organisation, id).await
}

async fn find(
    client: &ClientWrapper,
    statement: &Statement,
    organisation: &OrganisationId,
    id: Uuid,
) -> Result<Option<Record>, PgError> {
    let row = client.query_opt(statement, &[&organisation.as_str(), &id]).await?;
    row.as_ref().map(record).transpose()
}

/// What was moved; `None` if another call was at the same batches at this moment.
async fn acknowledge(
    client: &ClientWrapper,
    statement: &Statement,
    organisation: &OrganisationId,
    ids: &[Uuid],
) -> Result<Option<Vec<Uuid>>, PgError> {
    let rows = client.query(statement, &[&organisation.as_str(), &ids]).await?;
    let mut moved = Vec::with_capacity(ids.len());
    for batch in &rows {
        match batch.try_get::<_, Option<Vec<Uuid>>>(0)? {
            Some(ids) => moved.extend(ids),
            None => return Ok(None),
        }
    }
    Ok(Some(moved))
}

/// Acknowledges what other calls are at, too: the first try waits for them and locks,
/// the second does it. One round trip.
async fn insist(
    client: &ClientWrapper,
    statement: &Statement,
    organisation: &OrganisationId,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, PgError> {
    // Polled in this order, so sent in this order. If one fails, COMMIT rolls back.
    let (_, first, second, _) = try_join4(
        client.batch_execute("BEGIN"),
        acknowledge(client, statement, organisation, ids),
        acknowledge(client, statement, organisation, ids),
        client.batch_execute("COMMIT"),
    )
    .await?;
    Ok([first, second].into_iter().flatten().flatten().collect())
}

/// Asks for one record more than the page holds, to know whether there is one.
async fn list(
    client: &ClientWrapper,
    walk: &Walk,
    (low, high): (Key, Key),
    page_size: usize,
) -> Result<Vec<Row>, PgError> {
    let filter = &walk.filter;
    let source = filter.source();
    let statement = client.prepare_cached(list_statement(source, walk.order)).await?;
    let organisation = walk.organisation.as_str();
    let limit = i64::try_from(page_size).unwrap_or(i64::MAX).saturating_add(1);
    let checksum = filter.checksum.map(Checksum::to_uuid);
    let States { available, consumed, expired } = filter.states;
    let (consumed_from, consumed_until) = filter.date_consumed.map(|r| (r.from, r.until)).unzip();
    let (deleted_from, deleted_until) = filter.date_deleted.map(|r| (r.from, r.until)).unzip();
    let params: [&(dyn ToSql + Sync); 17] = [
        &organisation,
        &low.date,
        &low.id,
        &high.date,
        &high.id,
        &limit,
        &filter.task,
        &filter.identifier,
        &checksum,
        &expired,
        &consumed,
        &available,
        &consumed_from,
        &consumed_until,
        &deleted_from,
        &deleted_until,
        &filter.poll,
    ];
    let used = match source {
        Source::Available => 9,
        Source::All => 16,
        Source::Poll => 17,
    };
    client.query(&statement, &params[..used]).await
}

/// What the rows of a list say: the page's records, and where the next begins.
fn cut(rows: &[Row], page_size: usize) -> Result<(Vec<Record>, Option<Key>), PgError> {
    let mut records = Vec::with_capacity(rows.len().min(page_size));
    let mut scan_end = None;
    for row in rows {
        if row.try_get::<_, Option<&str>>("definition")?.is_none() {
            scan_end = Some(Key { date: row.try_get("date_created")?, id: row.try_get("id")? });
        } else if records.len() < page_size {
            records.push(record(row)?);
        }
    }
    let more = rows.len() > page_size && scan_end.is_none();
    let last = records.last().map(|record| Key { date: record.date_created, id: record.id });
    Ok((records, if more { last } else { scan_end }))
}

fn record(row: &Row) -> Result<Record, PgError> {
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
async fn read(
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
