//! The stores that storage configs open, kept open; and the operator's keys and
//! rules that they are opened with.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sluice_service::OrganisationId;

use super::ConfigName;
use crate::{
    storage::{
        credentials::Credentials,
        guard::Policy,
        keyring::{Ciphertext, Keyring},
        open,
        store::Store,
    },
    storage_config::StorageConfig,
};

/// Most stores that are kept open.
const OPEN_MAX: usize = 1000;

/// Each with the revision that it was opened for.
type Open = Cache<ConfigName, (i64, Store)>;

/// Opens stores. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stores {
    policy: Arc<Policy>,
    keys: Arc<Keyring>,
    open: Arc<Open>,
}

/// What a config's credentials are sealed with: they open nowhere else.
fn context(organisation: &OrganisationId, url: &str) -> String {
    format!("{organisation} {url}")
}

impl Stores {
    /// Within the operator's rules, with the operator's keys.
    #[must_use]
    pub fn new(policy: Policy, keys: Keyring) -> Self {
        Self { policy: Arc::new(policy), keys: Arc::new(keys), open: Arc::new(Cache::new(OPEN_MAX)) }
    }

    /// The operator's rules.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The id of the key that encrypts new credentials.
    #[must_use]
    pub fn present_key(&self) -> Option<&str> {
        self.keys.present()
    }

    /// Encrypts credentials for one place of an organisation; `None` without a key.
    #[must_use]
    pub fn seal(
        &self,
        credentials: &Credentials,
        organisation: &OrganisationId,
        url: &str,
    ) -> Option<Ciphertext> {
        let text = serde_json::to_vec(credentials).ok()?;
        self.keys.seal(&text, &context(organisation, url))
    }

    /// A config's credentials.
    ///
    /// # Errors
    /// If the key that encrypted them is not there.
    pub fn credentials(&self, config: &StorageConfig) -> Result<Credentials, String> {
        let Some(sealed) = &config.credentials else { return Ok(Credentials::default()) };
        let text = self.keys.open(sealed, &context(&config.organisation, &config.place.to_string()));
        let lost = || format!("the key {} that encrypted the credentials is not there", sealed.key);
        serde_json::from_slice(&text.ok_or_else(lost)?).map_err(|_| lost())
    }

    /// The store of a config.
    ///
    /// # Errors
    /// Why it can't be opened; names no credentials.
    pub fn open(&self, config: &StorageConfig) -> Result<Store, String> {
        let name = (config.organisation.clone(), config.id);
        if let Some((_, store)) = self.open.get(&name).filter(|(revision, _)| *revision == config.revision) {
            return Ok(store);
        }
        let store = open::open(&config.place, &self.credentials(config)?, &self.policy)?;
        self.open.insert(name, (config.revision, store.clone()));
        Ok(store)
    }
}
