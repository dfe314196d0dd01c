//! Credentials move to the present key.

use std::time::Duration;

use sluice_service::{Error, backoff::Rounds};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Configs, stores::Stores};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// While it fails.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);

/// Looks after credentials until shutdown.
pub async fn keep(configs: Configs, stores: Stores, shutdown: CancellationToken) {
    let Some(present) = stores.present_key() else { return };
    let mut rounds = Rounds::new("resealing credentials", LOOK_EVERY, LOOK_EVERY_MAX);
    let mut done = Ok(());
    while rounds.next_after(&done, &shutdown).await {
        done = once(&configs, &stores, present).await;
    }
}

async fn once(configs: &Configs, stores: &Stores, present: &str) -> Result<(), Error> {
    let (mut organisation, mut id) = (String::new(), Uuid::nil());
    loop {
        let found = configs.to_reseal(present, (&organisation, id)).await?;
        let Some(last) = found.last() else { return Ok(()) };
        (organisation, id) = (last.organisation.to_string(), last.id);
        for config in found {
            // The operator is told of a key that is not there by probes and uses.
            let Ok(credentials) = stores.credentials(&config) else { continue };
            let sealed = stores.seal(&credentials, &config.organisation, &config.place.to_string());
            if let Some(sealed) = sealed {
                configs.reseal(&config, &sealed).await?;
                let (organisation, id) = (&config.organisation, config.id);
                tracing::info!(%organisation, storage_config = %id, key = present, "credentials moved to another key");
            }
        }
    }
}
