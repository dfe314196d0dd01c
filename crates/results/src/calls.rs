//! What consumers ask for, in the contract's messages: both surfaces convert to
//! these, call, and convert back. All that has to be decided is decided here or
//! on the shelf.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, AcknowledgeResultResponse, BatchAcknowledgeResultsRequest,
    DownloadResultRequest, GetResultRequest, ListResultsRequest, ListResultsResponse, Result as WireResult,
};
use sluice_service::{Error, Kind, OrganisationId, auth::Access};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    convert,
    data::{Data, Parts},
    filter::{Key, Order, Walk},
    metrics,
    result::{Record, parse_id},
    shelf::{Next, Page},
};

/// Most ids in one batch.
pub const IDS_MAX: usize = 10_000;
/// How many bounded scans one page between two results may take. Each looks at
/// up to 10,000 records.
const SCANS_MAX: usize = 50;
/// After this time no further scan is begun: its caller may have set no deadline.
const SCANNING_MAX: Duration = Duration::from_secs(5);

/// The calls.
#[derive(Clone, Debug)]
pub struct Calls {
    /// What they work on, and the data of it.
    pub data: Data,
    /// Where they are counted.
    pub metrics: Arc<metrics::Shelf>,
}

/// A page between two results, newest first.
#[derive(Debug)]
pub struct Neighbours {
    /// The results.
    pub results: Vec<WireResult>,
    /// Whether more lie between the two, older than these.
    pub has_more: bool,
}

/// An id that can be no result's is answered like one that is unknown.
///
/// # Errors
/// NOT_FOUND then.
pub fn id(text: &str) -> Result<Uuid, Error> {
    parse_id(text).ok_or_else(|| Error::not_found("result"))
}

impl Calls {
    /// One result.
    pub async fn get(&self, access: &Access, request: GetResultRequest) -> Result<WireResult, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let record = self.data.shelf.get(&organisation, id(&request.id)?).await?;
        self.tell(&organisation, record).await
    }

    /// The data of one result.
    pub async fn download(&self, access: &Access, request: DownloadResultRequest) -> Result<Parts, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let record = self.data.shelf.get(&organisation, id(&request.id)?).await?;
        self.give_out(&organisation, &record, None).await
    }

    /// The data of a record, whole, or a part of it.
    pub async fn give_out(
        &self,
        organisation: &OrganisationId,
        record: &Record,
        part: Option<Range<u64>>,
    ) -> Result<Parts, Error> {
        let parts = match part {
            None => self.data.download(organisation, record).await?,
            Some(part) => self.data.read(organisation, record, part).await?,
        };
        let metrics = self.metrics.clone();
        metrics.download();
        Ok(parts.inspect_ok(move |bytes| metrics.downloaded(bytes.len())).boxed())
    }

    /// A record as it is told.
    async fn tell(&self, organisation: &OrganisationId, record: Record) -> Result<WireResult, Error> {
        let told = self.tell_all(organisation, vec![(record, None)]).await?.pop();
        told.ok_or_else(|| Error::internal("a record was not told"))
    }

    /// Records as they are told, in order.
    async fn tell_all(
        &self,
        organisation: &OrganisationId,
        records: Vec<(Record, Option<Bytes>)>,
    ) -> Result<Vec<WireResult>, Error> {
        let mut configs = HashMap::new();
        for (record, _) in &records {
            if let Entry::Vacant(entry) = configs.entry(record.storage_config) {
                entry.insert(self.data.config(organisation, record).await?);
            }
        }
        let config = |record: &Record| configs.get(&record.storage_config).and_then(Option::as_deref);
        let by_bucket = records.iter().filter_map(|(record, _)| {
            let (config, until) = self.data.bucket_signs(config(record), record)?;
            Some((config, record.id, until))
        });
        let mut signed = self.data.sign(by_bucket).await;
        let tell = |(record, data): (Record, Option<Bytes>)| {
            let (url, own) = self.data.urls(organisation, config(&record), &record);
            let urls = (url, own.or_else(|| signed.remove(&record.id)));
            convert::result(organisation, record, urls, data)
        };
        Ok(records.into_iter().map(tell).collect())
    }

    /// One page of a walk.
    pub async fn list(
        &self,
        access: &Access,
        request: ListResultsRequest,
    ) -> Result<ListResultsResponse, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let asked = convert::list(organisation, request)?;
        let between = asked.walk.interval(&asked.page_token)?;
        let page = self.data.shelf.list(&asked.walk, between, asked.page_size, asked.data_bytes_max).await?;
        // Until the answer is put together; then that is accounted for.
        let _room = page.room;
        Ok(ListResultsResponse {
            results: self.tell_all(&asked.walk.organisation, page.records).await?,
            next_page_token: page.next.map(|next| asked.walk.token(next.after)).unwrap_or_default(),
        })
    }

    /// One page, newest first, of what lies after one result in that order, or from
    /// the newest on, and stops before another.
    ///
    /// Other than [`Self::list`], which may end a page early, this goes on until
    /// the page is full, within bounds: its caller can only continue after a result it
    /// was given.
    pub async fn list_between(
        &self,
        access: &Access,
        request: ListResultsRequest,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<Neighbours, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let mut asked = convert::list(organisation, request)?;
        asked.walk.order = Order::NewestFirst;
        let (mut low, mut high) = asked.walk.interval("")?;
        if let Some(after) = after {
            high = high.min(self.place(&asked.walk, "after_id", after).await?);
        }
        if let Some(before) = before {
            low = low.max(self.place(&asked.walk, "before_id", before).await?);
        }
        let walk = &asked.walk;
        let scan = |between, page_size| self.data.shelf.list(walk, between, page_size, 0);
        let (records, has_more) = fill((low, high), asked.page_size, scan).await?;
        let records = records.into_iter().map(|record| (record, None)).collect();
        let results = self.tell_all(&asked.walk.organisation, records).await?;
        Ok(Neighbours { results, has_more })
    }

    /// Where a result of this organisation, in any state, stands in the order.
    async fn place(&self, walk: &Walk, field: &'static str, text: &str) -> Result<Key, Error> {
        let unknown = || Error::invalid(field, "must be the id of a result");
        let id = parse_id(text).ok_or_else(unknown)?;
        match self.data.shelf.get(&walk.organisation, id).await {
            Ok(record) => Ok(Key { date: record.date_created, id: record.id }),
            Err(error) if error.kind() == Kind::NotFound => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// Acknowledges one result.
    pub async fn acknowledge(
        &self,
        access: &Access,
        request: AcknowledgeResultRequest,
    ) -> Result<AcknowledgeResultResponse, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let (record, changed) = self.data.shelf.acknowledge(&organisation, id(&request.id)?).await?;
        self.metrics.acknowledged(usize::from(changed));
        let result = match self.tell(&organisation, record.clone()).await {
            Ok(told) => told,
            // Nobody is told another time that it changed; where the data is, whoever asks.
            Err(error) if changed => {
                tracing::warn!(%organisation, id = %record.id, %error, "acknowledged, and told without URLs");
                convert::result(&organisation, record, Default::default(), None)
            }
            Err(error) => return Err(error),
        };
        Ok(AcknowledgeResultResponse { result: Some(result), changed })
    }

    /// Signs many off; the ids that this very call changed, in request order.
    pub async fn acknowledge_many(
        &self,
        access: &Access,
        request: BatchAcknowledgeResultsRequest,
    ) -> Result<Vec<Uuid>, Error> {
        let organisation = access.organisation(&request.organisation)?;
        if request.ids.len() > IDS_MAX {
            return Err(Error::invalid("ids", format!("at most {IDS_MAX} in one request")));
        }
        let ids: Vec<Uuid> = request.ids.iter().filter_map(|text| parse_id(text)).collect();
        let mut moved = self.data.shelf.acknowledge_many(&organisation, ids.clone()).await?;
        self.metrics.acknowledged(moved.len());
        // Each once: taking an id out of the set tells it.
        Ok(ids.into_iter().filter(|id| moved.remove(id)).collect())
    }
}

/// Up to `page_size` records of an interval, newest first, and whether there are more: that
/// too is looked for. Less than that once it has scanned for too long; then there may be.
async fn fill<Scan: Future<Output = Result<Page, Error>>>(
    (low, mut high): (Key, Key),
    page_size: usize,
    scan: impl Fn((Key, Key), usize) -> Scan,
) -> Result<(Vec<Record>, bool), Error> {
    let mut records = Vec::new();
    let began = Instant::now();
    for _ in 0..SCANS_MAX {
        // Of a full page, one more would say that there is one.
        let wanted = page_size.saturating_sub(records.len()).max(1);
        let page = scan((low, high), wanted).await?;
        records.extend(page.records.into_iter().map(|(record, _)| record));
        let is_more = records.len() > page_size;
        records.truncate(page_size);
        let Some(Next { after, seen }) = page.next.filter(|_| !is_more) else {
            return Ok((records, is_more));
        };
        if records.len() == page_size && seen {
            return Ok((records, true));
        }
        if began.elapsed() >= SCANNING_MAX {
            break;
        }
        high = after;
    }
    if records.is_empty() {
        let text = "too few match among too many: narrow the list by poll or date_created";
        return Err(Error::new(Kind::ResourceExhausted, "SCAN_TOO_LONG", text));
    }
    Ok((records, true))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        result::{Labels, NewRecord, Placement},
        time::Micros,
    };

    fn key(date: i64) -> Key {
        Key { date: Micros::from_raw(date), id: Uuid::nil() }
    }

    fn record() -> Record {
        let label = || "x".to_owned();
        let labels = Labels {
            definition: label(),
            poll: label(),
            task: label(),
            identifier: label(),
            media_type: label(),
        };
        let new = NewRecord::new("acme", &Uuid::now_v7().to_string(), labels, Bytes::new()).unwrap();
        new.kept(Placement { block: Uuid::nil(), offset: 0 }, Micros::from_raw(0))
    }

    /// What a page of ten is filled with by scans that take so long, each of which so many
    /// match, up to the last; and how many it took.
    async fn filled(
        takes: Duration,
        matching: impl Fn(i64) -> usize,
        last: i64,
    ) -> (Result<(usize, bool), &'static str>, i64) {
        let scans = Cell::new(0);
        let scan = |(_, high): (Key, Key), page_size| {
            // Each goes on where the one before ended.
            assert_eq!(high, key(1000 - scans.get()));
            let found = matching(scans.get());
            scans.set(scans.get() + 1);
            let records = vec![(record(), None); found.min(page_size)];
            let next = Next { after: key(1000 - scans.get()), seen: found > page_size };
            let next = Some(next).filter(|next| next.seen || scans.get() < last);
            async move {
                tokio::time::sleep(takes).await;
                Ok(Page { records, next, ..Page::default() })
            }
        };
        let filled = fill((key(0), key(1000)), 10, scan).await;
        let told = filled.map(|(records, more)| (records.len(), more)).map_err(|error| error.reason());
        (told, scans.get())
    }

    const QUICK: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(1);
    const ENDLESS: i64 = i64::MAX;

    #[tokio::test(start_paused = true)]
    async fn a_page_is_filled_by_so_many_scans_and_within_so_much_time() {
        assert_eq!(filled(QUICK, |_| 4, ENDLESS).await, (Ok((10, true)), 3));
        assert_eq!(filled(QUICK, |_| 0, ENDLESS).await, (Err("SCAN_TOO_LONG"), 50));
        assert_eq!(filled(QUICK, |_| 0, 50).await, (Ok((0, false)), 50));
        // What is found by then is told: its caller goes on after it.
        assert_eq!(filled(SLOW, |_| 1, ENDLESS).await, (Ok((5, true)), 5));
        assert_eq!(filled(SLOW, |_| 0, ENDLESS).await, (Err("SCAN_TOO_LONG"), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_more_where_more_was_seen_and_not_where_only_a_scan_ended() {
        let first = |count: usize| move |scan| if scan == 0 { count } else { 0 };
        assert_eq!(filled(QUICK, first(11), 3).await, (Ok((10, true)), 1));
        assert_eq!(filled(QUICK, first(10), 3).await, (Ok((10, false)), 3));
        assert_eq!(filled(QUICK, first(9), 3).await, (Ok((9, false)), 3));
        // One more is enough.
        let late = |scan| if scan == 0 { 10 } else { usize::from(scan == 2) };
        assert_eq!(filled(QUICK, late, 4).await, (Ok((10, true)), 3));
        assert_eq!(filled(QUICK, |scan| if scan == 0 { 10 } else { 7 }, 4).await, (Ok((10, true)), 2));
        // Nobody knows, within the bounds.
        assert_eq!(filled(QUICK, first(10), ENDLESS).await, (Ok((10, true)), 50));
        assert_eq!(filled(SLOW, first(10), ENDLESS).await, (Ok((10, true)), 5));
    }
}
