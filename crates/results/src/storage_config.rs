//! Storage configs as values: what a caller may ask for, and what is kept. Valid
//! by construction; nothing here does any I/O.

use object_store::path::Path;
use prost_types::{Duration, Timestamp};
use sluice_proto::results::v1::{StorageConfig as Wire, storage_config::State as WireState};
use sluice_service::{Error, OrganisationId, Violations};
use uuid::Uuid;

use crate::{
    storage::{
        credentials::Credentials,
        keyring::Ciphertext,
        place::{Place, Provider},
    },
    time::Micros,
};

const DAY_SECONDS: i64 = 24 * 60 * 60;
const RETENTION_SECONDS_DEFAULT: i64 = 30 * DAY_SECONDS;
/// 100 years.
const RETENTION_SECONDS_MAX: i64 = 36_525 * DAY_SECONDS;
const SIGNED_URLS_SECONDS_DEFAULT: i32 = 60 * 60;
const SIGNED_URLS_SECONDS_MAX: i64 = 365 * DAY_SECONDS;

/// What the last probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum State {
    /// Not probed yet.
    New = 1,
    /// Usable.
    Valid = 2,
    /// Not usable: results that need it wait.
    Invalid = 3,
    /// Takes nothing new.
    Deactivated = 4,
}

impl State {
    /// As kept.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// From what is kept. What is unknown is not usable.
    #[must_use]
    pub fn from_code(code: i16) -> Self {
        [Self::New, Self::Valid, Self::Deactivated]
            .into_iter()
            .find(|state| state.code() == code)
            .unwrap_or(Self::Invalid)
    }
}

/// What may be changed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether results get signed URLs.
    pub signed_urls_enabled: bool,
    /// How long they work, in seconds.
    pub signed_urls_seconds: i32,
    /// Whether the clean-up applies.
    pub managed: bool,
    /// How long data is kept, in seconds; 0 for ever.
    pub retention_seconds: i64,
}

impl Terms {
    /// Those of the built-in `db`.
    pub const BUILT_IN: Self = Self {
        signed_urls_enabled: false,
        signed_urls_seconds: SIGNED_URLS_SECONDS_DEFAULT,
        managed: true,
        retention_seconds: RETENTION_SECONDS_DEFAULT,
    };
}

/// A storage config as it is kept.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The tenant.
    pub organisation: OrganisationId,
    /// UUID.
    pub id: Uuid,
    /// Counts the changes.
    pub revision: i64,
    /// Where it keeps data.
    pub place: Place,
    /// Its credentials; `None`: the service's own identity.
    pub credentials: Option<Ciphertext>,
    /// For how long, and for whom.
    pub terms: Terms,
    /// What the last probe found.
    pub state: State,
    /// Why that is INVALID.
    pub state_details: String,
    /// When it was created.
    pub date_created: Micros,
    /// Whether it is the organisation's default.
    pub is_default: bool,
}

/// What a caller wants to create.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Where to keep data.
    pub place: Place,
    /// With which credentials.
    pub credentials: Credentials,
    /// On which terms.
    pub terms: Terms,
}

/// What a caller wants to change; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// New credentials; empty: the service's own identity from now on.
    pub credentials: Option<Credentials>,
    /// See [`Terms`].
    pub signed_urls_enabled: Option<bool>,
    /// See [`Terms`].
    pub signed_urls_seconds: Option<i32>,
    /// See [`Terms`].
    pub managed: Option<bool>,
    /// See [`Terms`].
    pub retention_seconds: Option<i64>,
}

impl StorageConfig {
    /// Whether it keeps its data in the results database.
    #[must_use]
    pub fn is_in_database(&self) -> bool {
        self.place.provider() == Provider::Db
    }

    /// The key of what it keeps of a result.
    #[must_use]
    pub fn object(&self, id: Uuid) -> Path {
        self.place.key(&self.organisation, id)
    }
}

impl Change {
    /// The terms that follow.
    #[must_use]
    pub fn apply(&self, terms: Terms, provider: Provider) -> Terms {
        Terms {
            signed_urls_enabled: self.signed_urls_enabled.unwrap_or(terms.signed_urls_enabled),
            signed_urls_seconds: self.signed_urls_seconds.unwrap_or(terms.signed_urls_seconds),
            managed: provider == Provider::Db || self.managed.unwrap_or(terms.managed),
            retention_seconds: self.retention_seconds.unwrap_or(terms.retention_seconds),
        }
    }
}

/// What was read of a field.
fn read<T>(field: &str, read: Result<T, impl Into<String>>) -> Result<T, Error> {
    read.map_err(|fault| Error::invalid(format!("storage_config.{field}"), fault))
}

fn terms(wire: &Wire, provider: Provider, faults: &mut Violations) -> Terms {
    let signed_urls_seconds = read("signed_urls_expiry", expiry(wire));
    Terms {
        signed_urls_enabled: wire.signed_urls_enabled,
        signed_urls_seconds: faults.or(signed_urls_seconds, SIGNED_URLS_SECONDS_DEFAULT),
        managed: wire.managed || provider == Provider::Db,
        retention_seconds: faults.or_default(read("retention", retention(wire))),
    }
}

fn whole_seconds(duration: &Duration) -> Result<i64, &'static str> {
    if duration.nanos == 0 { Ok(duration.seconds) } else { Err("must be whole seconds") }
}

fn expiry(wire: &Wire) -> Result<i32, &'static str> {
    let Some(given) = &wire.signed_urls_expiry else { return Ok(SIGNED_URLS_SECONDS_DEFAULT) };
    let seconds = whole_seconds(given)?;
    let fits = (1..=SIGNED_URLS_SECONDS_MAX).contains(&seconds);
    i32::try_from(seconds).ok().filter(|_| fits).ok_or("must be 1 second to 365 days")
}

fn retention(wire: &Wire) -> Result<i64, &'static str> {
    let Some(given) = &wire.retention else { return Ok(RETENTION_SECONDS_DEFAULT) };
    let seconds = whole_seconds(given)?;
    let fits = (0..=RETENTION_SECONDS_MAX).contains(&seconds);
    if fits { Ok(seconds) } else { Err("must be 0 (for ever) to 100 years") }
}

/// Reads what is to be created.
///
/// # Errors
/// INVALID_ARGUMENT, naming every field that is wrong.
pub fn draft(wire: Wire) -> Result<Draft, Error> {
    let mut faults = Violations::default();
    let place = faults.or(read("url", wire.url.parse()), Place::built_in());
    let terms = terms(&wire, place.provider(), &mut faults);
    let given = Credentials::new(place.provider(), wire.credentials);
    let credentials = faults.or_default(read("credentials", given));
    faults.none_or(Draft { place, credentials, terms })
}

/// Reads what is to be changed of one of a provider: the fields named, or all, of
/// which credentials only if there are some.
///
/// # Errors
/// INVALID_ARGUMENT, naming every field that is wrong.
pub fn change(wire: Wire, fields: Option<&[String]>, provider: Provider) -> Result<Change, Error> {
    const FIELDS: [&str; 5] =
        ["credentials", "signed_urls_enabled", "signed_urls_expiry", "managed", "retention"];
    let named = |field: &str| fields.is_none_or(|fields| fields.iter().any(|name| name == field));
    let mut faults = Violations::default();
    if fields.unwrap_or_default().iter().any(|name| !FIELDS.contains(&name.as_str())) {
        faults.add("update_mask", format!("can name {} only", FIELDS.join(", ")));
    }
    let mut change = Change::default();
    if named("credentials") && (fields.is_some() || !wire.credentials.is_empty()) {
        let given = Credentials::new(provider, wire.credentials.clone());
        change.credentials = Some(faults.or_default(read("credentials", given)));
    }
    // What is not named is not looked at, so it can't be wrong.
    let looked_at = Wire {
        signed_urls_expiry: wire.signed_urls_expiry.filter(|_| named("signed_urls_expiry")),
        retention: wire.retention.filter(|_| named("retention")),
        ..wire
    };
    let terms = terms(&looked_at, provider, &mut faults);
    change.signed_urls_enabled = named("signed_urls_enabled").then_some(terms.signed_urls_enabled);
    change.signed_urls_seconds = named("signed_urls_expiry").then_some(terms.signed_urls_seconds);
    change.managed = named("managed").then_some(terms.managed);
    change.retention_seconds = named("retention").then_some(terms.retention_seconds);
    faults.none_or(change)
}

/// A storage config as it is told to callers: without credentials.
#[must_use]
pub fn wire(config: &StorageConfig) -> Wire {
    let state = match config.state {
        State::New => WireState::New,
        State::Valid => WireState::Valid,
        State::Invalid => WireState::Invalid,
        State::Deactivated => WireState::Deactivated,
    };
    let seconds = |seconds: i64| Some(Duration { seconds, nanos: 0 });
    Wire {
        id: config.id.to_string(),
        resource: "storage_config".into(),
        organisation: config.organisation.as_str().into(),
        r#type: config.place.provider().as_str().into(),
        url: config.place.to_string(),
        credentials: std::collections::HashMap::new(),
        signed_urls_enabled: config.terms.signed_urls_enabled,
        signed_urls_expiry: seconds(config.terms.signed_urls_seconds.into()),
        managed: config.terms.managed,
        retention: seconds(config.terms.retention_seconds),
        state: state.into(),
        date_created: Some(Timestamp::from(config.date_created)),
        state_details: config.state_details.clone(),
        is_default: config.is_default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Wire {
        Wire {
            url: "s3://b".into(),
            credentials: [("access_key_id", "a"), ("secret_access_key", "s")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Wire::default()
        }
    }

    fn fields(error: Error) -> Vec<String> {
        error.violations().iter().map(|fault| fault.field.replace("storage_config.", "")).collect()
    }

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration { seconds, nanos: 0 })
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let terms = draft(bucket()).unwrap().terms;
        let expected = Terms {
            signed_urls_enabled: false,
            signed_urls_seconds: 3600,
            managed: false,
            retention_seconds: 30 * 86_400,
        };
        assert_eq!(terms, expected);
        assert!(draft(Wire { url: "db://results".into(), ..Wire::default() }).unwrap().terms.managed);
    }

    #[test]
    fn durations_are_bounded_on_both_sides() {
        let expiry = |given| draft(Wire { signed_urls_expiry: seconds(given), ..bucket() }).is_ok();
        assert_eq!([0, 1, 365 * 86_400, 365 * 86_400 + 1].map(expiry), [false, true, true, false]);
        let retention = |given| draft(Wire { retention: seconds(given), ..bucket() }).is_ok();
        assert_eq!([-1, 0, 36_525 * 86_400, 36_525 * 86_400 + 1].map(retention), [false, true, true, false]);
        let part = Some(Duration { seconds: 1, nanos: 1 });
        assert!(draft(Wire { retention: part, ..bucket() }).is_err());
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = Wire {
            url: "ftp://x".into(),
            signed_urls_expiry: seconds(0),
            retention: seconds(-1),
            ..bucket()
        };
        assert_eq!(
            fields(draft(wrong).unwrap_err()),
            ["url", "signed_urls_expiry", "retention", "credentials"]
        );
    }

    #[test]
    fn a_change_is_of_what_is_named() {
        let mask = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wire = || Wire { retention: seconds(-1), managed: true, ..bucket() };
        let named = change(wire(), Some(&mask(&["managed"])), Provider::S3).unwrap();
        assert!(
            named.managed == Some(true) && named.retention_seconds.is_none() && named.credentials.is_none()
        );
        assert_eq!(fields(change(wire(), None, Provider::S3).unwrap_err()), ["retention"]);
        assert_eq!(fields(change(wire(), Some(&mask(&["url"])), Provider::S3).unwrap_err()), ["update_mask"]);
        let none = change(Wire { credentials: [].into(), ..bucket() }, None, Provider::S3).unwrap();
        assert!(none.credentials.is_none());
        let emptied = change(Wire::default(), Some(&mask(&["credentials"])), Provider::S3).unwrap();
        assert!(emptied.credentials.unwrap().is_empty());
    }
}
