//! The records: get, list, read the data of, acknowledge.

mod acknowledging;
mod pages;
mod rows;

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join;
use sluice_service::{
    Error, Kind, OrganisationId,
    answer_memory::{AnswerMemory, Room},
    postgres::{Meaning, classify, patiently},
};
use tokio_postgres::{Error as PgError, Statement};
use uuid::Uuid;

use crate::{
    filter::{Key, Walk},
    metrics,
    recent::Recent,
    result::{Record, State},
    sessions::{Tenants, within},
};
use acknowledging::{ACKNOWLEDGE, Asked, acknowledge, insist};
use pages::page;
pub use pages::{Next, Page};
use rows::{read, record};

/// Tries of an acknowledgement that comes before its result's record, or that deadlocks with
/// another call. Rows are locked in the order of their key, so only another kind of statement
/// could cause that.
const TRIES_MAX: u32 = 5;

const GET: &str = include_str!("../sql/get.sql");

/// The records in the results database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    tenants: Tenants,
    recent: Recent,
    answers: Arc<AnswerMemory>,
    metrics: Arc<metrics::Shelf>,
}

impl Shelf {
    /// Over sessions that see one organisation's rows, and what was recorded last; within
    /// the memory for answers.
    #[must_use]
    pub fn new(
        tenants: Tenants,
        recent: Recent,
        answers: Arc<AnswerMemory>,
        metrics: Arc<metrics::Shelf>,
    ) -> Self {
        Self { tenants, recent, answers, metrics }
    }

    /// One record.
    ///
    /// # Errors
    /// NOT_FOUND if the organisation has none with this id.
    pub async fn get(&self, organisation: &OrganisationId, id: Uuid) -> Result<Record, Error> {
        let session = self.tenants.borrow(organisation).await?;
        let found = patiently(within(&session, organisation, get(session.client(), organisation, id))).await;
        session.settle(found)?.ok_or_else(not_found)
    }

    /// One page of a walk: up to `page_size` records between two keys, and up to
    /// `data_bytes_max` bytes of their data.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer; RESOURCE_EXHAUSTED if there is no room
    /// for the data.
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
        let session = self.tenants.borrow(&walk.organisation).await?;
        let room = |bytes| self.room(&walk.organisation, bytes);
        let page = page(session.client(), &self.recent, walk, between, page_size, data_bytes_max, room);
        let outcome = patiently(within(&session, &walk.organisation, page)).await;
        let page = session.settle(outcome)?.ok_or_else(Error::overloaded)?;
        self.metrics.listed(page.records.len(), page.from_memory);
        Ok(page)
    }

    /// Of the memory for answers, room for so much data, if there is.
    fn room(&self, organisation: &OrganisationId, bytes: u64) -> Option<Room> {
        self.answers.room(organisation, usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// The data of a record that is kept inline, its checksum verified.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION (`EXPIRED`) if the data is gone; DATA_LOSS
    /// if it is not what was published; RESOURCE_EXHAUSTED if there is no room for it.
    pub async fn inline_data(&self, organisation: &OrganisationId, id: Uuid) -> Result<Bytes, Error> {
        let session = self.tenants.borrow(organisation).await?;
        let outcome = patiently(within(&session, organisation, async {
            let client = session.client();
            let Some(record) = get(client, organisation, id).await? else { return Ok(None) };
            let Some(room) = self.room(organisation, record.size) else {
                return Ok(Some((record, Err(Error::overloaded()))));
            };
            let data = read(client, organisation, &[&record]).await?.remove(&id).map(|data| room.hold(data));
            // The clean-up may have come between the two reads.
            let record = if data.is_none() { get(client, organisation, id).await? } else { Some(record) };
            Ok(record.map(|record| (record, Ok(data))))
        }))
        .await;
        let (record, data) = session.settle(outcome)?.ok_or_else(not_found)?;
        if record.state() == State::Expired {
            return Err(data_expired());
        }
        data?.ok_or_else(|| lost(organisation, id))
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
        for _ in 0..TRIES_MAX {
            let (moved, record) = self.try_acknowledge(organisation, id).await?;
            self.recent.forget(organisation, &moved);
            let record = record.ok_or_else(not_found)?;
            if record.state() == State::Expired && record.date_consumed.is_none() {
                return Err(expired("it expired before it was acknowledged"));
            }
            if record.state() != State::Available {
                return Ok((record, !moved.is_empty()));
            }
            // Recorded after it was looked for, and before it was read.
        }
        Err(Error::unavailable("the result was not acknowledged yet"))
    }

    /// What of a record was moved, and how it is afterwards.
    async fn try_acknowledge(
        &self,
        organisation: &OrganisationId,
        id: Uuid,
    ) -> Result<(Vec<Uuid>, Option<Record>), Error> {
        let session = self.tenants.borrow(organisation).await?;
        let outcome = patiently(within(&session, organisation, async {
            let client = session.client();
            let asked = Asked::of(client, &self.recent, organisation, &[id]).await?;
            // Both are prepared first, so that they are sent together and run in
            // this order: the second sees what the first committed.
            let acknowledging = client.prepare_cached(ACKNOWLEDGE).await?;
            let getting = client.prepare_cached(GET).await?;
            let moved = acknowledge(client, &acknowledging, &asked);
            let (moved, found) = try_join(moved, find(client, &getting, organisation, id)).await?;
            let Some(moved) = moved else {
                // Rare, and large.
                let moved = Box::pin(insist(client, &acknowledging, &asked));
                return try_join(moved, find(client, &getting, organisation, id)).await;
            };
            Ok((moved, found))
        }))
        .await;
        session.settle(outcome)
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
            let session = self.tenants.borrow(organisation).await?;
            let outcome = async {
                let client = session.client();
                let asked = Asked::of(client, &self.recent, organisation, &ids).await?;
                let acknowledging = client.prepare_cached(ACKNOWLEDGE).await?;
                match acknowledge(client, &acknowledging, &asked).await? {
                    Some(moved) => Ok(moved),
                    None => Box::pin(insist(client, &acknowledging, &asked)).await,
                }
            };
            match patiently(within(&session, organisation, outcome)).await {
                Ok(Err(error)) if tries < TRIES_MAX && classify(&error) == Meaning::Conflict => tries += 1,
                outcome => {
                    let moved = session.settle(outcome)?;
                    self.recent.forget(organisation, &moved);
                    return Ok(moved.into_iter().collect());
                }
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

/// What is said of data that the clean-up has removed.
pub fn data_expired() -> Error {
    expired("its data was removed after the retention")
}

/// What is said of data that is not what was published, and what the operator is told.
pub fn lost(organisation: &OrganisationId, id: Uuid) -> Error {
    tracing::error!(%organisation, %id, "the data kept is damaged or lost");
    Error::new(Kind::DataLoss, "CHECKSUM_MISMATCH", "the data kept is not what was published")
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
