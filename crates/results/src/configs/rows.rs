//! From a row to a storage config.

use sluice_service::Error;
use tokio_postgres::Row;

use crate::{
    storage::keyring::Ciphertext,
    storage_config::{State, StorageConfig, Terms},
};

/// Reads a row of `storage_config` with `is_default`.
///
/// # Errors
/// INTERNAL if it holds what can't have been written.
pub fn config(row: &Row) -> Result<StorageConfig, Error> {
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
