//! What the keys file says, and how tokens are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::OrganisationId;

/// What every token begins with, so that scanners for leaked secrets know one.
pub const TOKEN_PREFIX: &str = "sluice_";
/// Every scope there is.
pub const SCOPES: [&str; 7] = [
    "observations.publish",
    "definitions.read",
    "definitions.write",
    "results.read",
    "results.ack",
    "storage.admin",
    INTAKE_SCOPE,
];
/// The scope of the internal intake service.
pub const INTAKE_SCOPE: &str = "intake.write";

/// One entry of the keys file, `[[token]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Public part of the token, 1 to 64 letters and digits.
    pub id: String,
    /// SHA-256 of the secret part, lower-case hex.
    pub secret_sha256: String,
    /// The organisation it belongs to. Absent with `all_organisations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Whether it may act for every organisation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_organisations: bool,
    /// What it may do.
    pub scopes: BTreeSet<String>,
    /// When it ends, as RFC 3339. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The keys file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// The tokens that are valid.
    #[serde(default)]
    pub token: Vec<KeyEntry>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) secret_sha256: [u8; 32],
    pub(super) organisation: Option<OrganisationId>,
    pub(super) scopes: BTreeSet<String>,
    pub(super) expires: Option<SystemTime>,
}

impl Key {
    pub(super) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= SystemTime::now())
    }
}

pub(super) type KeyTable = BTreeMap<String, Arc<Key>>;

/// A token's text: `sluice_<id>_<secret>`.
#[must_use]
pub fn token_text(id: &str, secret: &str) -> String {
    format!("{TOKEN_PREFIX}{id}_{secret}")
}

/// SHA-256 of a token's secret part, lower-case hex, as the keys file keeps it.
#[must_use]
pub fn secret_sha256(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// Whether a token id is well-formed.
#[must_use]
pub fn is_token_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What is wrong with a keys file, as the fault of the setting `keys_file`.
#[must_use]
pub fn fault(path: &Path) -> Option<String> {
    read_keys(path).err().map(|fault| format!("keys_file: {fault}"))
}

pub(super) fn read_keys(path: &Path) -> Result<KeyTable, String> {
    let named = |fault: String| format!("{}: {fault}", path.display());
    let text = std::fs::read_to_string(path).map_err(|fault| named(fault.to_string()))?;
    parse_keys(&text).map_err(named)
}

pub(super) fn parse_keys(text: &str) -> Result<KeyTable, String> {
    let file: KeysFile = toml::from_str(text).map_err(|fault| fault.message().to_owned())?;
    let mut table = KeyTable::new();
    for entry in file.token {
        let id = entry.id.clone();
        let key = parse_key(entry).map_err(|fault| format!("token {id}: {fault}"))?;
        if table.insert(id.clone(), Arc::new(key)).is_some() {
            return Err(format!("token {id}: the id stands twice"));
        }
    }
    Ok(table)
}

pub(super) fn parse_key(entry: KeyEntry) -> Result<Key, String> {
    if !is_token_id(&entry.id) {
        return Err("id must be 1 to 64 letters and digits".into());
    }
    let mut secret_sha256 = [0; 32];
    hex::decode_to_slice(&entry.secret_sha256, &mut secret_sha256)
        .map_err(|_| "secret_sha256 must be 64 hex digits")?;
    let organisation = match (entry.organisation, entry.all_organisations) {
        (Some(name), false) => Some(name.parse::<OrganisationId>().map_err(|fault| fault.to_string())?),
        (None, true) => None,
        _ => return Err("give either organisation or all_organisations = true".into()),
    };
    if let Some(unknown) = entry.scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(format!("unknown scope {unknown}"));
    }
    if organisation.is_some() && entry.scopes.contains(INTAKE_SCOPE) {
        return Err(format!("{INTAKE_SCOPE} is never given to a tenant's token"));
    }
    let expires = entry.expires.as_deref().map(parse_time).transpose()?;
    Ok(Key { secret_sha256, organisation, scopes: entry.scopes, expires })
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    let time = text.parse::<prost_types::Timestamp>().ok().and_then(|time| time.try_into().ok());
    time.ok_or_else(|| "expires must be a time such as \"2026-02-28T12:00:00Z\"".into())
}
