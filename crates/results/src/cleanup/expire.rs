//! Expiring what one storage config keeps: a leased walk over the organisation's
//! batches in the order of their dates. For files and buckets in three steps that may be
//! cut off anywhere: marked (EXPIRED from then on), file or object deleted and confirmed
//! gone, `date_deleted` set.

use std::{collections::HashSet, time::Duration};

use sluice_service::{Error, OrganisationId, postgres::query};
use tokio::time::Instant;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    Cleanup,
    removal::{Removed, remove},
};
use crate::{
    chunks,
    storage::store::Store,
    storage_config::{StorageConfig, Terms},
    time::Micros,
};

/// How long a storage config is walked, and its objects are removed; then it is the others'
/// turn.
const TURN: Duration = Duration::from_secs(60);
/// About so many objects are removed before it is kept that they are gone, and the lease
/// is renewed.
const REMOVALS_TOGETHER: usize = 500;

/// A storage config this replica works on, and how far its clean-up came.
pub(super) struct Lease {
    pub(super) id: Uuid,
    pub(super) organisation: OrganisationId,
    /// Nil: the built-in `db`.
    pub(super) config: Uuid,
    from: Micros,
}

/// A bucket, or a folder, whose objects are to be removed.
struct Bucket<'a> {
    store: Store,
    config: &'a StorageConfig,
    /// The end of its turn.
    until: Instant,
}

impl Bucket<'_> {
    async fn remove(&self, ids: impl Iterator<Item = &Uuid>) -> Removed<Uuid> {
        let Self { store, config, until } = self;
        let one = |id: &Uuid| {
            let (id, key) = (*id, config.object(*id));
            async move { store.remove(&key).await.map(|()| id) }
        };
        remove((&config.organisation, config.id), Some(*until), ids.map(one).collect()).await
    }
}

/// What a walk has expired; logged when it ends. What nobody consumed is gone unseen: that
/// is worth a warning.
struct Expired<'a> {
    of: &'a Lease,
    results: u64,
    unconsumed: u64,
}

impl Drop for Expired<'_> {
    fn drop(&mut self) {
        let Self { of: Lease { organisation, config: storage_config, .. }, results, unconsumed } = *self;
        if results > 0 {
            tracing::info!(%organisation, %storage_config, results, "results expired");
        }
        if unconsumed > 0 {
            tracing::warn!(%organisation, %storage_config, results = unconsumed, "results expired unconsumed");
        }
    }
}

/// A batch that is EXPIRED, and whose files or objects may still be there.
struct Marked {
    date_created: Micros,
    poll: String,
    first_id: Uuid,
    ids: Vec<Uuid>,
}

impl Marked {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            date_created: row.try_get("date_created")?,
            poll: row.try_get("poll")?,
            first_id: row.try_get("first_id")?,
            ids: row.try_get("ids")?,
        })
    }
}

impl Cleanup {
    /// The next storage config that it is time to look at, and that was not looked at
    /// since a moment.
    pub(super) async fn lease(&self, since: Micros) -> Result<Option<Lease>, Error> {
        let id = Uuid::new_v4();
        let params: [&(dyn ToSql + Sync); 3] = [&id, &self.every.as_secs_f64(), &since];
        let rows = query(&self.pool, include_str!("../sql/cleanup_lease.sql"), &params).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Lease {
            id,
            organisation: row.try_get::<_, &str>("organisation")?.parse()?,
            config: row.try_get("storage_config")?,
            from: row.try_get("date")?,
        }))
    }

    pub(super) async fn release(&self, lease: &Lease) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&lease.organisation.as_str(), &lease.config, &lease.id];
        query(&self.pool, include_str!("../sql/cleanup_release.sql"), &params).await.map(drop)
    }

    /// Whether the lease is still this replica's; keeps how far it came.
    async fn renew(&self, lease: &Lease, date: Micros) -> Result<bool, Error> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&lease.organisation.as_str(), &lease.config, &lease.id, &date];
        let rows = query(&self.pool, include_str!("../sql/cleanup_renew.sql"), &params).await?;
        Ok(!rows.is_empty())
    }

    /// Expires what is past its retention, and removes what is marked, as far as it can.
    pub(super) async fn expire(
        &self,
        lease: &mut Lease,
        config: Option<&StorageConfig>,
    ) -> Result<(), Error> {
        let terms = config.map_or(Terms::BUILT_IN, |config| config.terms);
        if !terms.managed {
            return Ok(());
        }
        lease.from = self.walk(lease, terms).await?;
        let kept_outside = config.filter(|config| !config.is_in_database());
        let opened = kept_outside.map(|config| {
            let store = self.stores.open(config)?;
            Ok(Bucket { store, config, until: Instant::now() + TURN })
        });
        match opened.transpose() {
            Ok(bucket) => self.remove_marked(lease, config, bucket.as_ref()).await,
            Err::<_, String>(why) => {
                let (organisation, storage_config) = (&lease.organisation, lease.config);
                tracing::warn!(%organisation, %storage_config, why, "storage not cleaned up");
                Ok(())
            }
        }
    }

    /// Walks the organisation's batches that are older than the retention, for as long as its
    /// terms are these, but for no longer than a turn. Data in blocks goes in the same commit.
    /// Returns where it ended; the next look goes on from there.
    async fn walk(&self, lease: &Lease, terms: Terms) -> Result<Micros, Error> {
        if terms.retention_seconds == 0 {
            return Ok(lease.from);
        }
        let retention = terms.retention_seconds as f64;
        let (mut at, until) = (lease.from, Instant::now() + TURN);
        // Told of however the walk ends: each of its steps is committed.
        let mut expired = Expired { of: lease, results: 0, unconsumed: 0 };
        loop {
            let params: [&(dyn ToSql + Sync); 4] =
                [&lease.organisation.as_str(), &at, &lease.config, &retention];
            let rows = query(&self.pool, include_str!("../sql/expire.sql"), &params).await?;
            let Some(row) = rows.first() else { break };
            // If not, something was acknowledged at this moment: the same once more.
            if !row.try_get("changed")? {
                let results = row.try_get::<_, i64>("marked")?.unsigned_abs();
                let unconsumed = row.try_get::<_, i64>("unconsumed")?.unsigned_abs();
                self.metrics.expired(results, unconsumed);
                expired.results += results;
                expired.unconsumed += unconsumed;
                at = row.try_get("date_created")?;
            }
            if !self.renew(lease, at).await? || Instant::now() > until {
                break;
            }
        }
        Ok(at)
    }

    /// How late the clean-up of a storage config is.
    pub(super) async fn overdue(&self, lease: &Lease) -> Result<Duration, Error> {
        let built_in = Terms::BUILT_IN.retention_seconds;
        let params: [&(dyn ToSql + Sync); 4] =
            [&lease.organisation.as_str(), &lease.config, &lease.from, &built_in];
        let rows = query(&self.pool, include_str!("../sql/cleanup_overdue.sql"), &params).await?;
        let late: f64 = rows.first().map_or(Ok(0.0), |row| row.try_get("late_seconds"))?;
        Ok(Duration::try_from_secs_f64(late).unwrap_or_default())
    }

    /// What is marked, after an id.
    async fn marked(&self, lease: &Lease, after: Uuid) -> Result<Vec<Marked>, Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&lease.organisation.as_str(), &lease.config, &after];
        let rows = query(&self.pool, include_str!("../sql/expired_pending.sql"), &params).await?;
        rows.iter().map(Marked::from_row).collect()
    }

    /// Removes the files and objects of what is marked, and says of each that it is gone.
    async fn remove_marked(
        &self,
        lease: &Lease,
        config: Option<&StorageConfig>,
        bucket: Option<&Bucket<'_>>,
    ) -> Result<(), Error> {
        let mut after = Uuid::nil();
        loop {
            let marked = self.marked(lease, after).await?;
            let Some(last) = marked.last() else { return Ok(()) };
            after = last.first_id;
            let mut rest = &marked[..];
            while !rest.is_empty() {
                // By its new terms nothing may have to go: they hold from the next look on.
                if self.has_changed(config).await? {
                    return Ok(());
                }
                let (some, others) = rest.split_at(together(rest));
                rest = others;
                let ids = some.iter().flat_map(|batch| &batch.ids);
                let removed = match bucket {
                    None => self.remove_files(lease, ids).await?,
                    Some(bucket) => bucket.remove(ids).await,
                };
                self.metrics.not_removed(removed.failed);
                let gone = removed.gone.into_iter().collect();
                self.confirm(&lease.organisation, some, &gone).await?;
                // The rest has time until the next look.
                if removed.gave_up || !self.renew(lease, Micros::AFTER_ALL).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Whether a storage config is no longer as it was read.
    async fn has_changed(&self, config: Option<&StorageConfig>) -> Result<bool, Error> {
        let Some(read) = config else { return Ok(false) };
        let now = self.config(&read.organisation, read.id).await?;
        Ok(now.revision != read.revision)
    }

    /// Removes files from the database, for as long as the lease is this replica's.
    async fn remove_files(
        &self,
        lease: &Lease,
        ids: impl Iterator<Item = &Uuid>,
    ) -> Result<Removed<Uuid>, Error> {
        let mut removed = Removed::default();
        for id in ids {
            let mut is_left = true;
            while is_left {
                is_left = chunks::remove_some(&self.pool, &lease.organisation, *id).await?;
                if !self.renew(lease, Micros::AFTER_ALL).await? {
                    return Ok(Removed { gave_up: true, ..removed });
                }
            }
            removed.gone.push(*id);
        }
        Ok(removed)
    }

    /// Says of batches that their data is gone, if all of it is: what went of the others
    /// is removed once more at the next look.
    async fn confirm(
        &self,
        organisation: &OrganisationId,
        marked: &[Marked],
        gone: &HashSet<Uuid>,
    ) -> Result<(), Error> {
        let is_gone = |batch: &&Marked| batch.ids.iter().all(|id| gone.contains(id));
        let whole: Vec<&Marked> = marked.iter().filter(is_gone).collect();
        let dates: Vec<Micros> = whole.iter().map(|batch| batch.date_created).collect();
        let polls: Vec<&str> = whole.iter().map(|batch| batch.poll.as_str()).collect();
        let firsts: Vec<Uuid> = whole.iter().map(|batch| batch.first_id).collect();
        let params: [&(dyn ToSql + Sync); 4] = [&organisation.as_str(), &dates, &polls, &firsts];
        query(&self.pool, include_str!("../sql/expired_gone.sql"), &params).await?;
        self.metrics.removed(whole.iter().map(|batch| batch.ids.len()).sum());
        Ok(())
    }
}

/// How many of these batches have their objects removed together: the first, and others
/// as long as all have no more than so many.
fn together(marked: &[Marked]) -> usize {
    let mut objects = 0;
    let fits = |batch: &&Marked| {
        objects += batch.ids.len();
        objects <= REMOVALS_TOGETHER
    };
    marked.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_together_up_to_so_many_objects_and_one_in_any_case() {
        let of = |sizes: &[usize]| {
            let batch = |size: &usize| Marked {
                date_created: Micros::BEFORE_ALL,
                poll: String::new(),
                first_id: Uuid::nil(),
                ids: vec![Uuid::nil(); *size],
            };
            together(&sizes.iter().map(batch).collect::<Vec<_>>())
        };
        assert_eq!(of(&[200, 200, 100, 1]), 3);
        assert_eq!(of(&[200, 200, 101]), 2);
        assert_eq!(of(&[REMOVALS_TOGETHER + 1, 1]), 1);
    }
}
