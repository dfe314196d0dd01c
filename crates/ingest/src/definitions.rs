//! The store of definitions: what callers put, get, list and delete. Every
//! change counts up the registry's revision in the same transaction.

use deadpool_postgres::Pool;
use sluice_service::{
    Error, Kind, OrganisationId,
    postgres::{TxError, query},
    transaction,
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::definition::{Definition, Draft};

/// Longest page of a list.
pub const PAGE_SIZE_MAX: i64 = 1000;

/// Which definition is meant.
#[derive(Clone, Debug)]
pub enum Name {
    /// By path.
    Path(String),
    /// By UUID.
    Id(Uuid),
}

/// How many definitions an organisation may have; every replica keeps them in memory.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// So many.
    pub count_max: i64,
    /// So many bytes of their schemas, descriptions and unique_by together.
    pub text_bytes_max: i64,
}

/// The store.
#[derive(Clone, Debug)]
pub struct Definitions {
    pool: Pool,
    bounds: Bounds,
}

/// An organisation as rows and logs have it; empty is system-wide.
pub fn tenant(organisation: Option<&OrganisationId>) -> &str {
    organisation.map_or("", OrganisationId::as_str)
}

fn from_row(row: &tokio_postgres::Row) -> Result<Definition, Error> {
    Definition::from_row(row).map_err(Error::internal)
}

fn check_etag(present: Option<&Definition>, wanted: &str) -> Result<(), Error> {
    let matches = wanted.is_empty() || present.is_some_and(|definition| definition.etag == wanted);
    if matches {
        Ok(())
    } else {
        Err(Error::new(Kind::FailedPrecondition, "ETAG_MISMATCH", "the definition was changed meanwhile"))
    }
}

impl Bounds {
    /// Whether a definition may be put beside so many others with texts of so many
    /// bytes. What is there may be changed, also beyond the bounds, and get no longer.
    fn allow(
        self,
        draft: &Draft,
        present: Option<&Definition>,
        others: i64,
        text_bytes: i64,
    ) -> Result<(), Error> {
        let exhausted = |text: String| Err(Error::new(Kind::ResourceExhausted, "TOO_MANY_DEFINITIONS", text));
        let Self { count_max, text_bytes_max } = self;
        if present.is_none() && others >= count_max {
            return exhausted(format!("an organisation has up to {count_max} definitions"));
        }
        let own = i64::try_from(draft.text_bytes()).unwrap_or(i64::MAX);
        let grows = present.map_or(0, |present| present.draft.text_bytes()) < draft.text_bytes();
        if grows && text_bytes.saturating_add(own) > text_bytes_max {
            return exhausted(format!(
                "an organisation's schemas, descriptions and unique_by have up to {text_bytes_max} bytes together"
            ));
        }
        Ok(())
    }
}

impl Definitions {
    /// A store on a pool.
    #[must_use]
    pub fn new(pool: Pool, bounds: Bounds) -> Self {
        Self { pool, bounds }
    }

    /// Creates or overwrites; says whether it created. With an `etag`, only if
    /// that is the present one.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if it is not; RESOURCE_EXHAUSTED if the organisation has as
    /// many as it may.
    pub async fn put(&self, draft: &Draft, etag: &str) -> Result<(Definition, bool), Error> {
        transaction!(self.pool, "put definition", |tx| {
            let revision: i64 = tx.query_one(include_str!("sql/next_revision.sql"), &[]).await?.get(0);
            let tenant = tenant(draft.organisation.as_ref());
            let present = tx
                .query_opt(include_str!("sql/lock_definition.sql"), &[&tenant, &draft.path.as_str()])
                .await?;
            let present = present.as_ref().map(from_row).transpose()?;
            check_etag(present.as_ref(), etag)?;
            let others = tx
                .query_one(include_str!("sql/other_definitions.sql"), &[&tenant, &draft.path.as_str()])
                .await?;
            self.bounds.allow(draft, present.as_ref(), others.get("count"), others.get("text_bytes"))?;
            let row = tx
                .query_one(
                    include_str!("sql/upsert_definition.sql"),
                    &[
                        &Uuid::now_v7(),
                        &tenant,
                        &draft.path.as_str(),
                        &draft.description,
                        &draft.unique_seconds,
                        &draft.unique_by,
                        &draft.throttle.map(|throttle| i64::from(throttle.count)),
                        &draft.throttle.map(|throttle| throttle.period_seconds),
                        &draft.json_schema,
                        &draft.storage_config,
                        &draft.disabled,
                        &Uuid::new_v4().simple().to_string(),
                        &revision,
                    ],
                )
                .await?;
            Ok((from_row(&row)?, present.is_none()))
        })
    }

    /// By path the organisation's own or else the system-wide one; by id one of
    /// either.
    ///
    /// # Errors
    /// NOT_FOUND if there is none.
    pub async fn get(&self, organisation: Option<&OrganisationId>, name: &Name) -> Result<Definition, Error> {
        let tenant = tenant(organisation);
        let rows = match name {
            Name::Path(path) => {
                query(&self.pool, include_str!("sql/definition_by_path.sql"), &[&tenant, path]).await?
            }
            Name::Id(id) => {
                query(&self.pool, include_str!("sql/definition_by_id.sql"), &[&tenant, id]).await?
            }
        };
        rows.first().map(from_row).transpose()?.ok_or_else(|| Error::not_found("definition"))
    }

    /// Up to `page_size` definitions whose path comes after `after`.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't be read now.
    pub async fn list(
        &self,
        organisation: Option<&OrganisationId>,
        include_system_wide: bool,
        after: &str,
        page_size: i64,
    ) -> Result<Vec<Definition>, Error> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&tenant(organisation), &after, &page_size, &include_system_wide];
        let rows = query(&self.pool, include_str!("sql/list_definitions.sql"), &params).await?;
        rows.iter().map(from_row).collect()
    }

    /// Deletes a definition of exactly this organisation; answers its id.
    ///
    /// # Errors
    /// NOT_FOUND if there is none; FAILED_PRECONDITION if the etag is not the
    /// present one.
    pub async fn delete(
        &self,
        organisation: Option<&OrganisationId>,
        name: &Name,
        etag: &str,
    ) -> Result<Uuid, Error> {
        let named = self.get(organisation, name).await?;
        if named.draft.organisation.as_ref() != organisation {
            return Err(Error::not_found("definition"));
        }
        let (tenant, path) = (tenant(organisation), named.draft.path.as_str());
        transaction!(self.pool, "delete definition", |tx| {
            let revision: i64 = tx.query_one(include_str!("sql/next_revision.sql"), &[]).await?.get(0);
            let row = tx.query_opt(include_str!("sql/lock_definition.sql"), &[&tenant, &path]).await?;
            let present = row.as_ref().map(from_row).transpose()?;
            let present = present.filter(|present| matches!(name, Name::Path(_)) || present.id == named.id);
            let present = present.ok_or_else(|| Error::not_found("definition"))?;
            check_etag(Some(&present), etag)?;
            tx.execute(include_str!("sql/delete_definition.sql"), &[&tenant, &path, &revision]).await?;
            Ok::<Uuid, TxError>(present.id)
        })
    }
}
