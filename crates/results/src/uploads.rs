//! The rows of objects that may exist without a result: made before the first
//! byte is written, gone with the commit that makes the record. See the migration
//! for what the states mean.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::Pool;
use sluice_service::{Error, OrganisationId, postgres::query};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::result::{Checksum, ResultName, Sealed};

/// The uploads in the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    pool: Pool,
}

/// One upload: whose, its id, and where its bytes go (`None`: the built-in `db`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The tenant.
    pub organisation: OrganisationId,
    /// The id the result will have.
    pub id: Uuid,
    /// The storage config.
    pub config: Option<Uuid>,
}

impl Key {
    fn config(&self) -> Uuid {
        self.config.unwrap_or_default()
    }
}

/// Columns of names, for `unnest`.
pub fn columns(names: &[ResultName]) -> (Vec<&str>, Vec<Uuid>) {
    names.iter().map(|(organisation, id)| (organisation.as_str(), *id)).unzip()
}

/// The name that a row begins with.
pub fn name(row: &Row) -> Result<ResultName, Error> {
    Ok((row.try_get::<_, &str>("organisation")?.parse()?, row.try_get("id")?))
}

impl Uploads {
    /// Over a pool of sessions.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Whether a statement about one upload found it.
    async fn found(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<bool, Error> {
        Ok(!query(&self.pool, sql, params).await?.is_empty())
    }

    /// Begins one; `false` if its id was used before.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn open(&self, key: &Key) -> Result<bool, Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&key.organisation.as_str(), &key.id, &key.config()];
        self.found(include_str!("sql/upload_open.sql"), &params).await
    }

    /// Says that one goes on; `false` if it was given up. Keeps the provider's name
    /// of a multipart upload.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn touch(&self, key: &Key, multipart: Option<&str>) -> Result<bool, Error> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&key.organisation.as_str(), &key.id, &key.config(), &multipart];
        self.found(include_str!("sql/upload_touch.sql"), &params).await
    }

    /// Seals one; `false` if it was given up.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer: it may be sealed.
    pub async fn seal(&self, key: &Key, file: &Sealed) -> Result<bool, Error> {
        let size = i64::try_from(file.size).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 6] = [
            &key.organisation.as_str(),
            &key.id,
            &key.config(),
            &size,
            &file.checksum.to_uuid(),
            &file.media_type,
        ];
        self.found(include_str!("sql/upload_seal.sql"), &params).await
    }

    /// Gives up one that is not sealed, and whose bytes have stopped.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer: its age tells the clean-up.
    pub async fn fail(&self, key: &Key) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&key.organisation.as_str(), &key.id, &key.config()];
        query(&self.pool, include_str!("sql/upload_fail.sql"), &params).await.map(drop)
    }

    /// Those of these that are sealed, and who keeps them.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn sealed(
        &self,
        names: &[ResultName],
    ) -> Result<HashMap<ResultName, (Sealed, Option<Uuid>)>, Error> {
        let (organisations, ids) = columns(names);
        let rows = query(&self.pool, include_str!("sql/uploads_sealed.sql"), &[&organisations, &ids]).await?;
        let read = |row: &Row| -> Result<_, Error> {
            let file = Sealed {
                checksum: Checksum::from(row.try_get::<_, Uuid>("checksum")?),
                size: u64::try_from(row.try_get::<_, i64>("size")?).unwrap_or(0),
                media_type: row.try_get("type")?,
            };
            let config: Uuid = row.try_get("storage_config")?;
            Ok((name(row)?, (file, (!config.is_nil()).then_some(config))))
        };
        rows.iter().map(read).collect()
    }

    /// Says that objects are about to be written for records; those of which it may
    /// be done.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn begin(&self, mut keys: Vec<Key>) -> Result<HashSet<ResultName>, Error> {
        keys.sort_unstable_by(|a, b| {
            (&a.organisation, a.id, a.config()).cmp(&(&b.organisation, b.id, b.config()))
        });
        keys.dedup();
        let organisations: Vec<_> = keys.iter().map(|key| key.organisation.as_str()).collect();
        let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
        let configs: Vec<_> = keys.iter().map(Key::config).collect();
        let params: [&(dyn ToSql + Sync); 3] = [&organisations, &ids, &configs];
        query(&self.pool, include_str!("sql/uploads_begin.sql"), &params).await?.iter().map(name).collect()
    }

    /// Marks files that are to go.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn discard(&self, names: &[ResultName]) -> Result<(), Error> {
        let (organisations, ids) = columns(names);
        query(&self.pool, include_str!("sql/uploads_discard.sql"), &[&organisations, &ids]).await.map(drop)
    }
}
