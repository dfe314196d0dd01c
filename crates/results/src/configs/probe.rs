//! Probing: writes, reads back and deletes an object, and keeps what was found as
//! the storage config's state. What is NEW or INVALID is probed again every so
//! often, by one replica at a time.

use std::time::Duration;

use futures_util::future::join_all;
use sluice_service::{Error, backoff::Rounds};
use tokio_util::sync::CancellationToken;

use super::{Configs, stores::Stores};
use crate::storage_config::{State, StorageConfig};

/// How often what is not VALID is probed again.
pub const AGAIN_EVERY: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// While it fails.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(20);
/// Probed at the same time again,
const AT_ONCE: i64 = 16;
/// and of one organisation: those of it that hang hold nobody else's up.
const OF_ONE_AT_ONCE: i64 = 4;
/// How long a probe may take. Results go on being tried at a bucket that hangs until it is
/// found out.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// Probes, and keeps the state found. A config that was changed or deactivated
/// meanwhile is left alone: `None`.
///
/// # Errors
/// UNAVAILABLE if the database can't answer.
pub async fn probe(
    configs: &Configs,
    stores: &Stores,
    config: &StorageConfig,
) -> Result<Option<StorageConfig>, Error> {
    let found = match tokio::time::timeout(PROBE_TIMEOUT, look(stores, config)).await {
        Ok(found) => found,
        Err(_) => Err("the storage did not answer in time".into()),
    };
    let (state, details) = match found {
        Ok(()) => (State::Valid, String::new()),
        Err(why) => (State::Invalid, why),
    };
    if state != config.state {
        let (organisation, id) = (&config.organisation, config.id);
        tracing::info!(%organisation, storage_config = %id, ?state, details, "storage config probed");
    }
    configs.set_state(config, state, &details).await
}

async fn look(stores: &Stores, config: &StorageConfig) -> Result<(), String> {
    if config.is_in_database() {
        // It is kept beside this very config.
        return Ok(());
    }
    stores.open(config)?.probe(&config.organisation).await.map_err(|error| error.to_string())
}

/// Probes storage configs until shutdown.
pub async fn keep(configs: Configs, stores: Stores, shutdown: CancellationToken) {
    let mut rounds = Rounds::new("probing storage configs", LOOK_EVERY, LOOK_EVERY_MAX);
    let mut done = Ok(());
    while rounds.next_after(&done, &shutdown).await {
        done = once(&configs, &stores, &shutdown).await;
    }
}

/// Probes what waits for it, some at the same time, until nothing does.
async fn once(configs: &Configs, stores: &Stores, shutdown: &CancellationToken) -> Result<(), Error> {
    while !shutdown.is_cancelled() {
        let due = configs.to_probe(AGAIN_EVERY, AT_ONCE, OF_ONE_AT_ONCE).await?;
        if due.is_empty() {
            break;
        }
        for outcome in join_all(due.iter().map(|config| probe(configs, stores, config))).await {
            outcome?;
        }
    }
    Ok(())
}
