//! What uploads left behind: files that gave no sign of life or were given up, and
//! objects of results that were recorded elsewhere. Only what this service wrote itself,
//! and what never becomes a result, is removed, by its exact name; so this is done in
//! customers' own buckets, too. Every replica does it, and nobody else is asked: see
//! `uploads_reap.sql` for why a removal may be late and may be done twice.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt, stream};
use sluice_service::{
    Error, Kind,
    postgres::{execute, query},
};
use tokio::sync::Mutex;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    Cleanup,
    removal::{self, Removed, remove},
};
use crate::{
    chunks, configs::ConfigName, storage::store::Store, storage_config::StorageConfig, time::Micros,
};

/// So many uploads are looked at together, at most.
const REAPED_TOGETHER: i64 = 500;
/// So many ids that were used are forgotten together, at most.
const FORGOTTEN_TOGETHER: u64 = 5000;
/// So many storage configs have what was left behind there removed at the same time.
const CONFIGS_AT_ONCE: usize = 4;

/// An upload that is to be removed.
struct Left {
    /// Whose, and where: nil is the built-in `db`.
    keeper: ConfigName,
    id: Uuid,
    multipart: Option<String>,
    /// Its object is another upload's, or a record's.
    is_kept: bool,
}

impl Left {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            keeper: (row.try_get::<_, &str>("organisation")?.parse()?, row.try_get("storage_config")?),
            id: row.try_get("id")?,
            multipart: row.try_get("multipart")?,
            is_kept: row.try_get("is_kept")?,
        })
    }
}

impl Cleanup {
    /// Removes what uploads left behind that were there when it began: however many come
    /// meanwhile, it ends.
    pub(super) async fn remove_uploads(&self) -> Result<(), Error> {
        let rows = query(&self.pool, include_str!("../sql/now.sql"), &[]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let began: Micros = row.try_get("now")?;
        let idle = self.upload_idle.as_secs_f64();
        while self.reap(began, idle).await? == REAPED_TOGETHER {}
        // How often each failed. One that does so often is left alone until the next round.
        let mut failed: HashMap<ConfigName, usize> = HashMap::new();
        // The database has its sessions for others, too.
        let database = Mutex::new(());
        let (mut organisation, mut id, mut config) = (String::new(), Uuid::nil(), Uuid::nil());
        loop {
            let params: [&(dyn ToSql + Sync); 5] = [&organisation, &id, &config, &idle, &began];
            let rows = query(&self.pool, include_str!("../sql/uploads_left.sql"), &params).await?;
            let left: Vec<Left> = rows.iter().map(Left::read).collect::<Result<_, _>>()?;
            let Some(last) = left.last() else { break };
            (organisation, id, config) = (last.keeper.0.to_string(), last.id, last.keeper.1);
            let mut of_each: BTreeMap<ConfigName, Vec<Left>> = BTreeMap::new();
            for upload in left {
                if failed.get(&upload.keeper).is_none_or(|failed| *failed < removal::AT_ONCE) {
                    of_each.entry(upload.keeper.clone()).or_default().push(upload);
                }
            }
            let removing: Vec<_> = of_each
                .into_iter()
                .map(|(keeper, left)| self.remove_of_one(keeper, left, &database))
                .collect();
            let mut removing = stream::iter(removing).buffer_unordered(CONFIGS_AT_ONCE);
            while let Some((keeper, removed)) = removing.next().await {
                self.settle(&removed.gone).await?;
                self.metrics.not_removed(removed.failed);
                let failures = failed.entry(keeper).or_default();
                *failures += if removed.gave_up { removal::AT_ONCE } else { removed.failed };
            }
        }
        let mut forgotten = FORGOTTEN_TOGETHER;
        while forgotten == FORGOTTEN_TOGETHER {
            forgotten = execute(&self.pool, include_str!("../sql/uploads_forget.sql"), &[&began]).await?;
        }
        Ok(())
    }

    /// Settles what becomes of some uploads without a sign of life; how many there were.
    async fn reap(&self, began: Micros, idle_seconds: f64) -> Result<i64, Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&idle_seconds, &began];
        let rows = query(&self.pool, include_str!("../sql/uploads_reap.sql"), &params).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get("idle")?))
    }

    /// Removes uploads of one storage config, as far as it can.
    async fn remove_of_one(
        &self,
        keeper: ConfigName,
        left: Vec<Left>,
        database: &Mutex<()>,
    ) -> (ConfigName, Removed<Left>) {
        let (kept, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|upload| upload.is_kept);
        let mut removed = self.remove_these(&keeper, left, database).await.unwrap_or_else(|error| {
            let (organisation, storage_config) = &keeper;
            tracing::warn!(%organisation, %storage_config, %error, "uploads not removed");
            Removed { failed: 1, gave_up: true, ..Removed::default() }
        });
        removed.gone.extend(kept);
        (keeper, removed)
    }

    async fn remove_these(
        &self,
        keeper: &ConfigName,
        left: Vec<Left>,
        database: &Mutex<()>,
    ) -> Result<Removed<Left>, Error> {
        if left.is_empty() {
            return Ok(Removed::default());
        }
        let Some((store, config)) = self.bucket(keeper).await? else {
            let _one_at_a_time = database.lock().await;
            for upload in &left {
                while chunks::remove_some(&self.pool, &keeper.0, upload.id).await? {}
            }
            return Ok(Removed { gone: left, ..Removed::default() });
        };
        let one = |upload: Left| {
            let (store, key) = (&store, config.object(upload.id));
            async move {
                let abort = store.abort(&key, upload.multipart.as_deref()).await;
                abort.and(store.remove(&key).await).map(|()| upload)
            }
        };
        Ok(remove((&keeper.0, keeper.1), None, left.into_iter().map(one).collect()).await)
    }

    /// The bucket of a storage config; `None`: it keeps its data in the database.
    async fn bucket(&self, keeper: &ConfigName) -> Result<Option<(Store, StorageConfig)>, Error> {
        if keeper.1.is_nil() {
            return Ok(None);
        }
        let config = self.config(&keeper.0, keeper.1).await?;
        if config.is_in_database() {
            return Ok(None);
        }
        let failed = |why: String| Error::new(Kind::Unavailable, "STORAGE", why);
        Ok(Some((self.stores.open(&config).map_err(failed)?, config)))
    }

    async fn settle(&self, gone: &[Left]) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let organisations: Vec<&str> = gone.iter().map(|upload| upload.keeper.0.as_str()).collect();
        let ids: Vec<Uuid> = gone.iter().map(|upload| upload.id).collect();
        let configs: Vec<Uuid> = gone.iter().map(|upload| upload.keeper.1).collect();
        let params: [&(dyn ToSql + Sync); 3] = [&organisations, &ids, &configs];
        query(&self.pool, include_str!("../sql/uploads_gone.sql"), &params).await?;
        self.metrics.removed(gone.len());
        tracing::info!(uploads = gone.len(), "what uploads left behind was removed");
        Ok(())
    }
}
