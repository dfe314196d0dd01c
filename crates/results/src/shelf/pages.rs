//! Pages of lists.

use std::collections::HashMap;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use sluice_service::answer_memory::Room;
use tokio_postgres::{Error as PgError, Row, types::ToSql};
use uuid::Uuid;

use super::rows::{read, record};
use crate::{
    filter::{Filter, Key, Order, Source, States, Walk},
    recent::Recent,
    result::{Checksum, Record},
    storage::inline,
};

const RECORDS: &str = include_str!("../sql/records.sql");

/// One page of a list.
#[derive(Debug, Default)]
pub struct Page {
    /// The records, each with its data if it was asked for and fits.
    pub records: Vec<(Record, Option<Bytes>)>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Next>,
    /// How many of the records were in memory.
    pub from_memory: usize,
    /// Of the memory for answers, what the data takes.
    pub room: Option<Room>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// After this place.
    pub after: Key,
    /// Whether something was seen there. Else it is only where a scan ended, and nothing may
    /// follow.
    pub seen: bool,
}

/// One page of a walk between two keys, with up to `data_bytes_max` bytes of data. `None`
/// if there is no room for it: that is found out before it is read.
pub async fn page(
    client: &ClientWrapper,
    recent: &Recent,
    walk: &Walk,
    between: (Key, Key),
    page_size: usize,
    data_bytes_max: usize,
    room: impl Fn(u64) -> Option<Room>,
) -> Result<Option<Page>, PgError> {
    let (records, next) = if is_default(&walk.filter) {
        waiting(client, recent, walk, between, page_size).await?
    } else {
        let (records, next) = cut(&list(client, walk, between, page_size).await?, page_size)?;
        (records.into_iter().map(|record| (record, None)).collect(), next)
    };
    let from_memory = records.iter().filter(|(_, data)| data.is_some()).count();
    let fit = inline::fitting(records.iter().map(|(record, _)| record), data_bytes_max);
    let sizes = records.iter().zip(&fit).filter(|(_, fits)| **fits).map(|((record, _), _)| record.size);
    let Some(room) = room(sizes.sum()) else { return Ok(None) };
    let unread = records.iter().zip(&fit).filter(|((_, data), fits)| **fits && data.is_none());
    let unread: Vec<&Record> = unread.map(|((record, _), _)| record).collect();
    let mut read = read(client, &walk.organisation, &unread).await?;
    let with_data = |((record, data), fits): ((Record, Option<Bytes>), bool)| {
        let data = if fits { data.or_else(|| read.remove(&record.id)) } else { None };
        (record, data)
    };
    let records = records.into_iter().zip(fit).map(with_data).collect();
    Ok(Some(Page { records, next, from_memory, room: Some(room) }))
}

/// Whether all that is AVAILABLE is asked for, of some time.
fn is_default(filter: &Filter) -> bool {
    let Filter { task, identifier, checksum, .. } = filter;
    filter.source() == Source::Available && task.is_none() && identifier.is_none() && checksum.is_none()
}

/// What is AVAILABLE: the database says which; what they are is in memory, with the
/// data, or in the database, too.
async fn waiting(
    client: &ClientWrapper,
    recent: &Recent,
    walk: &Walk,
    (low, high): (Key, Key),
    page_size: usize,
) -> Result<(Vec<(Record, Option<Bytes>)>, Option<Next>), PgError> {
    let statement = client
        .prepare_cached(match walk.order {
            Order::NewestFirst => include_str!("../sql/walk_available_newest.sql"),
            Order::OldestFirst => include_str!("../sql/walk_available_oldest.sql"),
        })
        .await?;
    let organisation = walk.organisation.as_str();
    let limit = limit(page_size);
    let params: [&(dyn ToSql + Sync); 6] = [&organisation, &low.date, &low.id, &high.date, &high.id, &limit];
    let rows = client.query(&statement, &params).await?;
    let key = |row: &Row| Ok(Key { date: row.try_get(0)?, id: row.try_get(1)? });
    let keys: Vec<Key> = rows.iter().take(page_size).map(key).collect::<Result<_, PgError>>()?;
    let remembered = recent.records(&walk.organisation, &keys);
    let forgotten = keys.iter().zip(&remembered).filter(|(_, remembered)| remembered.is_none());
    let forgotten: Vec<Uuid> = forgotten.map(|(key, _)| key.id).collect();
    let mut read = HashMap::with_capacity(forgotten.len());
    if !forgotten.is_empty() {
        let statement = client.prepare_cached(RECORDS).await?;
        for row in client.query(&statement, &[&organisation, &forgotten]).await? {
            let record = record(&row)?;
            read.insert(record.id, record);
        }
    }
    let records = keys.iter().zip(remembered).filter_map(|(key, remembered)| match remembered {
        Some((record, data)) => Some((record, Some(data))),
        None => Some((read.remove(&key.id)?, None)),
    });
    let last = keys.last().filter(|_| rows.len() > page_size);
    Ok((records.collect(), last.map(|last| Next { after: *last, seen: true })))
}

/// Asks for one more than the page holds, to know whether there is one.
fn limit(page_size: usize) -> i64 {
    i64::try_from(page_size).unwrap_or(i64::MAX).saturating_add(1)
}

fn list_statement(source: Source, order: Order) -> &'static str {
    match (source, order) {
        (Source::Available, Order::NewestFirst) => include_str!("../sql/list_available_newest.sql"),
        (Source::Available, Order::OldestFirst) => include_str!("../sql/list_available_oldest.sql"),
        (Source::Poll, Order::NewestFirst) => include_str!("../sql/list_poll_newest.sql"),
        (Source::Poll, Order::OldestFirst) => include_str!("../sql/list_poll_oldest.sql"),
        (Source::All, Order::NewestFirst) => include_str!("../sql/list_all_newest.sql"),
        (Source::All, Order::OldestFirst) => include_str!("../sql/list_all_oldest.sql"),
    }
}

/// What matches, and a row more than the page holds if there is one.
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
    let limit = limit(page_size);
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
fn cut(rows: &[Row], page_size: usize) -> Result<(Vec<Record>, Option<Next>), PgError> {
    let mut records = Vec::with_capacity(rows.len().min(page_size));
    let mut scan_end = None;
    for row in rows {
        if row.try_get::<_, Option<&str>>("definition")?.is_none() {
            let after = Key { date: row.try_get("date_created")?, id: row.try_get("id")? };
            scan_end = Some(Next { after, seen: false });
        } else if records.len() < page_size {
            records.push(record(row)?);
        }
    }
    let more = rows.len() > page_size && scan_end.is_none();
    let last = records.last().map(|record| Key { date: record.date_created, id: record.id });
    let last = last.map(|after| Next { after, seen: true });
    Ok((records, if more { last } else { scan_end }))
}
