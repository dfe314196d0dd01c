//! What consumers ask for, in the contract's messages: both surfaces convert to
//! these, call, and convert back. All that has to be decided is decided here or
//! on the shelf.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, AcknowledgeResultResponse, BatchAcknowledgeResultsRequest,
    DownloadResultRequest, GetResultRequest, ListResultsRequest, ListResultsResponse, Result as WireResult,
};
use sluice_service::{Error, Kind, OrganisationId, auth::Access};
use uuid::Uuid;

use crate::{
    convert,
    data::{Data, Parts},
    filter::{Key, Order, Walk},
    metrics,
    result::{Record, parse_id},
    shelf::Shelf,
};

/// Most ids in one batch.
const IDS_MAX: usize = 10_000;
/// How many bounded scans one page between two results may take. Each looks at
/// up to 10,000 records.
const SCANS_MAX: usize = 50;

/// Records whose URLs are made at the same time.
const SIGNING_AT_ONCE: usize = 16;

/// The calls.
#[derive(Clone, Debug)]
pub struct Calls {
    /// What they work on.
    pub shelf: Shelf,
    /// The data of it.
    pub data: Data,
    /// Where they are counted.
    pub metrics: Arc<metrics::Shelf>,
}

/// A page between two results, newest first.
#[derive(Debug)]
pub struct Neighbours {
    /// The results.
    pub results: Vec<WireResult>,
    /// Whether there are more in the direction that was asked for.
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
        let record = self.shelf.get(&organisation, id(&request.id)?).await?;
        self.tell(&organisation, record).await
    }

    /// The data of one result.
    pub async fn download(&self, access: &Access, request: DownloadResultRequest) -> Result<Parts, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let record = self.shelf.get(&organisation, id(&request.id)?).await?;
        self.data.download(&organisation, &record).await
    }

    /// A record as it is told.
    async fn tell(&self, organisation: &OrganisationId, record: Record) -> Result<WireResult, Error> {
        let config = self.data.config(organisation, &record).await?;
        let urls = self.data.urls(organisation, config.as_deref(), &record).await;
        Ok(convert::result(organisation, record, urls, None))
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
        // Unless a bucket signs there is nothing to wait for.
        if records.iter().all(|(record, _)| self.data.bucket_signs(config(record), record).is_none()) {
            let tell = |(record, data): (Record, Option<Bytes>)| {
                let urls = self.data.own_urls(organisation, config(&record), &record);
                convert::result(organisation, record, urls, data)
            };
            return Ok(records.into_iter().map(tell).collect());
        }
        let tell = |(record, data): (Record, Option<Bytes>)| {
            let config = config(&record);
            async move {
                let urls = self.data.urls(organisation, config, &record).await;
                convert::result(organisation, record, urls, data)
            }
        };
        let told: Vec<_> = records.into_iter().map(tell).collect();
        Ok(stream::iter(told).buffered(SIGNING_AT_ONCE).collect().await)
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
        let page = self.shelf.list(&asked.walk, between, asked.page_size, asked.data_bytes_max).await?;
        Ok(ListResultsResponse {
            results: self.tell_all(&asked.walk.organisation, page.records).await?,
            next_page_token: page.next.map(|last| asked.walk.token(last)).unwrap_or_default(),
        })
    }

    /// One page, newest first, of what lies after one result in that order and
    /// before another. With `before` alone it is the page that ends there.
    ///
    /// Other than [`Self::list`], which may end a page early, this goes on until
    /// the page is full: its caller can only continue after a result it was
    /// given.
    pub async fn list_between(
        &self,
        access: &Access,
        request: ListResultsRequest,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<Neighbours, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let mut asked = convert::list(organisation, request)?;
        let backwards = before.is_some() && after.is_none();
        asked.walk.order = if backwards { Order::OldestFirst } else { Order::NewestFirst };
        let (mut low, mut high) = asked.walk.interval("")?;
        if let Some(after) = after {
            high = high.min(self.place(&asked.walk, "after_id", after).await?);
        }
        if let Some(before) = before {
            low = low.max(self.place(&asked.walk, "before_id", before).await?);
        }
        let (mut records, has_more) = self.fill(&asked.walk, (low, high), asked.page_size).await?;
        if backwards {
            records.reverse();
        }
        let records = records.into_iter().map(|record| (record, None)).collect();
        let results = self.tell_all(&asked.walk.organisation, records).await?;
        Ok(Neighbours { results, has_more })
    }

    /// Up to `page_size` records of an interval, and whether there are more.
    async fn fill(
        &self,
        walk: &Walk,
        (mut low, mut high): (Key, Key),
        page_size: usize,
    ) -> Result<(Vec<Record>, bool), Error> {
        let mut records = Vec::new();
        for _ in 0..SCANS_MAX {
            let page = self.shelf.list(walk, (low, high), page_size - records.len(), 0).await?;
            records.extend(page.records.into_iter().map(|(record, _)| record));
            let Some(next) = page.next else { return Ok((records, false)) };
            if records.len() >= page_size {
                return Ok((records, true));
            }
            match walk.order {
                Order::NewestFirst => high = next,
                Order::OldestFirst => low = next,
            }
        }
        if records.is_empty() {
            let text = "too few match among too many: narrow the list by poll or date_created";
            return Err(Error::new(Kind::ResourceExhausted, "SCAN_TOO_LONG", text));
        }
        Ok((records, true))
    }

    /// Where a result of this organisation, in any state, stands in the order.
    async fn place(&self, walk: &Walk, field: &'static str, text: &str) -> Result<Key, Error> {
        let unknown = || Error::invalid(field, "must be the id of a result");
        let id = parse_id(text).ok_or_else(unknown)?;
        match self.shelf.get(&walk.organisation, id).await {
            Ok(record) => Ok(Key { date: record.date_created, id: record.id }),
            Err(error) if error.kind() == Kind::NotFound => Err(unknown()),
            Err(error) => Err(error),
        }
    }

    /// Counts a download that begins, and the bytes given out of it.
    #[must_use]
    pub fn counted(&self, parts: Parts) -> Parts {
        let metrics = self.metrics.clone();
        metrics.download();
        parts.inspect_ok(move |bytes| metrics.downloaded(bytes.len())).boxed()
    }

    /// Signs one result off.
    pub async fn acknowledge(
        &self,
        access: &Access,
        request: AcknowledgeResultRequest,
    ) -> Result<AcknowledgeResultResponse, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let (record, changed) = self.shelf.acknowledge(&organisation, id(&request.id)?).await?;
        self.metrics.acknowledged(usize::from(changed));
        let result = Some(self.tell(&organisation, record).await?);
        Ok(AcknowledgeResultResponse { result, changed })
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
        let mut moved = self.shelf.acknowledge_many(&organisation, ids.clone()).await?;
        self.metrics.acknowledged(moved.len());
        // Each once: taking an id out of the set tells it.
        Ok(ids.into_iter().filter(|id| moved.remove(id)).collect())
    }
}
