//! Forgetting storage configs that are deactivated and keep nothing.

use std::time::Duration;

use sluice_service::{
    Error,
    postgres::{execute, query},
};
use tokio_postgres::types::ToSql;

use super::{Cleanup, expire::Lease};
use crate::storage_config::StorageConfig;

/// How long after it was deactivated one is forgotten, at the earliest.
const AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl Cleanup {
    /// Forgets a storage config if it has been deactivated for long and keeps nothing; what
    /// is left of it otherwise waits for another look.
    pub(super) async fn forget_config(&self, lease: &Lease, config: &StorageConfig) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 4] =
            [&lease.organisation.as_str(), &lease.config, &lease.id, &AFTER.as_secs_f64()];
        if query(&self.pool, include_str!("../sql/config_forget.sql"), &params).await?.is_empty() {
            return Ok(());
        }
        let (organisation, storage_config) = (&lease.organisation, lease.config);
        tracing::info!(%organisation, %storage_config, "deactivated storage config forgotten");
        if let Ok(store) = self.stores.open(config) {
            store.remove_empty_folders(organisation).await;
        }
        self.end(lease).await
    }

    /// Ends the clean-up of a storage config that is not there any more.
    pub(super) async fn end(&self, lease: &Lease) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&lease.organisation.as_str(), &lease.config, &lease.id];
        execute(&self.pool, include_str!("../sql/cleanup_end.sql"), &params).await.map(drop)
    }
}
