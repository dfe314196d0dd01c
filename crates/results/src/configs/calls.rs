//! What callers may do with storage configs: convert, call, convert.

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, DeactivateStorageConfigRequest, GetStorageConfigRequest,
    ListStorageConfigsRequest, ListStorageConfigsResponse, SetDefaultStorageConfigRequest,
    StorageConfig as Wire, TestStorageConfigRequest, TestStorageConfigResponse, UpdateStorageConfigRequest,
};
use sluice_service::{Error, Kind, OrganisationId, audit, auth::Access};
use uuid::Uuid;

use super::{Configs, New, not_found, probe::probe, stores::Stores};
use crate::{
    result::parse_id,
    storage::{credentials::Credentials, keyring::Ciphertext, open, place::Place},
    storage_config::{State, StorageConfig, change, draft, wire},
};

const PAGE_SIZE_DEFAULT: i64 = 100;
const PAGE_SIZE_MAX: i64 = 1000;
/// How often a change is tried that meets another one.
const TRIES_MAX: u32 = 5;

/// The calls.
#[derive(Clone, Debug)]
pub struct ConfigCalls {
    /// What is kept.
    pub configs: Configs,
    /// What it opens.
    pub stores: Stores,
}

fn id(text: &str) -> Result<Uuid, Error> {
    parse_id(text).ok_or_else(not_found)
}

fn deactivated() -> Error {
    Error::new(Kind::FailedPrecondition, "DEACTIVATED", "the storage config was deactivated")
}

fn needed(config: Option<Wire>) -> Result<Wire, Error> {
    config.ok_or_else(|| Error::invalid("storage_config", "must be given"))
}

/// A line for those who have to know who changed what.
fn audit(access: &Access, config: &StorageConfig, what: &'static str) {
    audit::changed(access, Some(&config.organisation), what, config.id);
}

impl ConfigCalls {
    /// See the contract.
    pub async fn create(&self, access: &Access, request: CreateStorageConfigRequest) -> Result<Wire, Error> {
        let asked = needed(request.storage_config)?;
        let organisation = access.organisation(&asked.organisation)?;
        let draft = draft(asked)?;
        let credentials = self.seal(&draft.credentials, &draft.place, &organisation)?;
        let new = New {
            organisation: &organisation,
            url: draft.place.to_string(),
            credentials,
            terms: draft.terms,
        };
        let created = self.configs.create(new).await?;
        audit(access, &created, "storage config created");
        self.probed(created).await.map(|config| wire(&config))
    }

    /// See the contract.
    pub async fn get(&self, access: &Access, request: GetStorageConfigRequest) -> Result<Wire, Error> {
        let organisation = access.organisation(&request.organisation)?;
        Ok(wire(&self.configs.get(&organisation, id(&request.id)?).await?))
    }

    /// See the contract.
    pub async fn list(
        &self,
        access: &Access,
        request: ListStorageConfigsRequest,
    ) -> Result<ListStorageConfigsResponse, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let page_size = match i64::from(request.page_size) {
            0 => PAGE_SIZE_DEFAULT,
            size if (1..=PAGE_SIZE_MAX).contains(&size) => size,
            _ => return Err(Error::invalid("page_size", format!("must be 0 to {PAGE_SIZE_MAX}"))),
        };
        // The token is the last id of the page before: it grants nothing.
        let after = match request.page_token.as_str() {
            "" => Uuid::nil(),
            token => {
                parse_id(token).ok_or_else(|| Error::invalid("page_token", "is not one of this list"))?
            }
        };
        let mut found = self.configs.list(&organisation, after, page_size + 1).await?;
        let more = found.len() > usize::try_from(page_size).unwrap_or(usize::MAX);
        if more {
            found.pop();
        }
        let last = found.last().filter(|_| more).map(|config| config.id.to_string());
        Ok(ListStorageConfigsResponse {
            storage_configs: found.iter().map(wire).collect(),
            next_page_token: last.unwrap_or_default(),
        })
    }

    /// See the contract.
    pub async fn update(&self, access: &Access, request: UpdateStorageConfigRequest) -> Result<Wire, Error> {
        let asked = needed(request.storage_config)?;
        let organisation = access.organisation(&asked.organisation)?;
        let id = id(&asked.id)?;
        let mask = request.update_mask.map(|mask| mask.paths);
        for _ in 0..TRIES_MAX {
            let read = self.configs.get(&organisation, id).await?;
            if read.state == State::Deactivated {
                return Err(deactivated());
            }
            let is_same = || asked.url.parse::<Place>().is_ok_and(|place| place == read.place);
            if !asked.url.is_empty() && !is_same() {
                return Err(Error::invalid(
                    "storage_config.url",
                    "never changes: create another storage config",
                ));
            }
            let provider = read.place.provider();
            let change = change(asked.clone(), mask.as_deref(), provider)?;
            let credentials = match &change.credentials {
                Some(credentials) => self.seal(credentials, &read.place, &organisation)?,
                None => read.credentials.clone(),
            };
            let terms = change.apply(read.terms, provider);
            if let Some(updated) = self.configs.update(&read, credentials.as_ref(), terms).await? {
                audit(access, &updated, "storage config updated");
                return self.probed(updated).await.map(|config| wire(&config));
            }
        }
        Err(Error::unavailable("the storage config is being changed by others; retry"))
    }

    /// See the contract.
    pub async fn deactivate(
        &self,
        access: &Access,
        request: DeactivateStorageConfigRequest,
    ) -> Result<Wire, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let config = self.configs.deactivate(&organisation, id(&request.id)?).await?;
        audit(access, &config, "storage config deactivated");
        Ok(wire(&config))
    }

    /// See the contract. `None`: the built-in `db`.
    pub async fn set_default(
        &self,
        access: &Access,
        request: SetDefaultStorageConfigRequest,
    ) -> Result<Option<Wire>, Error> {
        let organisation = access.organisation(&request.organisation)?;
        if request.id.is_empty() {
            self.configs.clear_default(&organisation).await?;
            audit::changed(access, Some(&organisation), "storage config made the default", "db");
            return Ok(None);
        }
        let id = id(&request.id)?;
        let Some(config) = self.configs.set_default(&organisation, id).await? else {
            self.configs.get(&organisation, id).await?;
            let text = "only a storage config in state VALID can be the default";
            return Err(Error::new(Kind::FailedPrecondition, "NOT_VALID", text));
        };
        audit(access, &config, "storage config made the default");
        Ok(Some(wire(&config)))
    }

    /// See the contract.
    pub async fn test(
        &self,
        access: &Access,
        request: TestStorageConfigRequest,
    ) -> Result<TestStorageConfigResponse, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let read = self.configs.get(&organisation, id(&request.id)?).await?;
        if read.state == State::Deactivated {
            return Err(deactivated());
        }
        let found = self.probed(read).await?;
        let details = found.state_details.clone();
        Ok(TestStorageConfigResponse { storage_config: Some(wire(&found)), details })
    }

    /// Probes; answers it as it is afterwards.
    async fn probed(&self, config: StorageConfig) -> Result<StorageConfig, Error> {
        match probe(&self.configs, &self.stores, &config).await? {
            Some(found) => Ok(found),
            None => self.configs.get(&config.organisation, config.id).await,
        }
    }

    /// Checks credentials against what the operator allows, and encrypts them.
    fn seal(
        &self,
        credentials: &Credentials,
        place: &Place,
        organisation: &OrganisationId,
    ) -> Result<Option<Ciphertext>, Error> {
        open::check(place, credentials, self.stores.policy())
            .map_err(|fault| Error::invalid("storage_config.credentials", fault))?;
        if credentials.is_empty() {
            return Ok(None);
        }
        let sealed = self.stores.seal(credentials, organisation, &place.to_string());
        sealed.map(Some).ok_or_else(|| {
            let text = "credentials can't be kept: the service has no key to encrypt them with";
            Error::new(Kind::FailedPrecondition, "UNCONFIGURED", text)
        })
    }
}
