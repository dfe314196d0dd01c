//! The clean-up: results past their retention become EXPIRED, what uploads left
//! behind is removed, and what has been EXPIRED for a year is forgotten, as is a storage
//! config that is deactivated and keeps nothing. Every replica does it; what one works on
//! is leased, and each step may be done twice.

mod expire;
mod forgetting;
mod removal;
mod uploads;

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Pool;
use sluice_service::{
    Error, OrganisationId,
    backoff::{News, Outage},
    metrics::Label as _,
    postgres::query,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::expire::Lease;
use crate::{
    configs::{Configs, stores::Stores},
    metrics::{self, Work},
    storage_config::{State, StorageConfig},
    time::Micros,
};

/// How often old records and empty partitions are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// The clean-up of this replica.
#[derive(Clone, Debug)]
pub struct Cleanup {
    /// Sessions.
    pub pool: Pool,
    /// The storage configs.
    pub configs: Configs,
    /// What they open.
    pub stores: Stores,
    /// How often each storage config is looked at.
    pub every: Duration,
    /// After how long without a sign of life an upload is dead.
    pub upload_idle: Duration,
    /// Where it is counted.
    pub metrics: Arc<metrics::Cleanup>,
}

impl Cleanup {
    /// Cleans up until shutdown. What uploads left behind and what is past its retention hold
    /// each other up in nothing.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep_removing_uploads() => {}
            () = self.keep_expiring() => {}
        }
    }

    async fn keep_removing_uploads(&self) {
        let mut outage = Outage::default();
        loop {
            let done = self.remove_uploads().await;
            self.ended(Work::Uploads, &done, &mut outage);
            sleep(self.every).await;
        }
    }

    async fn keep_expiring(&self) {
        let (mut looked, mut forgot) = (Instant::now(), None);
        let (mut looking, mut forgetting) = (Outage::default(), Outage::default());
        loop {
            let done = self.look().await;
            match &done {
                Ok(_) => looked = Instant::now(),
                Err(_) => self.metrics.lag_at_least(looked.elapsed().saturating_sub(self.every)),
            }
            if matches!(done, Ok(0)) {
                // Others looked at everything just now: that says nothing of this one's.
                looking = Outage::default();
            } else {
                self.ended(Work::Expiring, &done, &mut looking);
            }
            if forgot.is_none_or(|last: Instant| last.elapsed() > FORGET_EVERY) {
                let done = self.forget_old().await;
                // While another replica does it, the next look sees to what that leaves.
                if !matches!(done, Ok(false)) {
                    // Also if it fails: then it is not tried again at each look.
                    forgot = Some(Instant::now());
                    self.ended(Work::Forgetting, &done, &mut forgetting);
                }
            }
            sleep(self.every).await;
        }
    }

    /// A round ended.
    fn ended<T>(&self, of: Work, done: &Result<T, Error>, outage: &mut Outage) {
        match outage.news_of(done) {
            Some(News::Fails(error)) => tracing::warn!(error, of = of.word(), "clean-up fails"),
            Some(News::WorksAgain) => tracing::info!(of = of.word(), "clean-up works again"),
            None => {}
        }
        self.metrics.round(of, done.is_ok());
    }

    /// Looks at all storage configs, and tells how late the clean-up is. Answers how many
    /// were looked at here.
    async fn look(&self) -> Result<usize, Error> {
        let rows = query(&self.pool, include_str!("../sql/cleanup_add_configs.sql"), &[]).await?;
        let Some(row) = rows.first() else { return Ok(0) };
        // Each is looked at once now, however short the time between two looks is.
        let now: Micros = row.try_get("now")?;
        let unseen = Duration::try_from_secs_f64(row.try_get("unseen_seconds")?).unwrap_or_default();
        let mut late_for = unseen.saturating_sub(self.every);
        let expired = self.expire_all(now, &mut late_for).await;
        self.metrics.lag(late_for);
        expired
    }

    /// Looks at each storage config that was not looked at since a moment, and says how
    /// late what is due longest is. One that fails holds up no other.
    async fn expire_all(&self, now: Micros, late_for: &mut Duration) -> Result<usize, Error> {
        let (mut all, mut failed) = (0, None);
        while let Some(mut lease) = self.lease(now).await? {
            let looked = self.look_at(&mut lease).await;
            self.release(&lease).await?;
            let overdue = self.overdue(&lease).await.map(|late| *late_for = late.max(*late_for));
            if let Err(error) = looked.and(overdue) {
                let (organisation, storage_config) = (&lease.organisation, lease.config);
                tracing::warn!(%organisation, %storage_config, %error, "storage config not cleaned up");
                failed = Some(error);
            }
            all += 1;
        }
        failed.map_or(Ok(all), Err)
    }

    /// Looks at one storage config.
    async fn look_at(&self, lease: &mut Lease) -> Result<(), Error> {
        if lease.config.is_nil() {
            return self.expire(lease, None).await;
        }
        let Some(config) = self.find(&lease.organisation, lease.config).await? else {
            return self.end(lease).await;
        };
        self.expire(lease, Some(&config)).await?;
        if config.state == State::Deactivated {
            self.forget_config(lease, &config).await?;
        }
        Ok(())
    }

    /// A storage config, by the service's own sessions. `None`: it was forgotten.
    async fn find(&self, organisation: &OrganisationId, id: Uuid) -> Result<Option<StorageConfig>, Error> {
        let mut found = self.configs.named([(organisation, id)]).await?;
        Ok(found.remove(&(organisation.clone(), id)))
    }

    /// A storage config that results or uploads are in.
    async fn config(&self, organisation: &OrganisationId, id: Uuid) -> Result<StorageConfig, Error> {
        let none = || Error::internal("what is to be removed is in a storage config that is not there");
        self.find(organisation, id).await?.ok_or_else(none)
    }

    /// Forgets results, unless another replica is at that, and drops what is empty then. One
    /// that fails keeps back no other.
    async fn forget_old(&self) -> Result<bool, Error> {
        let (forgot, dropped) = (self.forget().await, self.drop_empty_weeks().await);
        forgot.and_then(|is_mine| dropped.map(|()| is_mine))
    }

    /// Forgets what is old enough; not while another replica does.
    async fn forget(&self) -> Result<bool, Error> {
        loop {
            let rows = query(&self.pool, include_str!("../sql/forget.sql"), &[]).await?;
            let Some(row) = rows.first() else { return Ok(false) };
            let (is_mine, forgotten): (bool, i64) = (row.try_get("is_mine")?, row.try_get("forgotten")?);
            if forgotten == 0 {
                return Ok(is_mine);
            }
            tracing::info!(results = forgotten, "results forgotten that expired a year ago");
        }
    }

    /// One at a time, so that what each locks is free again before the next.
    async fn drop_empty_weeks(&self) -> Result<(), Error> {
        let mut partitions = 0;
        loop {
            let rows = query(&self.pool, include_str!("../sql/drop_empty_weeks.sql"), &[]).await?;
            let dropped: i32 = rows.first().map_or(Ok(0), |row| row.try_get("dropped"))?;
            if dropped == 0 {
                break;
            }
            partitions += dropped;
        }
        if partitions > 0 {
            tracing::info!(partitions, "empty partitions dropped");
        }
        Ok(())
    }
}
