//! Doubts about storage configs that failed: each is probed, once at a time, so that it is
//! INVALID if it can't be used, and nobody else has to find out.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    configs::{ConfigName, Configs, probe::probe, stores::Stores},
    storage_config::StorageConfig,
};

/// Finds out about configs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doubts {
    configs: Configs,
    stores: Stores,
    under_way: Arc<Mutex<HashSet<ConfigName>>>,
}

/// One that is being looked into; ends with it, however that ends.
struct Doubted {
    name: ConfigName,
    under_way: Arc<Mutex<HashSet<ConfigName>>>,
}

fn lock(under_way: &Mutex<HashSet<ConfigName>>) -> MutexGuard<'_, HashSet<ConfigName>> {
    // Nothing that holds the lock can panic half-way.
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Doubted {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.name);
    }
}

impl Doubts {
    /// Has none yet.
    #[must_use]
    pub fn new(configs: Configs, stores: Stores) -> Self {
        Self { configs, stores, under_way: Arc::default() }
    }

    /// Finds out whether a config that failed is still VALID, unless somebody is at it.
    /// Whoever waits for it may leave: it goes on.
    pub async fn look_into(&self, config: &StorageConfig) {
        let name = (config.organisation.clone(), config.id);
        if !lock(&self.under_way).insert(name.clone()) {
            return;
        }
        let doubted = Doubted { name, under_way: self.under_way.clone() };
        let (configs, stores, config) = (self.configs.clone(), self.stores.clone(), config.clone());
        let probing = tokio::spawn(async move {
            let _doubted = doubted;
            if let Err(error) = probe(&configs, &stores, &config).await {
                tracing::debug!(%error, "storage config not probed");
            }
        });
        // How it ended is in the config's state.
        let _ended = probing.await;
    }
}
