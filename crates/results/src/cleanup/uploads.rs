//! What uploads left behind: files that gave no sign of life or were given up, and
//! objects of results that were recorded elsewhere. Only what this service wrote itself,
//! and what never becomes a result, is removed, by its exact name; so this is done in
//! customers' own buckets, too. Every replica does it, and nobody else is asked: see
//! `uploads_reap.sql` for why a removal may be late and may be done twice.

use std::{collections::HashSet, sync::Arc};

use sluice_service::{Error, Kind, OrganisationId, postgres::query};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::Cleanup;
use crate::{chunks, files::object_of, storage::place::Provider, storage_config::StorageConfig};

/// So many uploads are looked at together, at most.
const REAPED_TOGETHER: i64 = 500;

/// An upload that is to be removed.
struct Left {
    organisation: OrganisationId,
    id: Uuid,
    /// Nil: the built-in `db`.
    config: Uuid,
    multipart: Option<String>,
    /// Its object is another upload's, or a record's.
    is_kept: bool,
}

impl Left {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            organisation: row.try_get::<_, &str>("organisation")?.parse()?,
            id: row.try_get("id")?,
            config: row.try_get("storage_config")?,
            multipart: row.try_get("multipart")?,
            is_kept: row.try_get("is_kept")?,
        })
    }
}

impl Cleanup {
    /// Removes what uploads left behind.
    pub(super) async fn remove_uploads(&self) -> Result<(), Error> {
        let idle = self.upload_idle.as_secs_f64();
        while self.reap(idle).await? == REAPED_TOGETHER {}
        // A storage that fails is left alone until the next look.
        let mut failing = HashSet::new();
        let (mut organisation, mut id, mut config) = (String::new(), Uuid::nil(), Uuid::nil());
        loop {
            let params: [&(dyn ToSql + Sync); 4] = [&organisation, &id, &config, &idle];
            let rows = query(&self.pool, include_str!("../sql/uploads_left.sql"), &params).await?;
            let left: Vec<Left> = rows.iter().map(Left::read).collect::<Result<_, _>>()?;
            let Some(last) = left.last() else { break };
            (organisation, id, config) = (last.organisation.to_string(), last.id, last.config);
            let mut gone = Vec::new();
            for upload in left {
                if failing.contains(&upload.config) {
                    continue;
                }
                match self.remove_upload(&upload).await {
                    Ok(()) => gone.push(upload),
                    Err(error) => {
                        self.metrics.not_removed(1);
                        let (organisation, storage_config) = (&upload.organisation, upload.config);
                        tracing::warn!(%organisation, %storage_config, %error, "uploads not removed");
                        failing.insert(storage_config);
                    }
                }
            }
            self.settle(&gone).await?;
        }
        query(&self.pool, include_str!("../sql/uploads_forget.sql"), &[]).await.map(drop)
    }

    /// Settles what becomes of some uploads without a sign of life; how many there were.
    async fn reap(&self, idle_seconds: f64) -> Result<i64, Error> {
        let rows = query(&self.pool, include_str!("../sql/uploads_reap.sql"), &[&idle_seconds]).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("idle")?))
    }

    async fn remove_upload(&self, upload: &Left) -> Result<(), Error> {
        if upload.is_kept {
            return Ok(());
        }
        let config: Option<Arc<StorageConfig>> = match upload.config.is_nil() {
            true => None,
            false => Some(self.configs.recent(&upload.organisation, upload.config).await?),
        };
        let Some(config) = config.filter(|config| config.place.provider() != Provider::Db) else {
            while chunks::remove_some(&self.pool, &upload.organisation, upload.id).await? {}
            return Ok(());
        };
        let failed = |why: String| Error::new(Kind::Unavailable, "STORAGE", why);
        let store = self.stores.open(&config).map_err(failed)?;
        let key = object_of(&config, upload.id);
        let abort = store.abort(&key, upload.multipart.as_deref()).await;
        abort.and(store.remove(&key).await).map_err(|error| failed(error.to_string()))
    }

    async fn settle(&self, gone: &[Left]) -> Result<(), Error> {
        let organisations: Vec<&str> = gone.iter().map(|upload| upload.organisation.as_str()).collect();
        let ids: Vec<Uuid> = gone.iter().map(|upload| upload.id).collect();
        let configs: Vec<Uuid> = gone.iter().map(|upload| upload.config).collect();
        let params: [&(dyn ToSql + Sync); 3] = [&organisations, &ids, &configs];
        query(&self.pool, include_str!("../sql/uploads_gone.sql"), &params).await?;
        self.metrics.removed(gone.len());
        if !gone.is_empty() {
            tracing::info!(uploads = gone.len(), "what uploads left behind was removed");
        }
        Ok(())
    }
}
