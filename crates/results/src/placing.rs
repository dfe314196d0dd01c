//! Where each result's data goes, decided when it is recorded: what the results
//! name if that is usable, else the organisation's default, else the built-in
//! `db`. Data that goes to a bucket is put there before its record is made.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use sluice_service::{Error, OrganisationId};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    configs::{ConfigName, Configs, stores::Stores},
    doubts::Doubts,
    recorder::{Recorder, Recording, apart::Apart, put},
    result::{NewRecord, ResultName, Storage},
    storage_config::{State, StorageConfig},
    uploads::{Key, Uploads},
    writing::write,
};

/// For so long stored objects gather before their records are made, unless no more are
/// to come: one commit for many, and none waits for a bucket that hangs.
const GATHER_FOR: Duration = Duration::from_millis(500);

/// Records results wherever their data goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Placing {
    /// What organisations have set up.
    pub configs: Configs,
    /// What that opens.
    pub stores: Stores,
    /// Looks into what fails.
    pub doubts: Doubts,
    /// Objects without a result yet.
    pub uploads: Uploads,
    /// Records with their data.
    pub recorder: Recorder,
    /// Records without it.
    pub apart: Apart,
}

/// The storage configs that decide about a call.
pub struct Deciding {
    named: HashMap<ConfigName, StorageConfig>,
    defaults: HashMap<OrganisationId, StorageConfig>,
}

/// Where data is to go.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// Into the results database, on a config's terms or on the built-in ones.
    Database(Option<&'a StorageConfig>),
    /// Into a bucket.
    Bucket(&'a StorageConfig),
    /// Nowhere now: its storage is not usable.
    Wait,
}

impl Destination<'_> {
    /// Who keeps it, as it is fixed with the record.
    #[must_use]
    pub fn storage(&self) -> Storage {
        match self {
            Self::Database(Some(config)) | Self::Bucket(config) => storage_of(config),
            Self::Database(None) | Self::Wait => Storage::default(),
        }
    }
}

/// What is fixed with a record that a config keeps.
#[must_use]
pub fn storage_of(config: &StorageConfig) -> Storage {
    let terms = config.terms;
    Storage {
        config: Some(config.id),
        signed_urls_seconds: terms.signed_urls_enabled.then_some(terms.signed_urls_seconds),
    }
}

impl Deciding {
    /// Where a result goes that names a config, or none.
    #[must_use]
    pub fn destination(&self, organisation: &OrganisationId, named: Option<Uuid>) -> Destination<'_> {
        let usable = |config: &&StorageConfig| config.state != State::Deactivated;
        let config = named
            .and_then(|id| self.named.get(&(organisation.clone(), id)))
            .filter(usable)
            .or_else(|| self.defaults.get(organisation).filter(usable));
        match config {
            None => Destination::Database(None),
            Some(config) if config.is_in_database() => Destination::Database(Some(config)),
            Some(config) if config.state == State::Valid => Destination::Bucket(config),
            Some(_) => Destination::Wait,
        }
    }
}

impl Placing {
    /// What decides about some results now.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer.
    pub async fn deciding(
        &self,
        asked: impl Iterator<Item = (&OrganisationId, Option<Uuid>)>,
    ) -> Result<Deciding, Error> {
        let mut organisations = HashSet::new();
        let mut named = HashSet::new();
        for (organisation, config) in asked {
            organisations.insert(organisation.as_str());
            named.extend(config.map(|id| (organisation.as_str(), id)));
        }
        let (organisations, named): (Vec<_>, Vec<_>) =
            (organisations.into_iter().collect(), named.into_iter().collect());
        let mut deciding = Deciding { named: HashMap::new(), defaults: HashMap::new() };
        for config in self.configs.deciding(&organisations, &named).await? {
            if config.is_default {
                deciding.defaults.insert(config.organisation.clone(), config);
            } else {
                deciding.named.insert((config.organisation.clone(), config.id), config);
            }
        }
        Ok(deciding)
    }

    /// Records results with their data, each where it goes; one answer for each, in
    /// order.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't answer: some may be recorded, and all may
    /// be handed over again.
    pub async fn record(&self, given: Vec<(NewRecord, Option<Uuid>)>) -> Result<Vec<Recording>, Error> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let asked = given.iter().map(|(record, named)| (&record.organisation, *named));
        let deciding = self.deciding(asked).await?;
        let mut answers = vec![Recording::Deferred; given.len()];
        let (mut inline, mut inline_places) = (Vec::new(), Vec::new());
        let (mut apart, mut apart_places) = (Vec::new(), Vec::new());
        for (place, (mut record, named)) in given.into_iter().enumerate() {
            let destination = deciding.destination(&record.organisation, named);
            record.storage = destination.storage();
            match destination {
                Destination::Database(_) => {
                    inline.push(record);
                    inline_places.push(place);
                }
                Destination::Bucket(config) => {
                    apart.push((record, config));
                    apart_places.push(place);
                }
                Destination::Wait => {}
            }
        }
        let (inline, apart) = tokio::join!(self.recorder.record(inline), self.record_objects(apart));
        put(&mut answers, inline_places, inline?);
        put(&mut answers, apart_places, apart?);
        Ok(answers)
    }

    /// Writes objects, and records what is stored meanwhile. What is not stored in time
    /// is deferred: each try gets on from where the one before ended.
    async fn record_objects(&self, given: Vec<(NewRecord, &StorageConfig)>) -> Result<Vec<Recording>, Error> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<ResultName> = given.iter().map(|(record, _)| record.name()).collect();
        let mut recorded = self.apart.known(&names).await?;
        let fresh = || given.iter().filter(|(record, _)| !recorded.contains(&record.name()));
        let keys = fresh().map(|(record, config)| Key {
            organisation: record.organisation.clone(),
            id: record.id,
            config: Some(config.id),
        });
        let may_write = self.uploads.begin(keys.collect()).await?;
        let to_write = fresh().filter(|(record, _)| may_write.contains(&record.name()));
        let to_write: Vec<_> = to_write.map(|(record, config)| (record, *config)).collect();
        let (written, stored) = mpsc::unbounded_channel();
        let writing = async {
            write(&self.stores, &self.doubts, to_write, written).await;
            Ok(())
        };
        let ((), now) = tokio::try_join!(writing, self.record_as_stored(stored))?;
        recorded.extend(now);
        let recording =
            |name| if recorded.contains(name) { Recording::Recorded } else { Recording::Deferred };
        Ok(names.iter().map(recording).collect())
    }

    /// Records what comes, as it comes, until no more is to come; the names of those that
    /// are recorded afterwards.
    async fn record_as_stored(
        &self,
        mut stored: UnboundedReceiver<NewRecord>,
    ) -> Result<HashSet<ResultName>, Error> {
        let mut recorded = HashSet::new();
        while let Some(first) = stored.recv().await {
            let (mut together, until) = (vec![first], Instant::now() + GATHER_FOR);
            while let Ok(Some(next)) = timeout_at(until, stored.recv()).await {
                together.push(next);
            }
            recorded.extend(self.record_stored(&together).await?);
        }
        Ok(recorded)
    }

    /// Records what is stored; the names of those that are recorded afterwards.
    async fn record_stored(&self, stored: &[NewRecord]) -> Result<HashSet<ResultName>, Error> {
        let mut recorded = self.apart.record(stored).await?;
        let missing = stored.iter().map(NewRecord::name).filter(|name| !recorded.contains(name));
        let before = self.apart.known(&missing.collect::<Vec<_>>()).await?;
        recorded.extend(before);
        Ok(recorded)
    }
}
