//! What callers may do with definitions: both surfaces convert, call, convert.
//! Which organisation is meant they have settled with the token's access;
//! `None` is system-wide.

use std::{sync::Arc, time::Duration};

use sluice_service::{
    Error, Kind, OrganisationId, Violation, audit,
    auth::Access,
    metrics::Gauge,
    rations::{Ration, Rations},
    shares::Owner,
};
use uuid::Uuid;

use crate::{
    definition::{Definition, DefinitionPath, Draft, RawDraft},
    definitions::{Definitions, Name},
};

/// Answers that hold all definitions of an organisation, and are put together at a time.
const WHOLE_LISTS_MAX: usize = 4;

/// The calls.
#[derive(Clone, Debug)]
pub struct DefinitionCalls {
    /// For what takes no more than to read.
    pub definitions: Definitions,
    retention: Duration,
    checks: Arc<Rations>,
    lists: Arc<Rations>,
}

/// Whose turn it is: what is system-wide has its own, like an organisation's.
fn turn_of(organisation: Option<&OrganisationId>) -> Owner {
    organisation.map_or(Owner::Nobody, Owner::from)
}

fn may_write(access: &Access, organisation: Option<&OrganisationId>) -> Result<(), Error> {
    if organisation.is_some() || access.is_for_all_organisations() {
        return Ok(());
    }
    Err(access.refuse(Error::new(
        Kind::PermissionDenied,
        "SYSTEM_WIDE",
        "a system-wide definition is written with a token for all organisations only: name your organisation",
    )))
}

/// Which definition is meant. None has a malformed path or id.
///
/// # Errors
/// INVALID_ARGUMENT unless exactly one of them is given; NOT_FOUND.
pub fn name(path: &str, id: &str) -> Result<Name, Error> {
    let unknown = || Error::not_found("definition");
    match (path.is_empty(), id.is_empty()) {
        (false, true) => match path.parse::<DefinitionPath>() {
            Ok(path) => Ok(Name::Path(path.to_string())),
            Err(_) => Err(unknown()),
        },
        (true, false) => id.parse().map(Name::Id).map_err(|_| unknown()),
        _ => Err(Error::invalid("path", "give either path or id")),
    }
}

impl DefinitionCalls {
    /// Calls on a store; windows may be as long as `retention`. Drafts are checked in
    /// turns with observations.
    #[must_use]
    pub fn new(definitions: Definitions, retention: Duration, checks: Arc<Rations>) -> Self {
        // Requests under way are told by the observer.
        let lists = Rations::new(WHOLE_LISTS_MAX, Gauge::default());
        Self { definitions, retention, checks, lists }
    }

    /// A turn at putting all definitions of an organisation together.
    pub async fn turn_at_a_list(&self, organisation: Option<&OrganisationId>) -> Ration {
        self.lists.take(&turn_of(organisation), 1).await
    }

    /// Creates or overwrites; says whether it created.
    ///
    /// # Errors
    /// PERMISSION_DENIED; INVALID_ARGUMENT, naming every field that is wrong;
    /// FAILED_PRECONDITION if `etag` is given and not the present one.
    pub async fn put(&self, access: &Access, raw: RawDraft, etag: &str) -> Result<(Definition, bool), Error> {
        may_write(access, raw.organisation.as_ref())?;
        let draft = self.checked(raw).await?.map_err(Error::invalid_all)?;
        let (definition, created) = self.definitions.put(&draft, etag).await?;
        let what = if created { "definition created" } else { "definition overwritten" };
        audit::changed(access, draft.organisation.as_ref(), what, &draft.path);
        Ok((definition, created))
    }

    /// Deletes one of exactly this organisation; answers its id.
    ///
    /// # Errors
    /// PERMISSION_DENIED; NOT_FOUND; FAILED_PRECONDITION as with [`Self::put`].
    pub async fn delete(
        &self,
        access: &Access,
        organisation: Option<&OrganisationId>,
        name: &Name,
        etag: &str,
    ) -> Result<Uuid, Error> {
        may_write(access, organisation)?;
        let id = self.definitions.delete(organisation, name, etag).await?;
        audit::changed(access, organisation, "definition deleted", id);
        Ok(id)
    }

    /// What is wrong with a definition; nothing is kept.
    ///
    /// # Errors
    /// INTERNAL if the service is at fault.
    pub async fn faults(&self, raw: RawDraft) -> Result<Vec<Violation>, Error> {
        Ok(self.checked(raw).await?.err().unwrap_or_default())
    }

    /// A draft, or what is wrong with it. Not on a thread that serves everybody, and in
    /// turns: a schema may take a good part of a second to compile, and some megabytes.
    async fn checked(&self, raw: RawDraft) -> Result<Result<Draft, Vec<Violation>>, Error> {
        let turn = self.checks.take(&turn_of(raw.organisation.as_ref()), 1).await;
        let retention = self.retention;
        let checking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            raw.check(retention)
        });
        checking.await.map_err(Error::internal)
    }
}
