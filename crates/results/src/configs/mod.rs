//! Storage configs in the database, and the stores they open.

pub mod calls;
pub mod probe;
pub mod reseal;
pub mod stores;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_postgres::Pool;
use quick_cache::sync::Cache;
use sluice_service::{Error, Kind, OrganisationId, postgres::query};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    sessions::Tenants,
    storage::keyring::Ciphertext,
    storage_config::{State, StorageConfig, Terms},
};

/// Most storage configs of an organisation that are in use,
const IN_USE_MAX: i64 = 100;
/// and with those that are deactivated: each is a part of every round of the clean-up.
const OF_ALL_MAX: i64 = 1000;
/// How long what was read is good enough for telling where data lies. What changes
/// of it is whether and how URLs are signed.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Most that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// A storage config's name: its organisation and its id. Nil is the built-in `db`.
pub type ConfigName = (OrganisationId, Uuid);
/// What was read, and when.
type Remembered = Cache<ConfigName, (Instant, Arc<StorageConfig>)>;

/// The storage configs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Configs {
    /// For the calls of an organisation.
    tenants: Tenants,
    /// For what concerns several.
    pool: Pool,
    remembered: Arc<Remembered>,
}

/// What a new one is made of.
#[derive(Debug)]
pub struct New<'a> {
    /// The tenant.
    pub organisation: &'a OrganisationId,
    /// Its URL.
    pub url: String,
    /// Its credentials.
    pub credentials: Option<Ciphertext>,
    /// Its terms.
    pub terms: Terms,
}

fn not_found() -> Error {
    Error::not_found("storage config")
}

fn sealed_parts(sealed: Option<&Ciphertext>) -> (Option<&str>, Option<&[u8]>) {
    sealed.map(|sealed| (sealed.key.as_str(), &sealed.bytes[..])).unzip()
}

impl Configs {
    /// Over sessions for tenants and for the service's own work.
    #[must_use]
    pub fn new(tenants: Tenants, pool: Pool) -> Self {
        Self { tenants, pool, remembered: Arc::new(Cache::new(REMEMBERED_MAX)) }
    }

    /// Runs an organisation's statement and reads the storage configs it returns.
    async fn query_of(
        &self,
        organisation: &OrganisationId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<StorageConfig>, Error> {
        // Boxed: part of large futures.
        let rows = Box::pin(self.tenants.query(organisation, sql, params)).await?;
        let configs = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(configs)
    }

    /// Runs a statement and reads the storage configs it returns.
    async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<StorageConfig>, Error> {
        let rows = query(&self.pool, sql, params).await?;
        let configs = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(configs)
    }

    async fn query_one(
        &self,
        organisation: &OrganisationId,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<StorageConfig>, Error> {
        Ok(self.query_of(organisation, sql, params).await?.pop())
    }

    /// Creates one, NEW.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the organisation has too many.
    pub async fn create(&self, new: New<'_>) -> Result<StorageConfig, Error> {
        let (key, credentials) = sealed_parts(new.credentials.as_ref());
        let Terms { signed_urls_enabled, signed_urls_seconds, managed, retention_seconds } = new.terms;
        let params: [&(dyn ToSql + Sync); 11] = [
            &new.organisation.as_str(),
            &Uuid::now_v7(),
            &new.url,
            &key,
            &credentials,
            &signed_urls_enabled,
            &i64::from(signed_urls_seconds),
            &managed,
            &retention_seconds,
            &IN_USE_MAX,
            &OF_ALL_MAX,
        ];
        let created =
            self.query_one(new.organisation, include_str!("../sql/config_insert.sql"), &params).await?;
        created.ok_or_else(|| {
            let text = format!(
                "an organisation has up to {IN_USE_MAX} storage configs in use, and {OF_ALL_MAX} with those \
                 that are deactivated; a deactivated one is forgotten once it keeps no results"
            );
            Error::new(Kind::ResourceExhausted, "TOO_MANY_STORAGE_CONFIGS", text)
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn get(&self, organisation: &OrganisationId, id: Uuid) -> Result<StorageConfig, Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&organisation.as_str(), &id];
        self.query_one(organisation, include_str!("../sql/config_get.sql"), &params)
            .await?
            .ok_or_else(not_found)
    }

    /// Those after an id, in order.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn list(
        &self,
        organisation: &OrganisationId,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<StorageConfig>, Error> {
        self.query_of(
            organisation,
            include_str!("../sql/config_list.sql"),
            &[&organisation.as_str(), &after, &limit],
        )
        .await
    }

    /// Changes one as it was read. `None`: somebody else changed it meanwhile.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn update(
        &self,
        read: &StorageConfig,
        credentials: Option<&Ciphertext>,
        terms: Terms,
    ) -> Result<Option<StorageConfig>, Error> {
        let (key, credentials) = sealed_parts(credentials);
        let Terms { signed_urls_enabled, signed_urls_seconds, managed, retention_seconds } = terms;
        let params: [&(dyn ToSql + Sync); 9] = [
            &read.organisation.as_str(),
            &read.id,
            &read.revision,
            &key,
            &credentials,
            &signed_urls_enabled,
            &i64::from(signed_urls_seconds),
            &managed,
            &retention_seconds,
        ];
        let updated =
            self.query_one(&read.organisation, include_str!("../sql/config_update.sql"), &params).await?;
        self.forget(&read.organisation, read.id);
        Ok(updated)
    }

    /// Takes one out of use.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn deactivate(&self, organisation: &OrganisationId, id: Uuid) -> Result<StorageConfig, Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&organisation.as_str(), &id];
        let changed =
            self.query_one(organisation, include_str!("../sql/config_deactivate.sql"), &params).await?;
        self.forget(organisation, id);
        changed.ok_or_else(not_found)
    }

    /// Makes one the default; `None` if it is not VALID, or there is none.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn set_default(
        &self,
        organisation: &OrganisationId,
        id: Uuid,
    ) -> Result<Option<StorageConfig>, Error> {
        self.query_one(
            organisation,
            include_str!("../sql/config_set_default.sql"),
            &[&organisation.as_str(), &id],
        )
        .await
    }

    /// Makes the built-in `db` the default.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn clear_default(&self, organisation: &OrganisationId) -> Result<(), Error> {
        self.query_of(
            organisation,
            include_str!("../sql/config_clear_default.sql"),
            &[&organisation.as_str()],
        )
        .await
        .map(drop)
    }

    /// Keeps what a probe found of one as it was read. `None`: it was changed
    /// meanwhile.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn set_state(
        &self,
        read: &StorageConfig,
        state: State,
        details: &str,
    ) -> Result<Option<StorageConfig>, Error> {
        let params: [&(dyn ToSql + Sync); 5] =
            [&read.organisation.as_str(), &read.id, &read.revision, &state.code(), &details];
        Ok(self.query(include_str!("../sql/config_set_state.sql"), &params).await?.pop())
    }

    /// Those that wait longest for a probe, and are this replica's to probe: up to `max`,
    /// and up to `of_one_max` of an organisation.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn to_probe(
        &self,
        every: Duration,
        max: i64,
        of_one_max: i64,
    ) -> Result<Vec<StorageConfig>, Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&every.as_secs_f64(), &max, &of_one_max];
        self.query(include_str!("../sql/configs_to_probe.sql"), &params).await
    }

    /// Some of those whose credentials are not encrypted by this key, in order, after one.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn to_reseal(
        &self,
        present_key: &str,
        (organisation, id): (&str, Uuid),
    ) -> Result<Vec<StorageConfig>, Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&present_key, &organisation, &id];
        self.query(include_str!("../sql/configs_to_reseal.sql"), &params).await
    }

    /// Keeps the same credentials under another key.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn reseal(&self, read: &StorageConfig, sealed: &Ciphertext) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 5] =
            [&read.organisation.as_str(), &read.id, &read.revision, &sealed.key, &sealed.bytes];
        self.query(include_str!("../sql/config_reseal.sql"), &params).await.map(drop)
    }

    /// The defaults of organisations, and those that results name, as they are now.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn deciding(
        &self,
        organisations: &[&str],
        named: &[(&str, Uuid)],
    ) -> Result<Vec<StorageConfig>, Error> {
        let (owners, ids): (Vec<&str>, Vec<Uuid>) = named.iter().copied().unzip();
        self.query(include_str!("../sql/configs_for.sql"), &[&organisations, &owners, &ids]).await
    }

    /// Those that results name, for the service's own work.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn named(
        &self,
        names: impl IntoIterator<Item = (&OrganisationId, Uuid)>,
    ) -> Result<HashMap<ConfigName, StorageConfig>, Error> {
        let named: HashSet<(&str, Uuid)> =
            names.into_iter().map(|(organisation, id)| (organisation.as_str(), id)).collect();
        if named.is_empty() {
            return Ok(HashMap::new());
        }
        let named: Vec<_> = named.into_iter().collect();
        let found = self.deciding(&[], &named).await?;
        Ok(found.into_iter().map(|config| ((config.organisation.clone(), config.id), config)).collect())
    }

    /// One as it was a moment ago, for a call of the organisation.
    ///
    /// # Errors
    /// NOT_FOUND; UNAVAILABLE if the database can't answer.
    pub async fn recent(&self, organisation: &OrganisationId, id: Uuid) -> Result<Arc<StorageConfig>, Error> {
        let name = (organisation.clone(), id);
        if let Some((_, config)) = self.remembered.get(&name).filter(|(read, _)| read.elapsed() < REMEMBERED)
        {
            return Ok(config);
        }
        let read = Instant::now();
        let config = Arc::new(self.get(organisation, id).await?);
        self.remembered.insert(name, (read, config.clone()));
        Ok(config)
    }

    fn forget(&self, organisation: &OrganisationId, id: Uuid) {
        self.remembered.remove(&(organisation.clone(), id));
    }
}

/// Reads a row of `storage_config` with `is_default`.
///
/// # Errors
/// INTERNAL if it holds what can't have been written.
fn read(row: &Row) -> Result<StorageConfig, Error> {
    let key: Option<String> = row.try_get("credentials_key")?;
    let bytes: Option<Vec<u8>> = row.try_get("credentials")?;
    Ok(StorageConfig {
        organisation: row.try_get::<_, &str>("organisation")?.parse()?,
        id: row.try_get("id")?,
        revision: row.try_get("revision")?,
        place: row.try_get::<_, &str>("url")?.parse().map_err(Error::internal)?,
        credentials: key.zip(bytes).map(|(key, bytes)| Ciphertext { key, bytes }),
        terms: Terms {
            signed_urls_enabled: row.try_get("signed_urls_enabled")?,
            signed_urls_seconds: i32::try_from(row.try_get::<_, i64>("signed_urls_seconds")?)
                .map_err(Error::internal)?,
            managed: row.try_get("managed")?,
            retention_seconds: row.try_get("retention_seconds")?,
        },
        state: State::from_code(row.try_get("state")?),
        state_details: row.try_get("state_details")?,
        date_created: row.try_get("date_created")?,
        is_default: row.try_get("is_default")?,
    })
}
