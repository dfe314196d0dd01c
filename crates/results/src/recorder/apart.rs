//! Recording results whose data is kept apart from them: in a bucket, or in chunks.

use std::collections::HashSet;

use deadpool_postgres::Pool;
use sluice_service::{Error, postgres::query};
use tokio_postgres::types::ToSql;

use super::columns::Described;
use crate::{
    result::{NewRecord, ResultName},
    uploads::{columns, name},
};

/// Records without their data. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Apart {
    pool: Pool,
}

impl Apart {
    /// Over a pool of sessions.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Those of these that are recorded, with or without their data.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn known(&self, names: &[ResultName]) -> Result<HashSet<ResultName>, Error> {
        if names.is_empty() {
            return Ok(HashSet::new());
        }
        let (organisations, ids) = columns(names);
        let rows = query(&self.pool, include_str!("../sql/known.sql"), &[&organisations, &ids]).await?;
        rows.iter().map(name).collect()
    }

    /// Records results whose data is stored. Answers those whose upload was there:
    /// they are recorded, now or before.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer: all or none were recorded.
    pub async fn record(&self, records: &[NewRecord]) -> Result<HashSet<ResultName>, Error> {
        let mut records: Vec<&NewRecord> = records.iter().collect();
        let mut given = HashSet::new();
        records.retain(|record| given.insert((&record.organisation, record.id)));
        records.sort_unstable_by(|a, b| NewRecord::order(a, b));
        let of = Described::of(records.iter().copied());
        let params: [&(dyn ToSql + Sync); 11] = [
            &of.sizes,
            &of.ids,
            &of.checksums,
            &of.configs,
            &of.organisations,
            &of.definitions,
            &of.polls,
            &of.tasks,
            &of.identifiers,
            &of.types,
            &of.signed_urls_seconds,
        ];
        let rows = query(&self.pool, include_str!("../sql/record_apart.sql"), &params).await?;
        rows.iter().map(name).collect()
    }
}
