//! Tokens and scopes. A tower layer finds the caller's token in the request's
//! headers, looks its id up in the keys file and compares the secret in constant
//! time; then the scope that the rpc needs (written beside it in `proto/`).
//! What is not in that table is denied. HTTP routes can't be declared without
//! naming theirs (see [`crate::http`]). Handlers get an [`Access`], and the
//! organisation only through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Error, Kind, OrganisationId, audit, follow::follow_text, limits::Rate, rate::Rates};

/// What every token begins with, so that scanners for leaked secrets know one.
pub const TOKEN_PREFIX: &str = "sluice_";
/// Services that need no token: they tell nothing of any organisation.
const OPEN_SERVICES: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
/// Longest token, in bytes, that is looked at.
const TOKEN_BYTES_MAX: usize = 256;
/// Who waits for a token to expire looks this often at the clock, which may be set.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// What an unknown token's secret is compared with: the hash of none.
const NOBODY: [u8; 32] = [0; 32];

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
struct Key {
    secret_sha256: [u8; 32],
    organisation: Option<OrganisationId>,
    scopes: BTreeSet<String>,
    expires: Option<SystemTime>,
}

impl Key {
    fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= SystemTime::now())
    }
}

type KeyTable = BTreeMap<String, Arc<Key>>;

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

fn parse_keys(text: &str) -> Result<KeyTable, String> {
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

fn parse_key(entry: KeyEntry) -> Result<Key, String> {
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

/// The keys that are valid now, read from a file and again whenever it changes.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    table: ArcSwap<KeyTable>,
    /// How many requests each organisation may send.
    rates: Option<Rates>,
    /// Told of every change, for those who act under a token for long.
    changed: watch::Sender<()>,
}

impl Keys {
    /// Reads the keys file. Each organisation's own tokens are held to the rate,
    /// if there is one.
    ///
    /// # Errors
    /// If it can't be read or says something unclear.
    pub fn load(path: &Path, rate: Option<Rate>) -> Result<Arc<Self>, String> {
        let text = std::fs::read_to_string(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
        let table = parse_keys(&text).map_err(|fault| format!("{}: {fault}", path.display()))?;
        let table = ArcSwap::from_pointee(table);
        let rates = rate.map(Rates::new);
        Ok(Arc::new(Self { path: path.into(), table, rates, changed: watch::Sender::new(()) }))
    }

    /// Follows changes of the file until shutdown. A file that can't be read or
    /// parsed leaves the keys as they are, and is logged once.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        follow_text("keys file", self.path.clone(), shutdown, |text| {
            let table = parse_keys(text)?;
            if **self.table.load() != table {
                tracing::info!(tokens = table.len(), "keys reloaded");
                self.table.store(Arc::new(table));
                self.changed.send_replace(());
            }
            Ok(())
        })
        .await;
    }

    /// The access of a request whose token is valid and holds a scope. `to` says
    /// what it asks for, for the log.
    ///
    /// # Errors
    /// UNAUTHENTICATED or PERMISSION_DENIED; RESOURCE_EXHAUSTED if the token's
    /// organisation sends more requests than it may.
    pub(crate) fn access(
        self: &Arc<Self>,
        headers: &http::HeaderMap,
        scope: &'static str,
        to: &'static str,
    ) -> Result<Access, Error> {
        let access = self.find(headers, to)?;
        if access.holds(scope) {
            if let (Some(rates), Some(organisation)) = (&self.rates, &access.key.organisation) {
                rates.take(organisation)?;
            }
            return Ok(access);
        }
        let message = format!("the token lacks the scope {scope}");
        Err(access.refuse(Error::new(Kind::PermissionDenied, "MISSING_SCOPE", message)))
    }

    fn find(self: &Arc<Self>, headers: &http::HeaderMap, to: &'static str) -> Result<Access, Error> {
        let (id, secret) = token_of(headers).and_then(split_token).unwrap_or_default();
        let given: [u8; 32] = Sha256::digest(secret).into();
        // An unknown id takes as long as a wrong secret.
        let known = self.table.load().get(id).cloned();
        let kept = known.as_ref().map_or(&NOBODY, |key| &key.secret_sha256);
        let is_same = bool::from(kept.ct_eq(&given));
        let Some(key) = known.filter(|_| is_same) else {
            let error = unauthenticated();
            audit::refused(if is_token_id(id) { id } else { "" }, None, to, error.reason());
            return Err(error);
        };
        let access = Access { id: id.into(), key, to, keys: self.clone() };
        if access.key.is_expired() { Err(access.refuse(expired())) } else { Ok(access) }
    }
}

/// The token in `Authorization: Bearer|Token <t>` or `X-AIMS-Auth-Token: <t>`.
fn token_of(headers: &http::HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(http::header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        return known.then_some(token.trim());
    }
    headers.get("x-aims-auth-token")?.to_str().ok().map(str::trim)
}

fn split_token(token: &str) -> Option<(&str, &str)> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    token.strip_prefix(TOKEN_PREFIX)?.split_once('_')
}

/// What a verified token may do. Handlers find it in the request's extensions.
#[derive(Clone, Debug)]
pub struct Access {
    id: Arc<str>,
    key: Arc<Key>,
    /// The rpc or route that it was asked for, for the log.
    to: &'static str,
    keys: Arc<Keys>,
}

impl Access {
    /// The access of an authenticated request.
    ///
    /// # Errors
    /// UNAUTHENTICATED if the request came past the layer without a token.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Error> {
        request.extensions().get::<Self>().cloned().ok_or_else(unauthenticated)
    }

    /// The organisation a request acts for: the one it names, or the token's.
    ///
    /// # Errors
    /// PERMISSION_DENIED if it names another one than the token's;
    /// INVALID_ARGUMENT if it is malformed, or empty with a token for all.
    pub fn organisation(&self, requested: &str) -> Result<OrganisationId, Error> {
        self.organisation_or_all(requested)?
            .ok_or_else(|| Error::invalid("organisation", "must be given with a token for all organisations"))
    }

    /// Like [`Self::organisation`], where empty with a token for all
    /// organisations means what belongs to none of them.
    ///
    /// # Errors
    /// As there.
    pub fn organisation_or_all(&self, requested: &str) -> Result<Option<OrganisationId>, Error> {
        match (&self.key.organisation, requested) {
            (Some(own), "") => Ok(Some(own.clone())),
            (Some(own), name) if name == own.as_str() => Ok(Some(own.clone())),
            (Some(_), _) => Err(self.refuse(foreign())),
            (None, "") => Ok(None),
            (None, name) => name.parse().map(Some),
        }
    }

    /// Whether the token acts for every organisation.
    #[must_use]
    pub fn is_for_all_organisations(&self) -> bool {
        self.key.organisation.is_none()
    }

    /// The token's public id, for logs.
    #[must_use]
    pub fn token_id(&self) -> &str {
        &self.id
    }

    /// The error that refuses the call, after a line for those who have to know.
    #[must_use]
    pub fn refuse(&self, error: Error) -> Error {
        audit::refused(&self.id, self.key.organisation.as_ref(), self.to, error.reason());
        error
    }

    /// For long streams: whether the token is still valid as it was.
    ///
    /// # Errors
    /// UNAUTHENTICATED if it was revoked or changed since, or has expired.
    pub fn still_valid(&self) -> Result<(), Error> {
        match self.keys.table.load().get(&*self.id) {
            Some(key) if *key == self.key && key.is_expired() => Err(expired()),
            Some(key) if *key == self.key => Ok(()),
            _ => Err(Error::new(Kind::Unauthenticated, "TOKEN_REVOKED", "the token is no longer valid")),
        }
    }

    /// Waits until the token is no longer valid as it was.
    pub async fn revoked(&self) {
        let mut changed = self.keys.changed.subscribe();
        while self.still_valid().is_ok() {
            let left = self.key.expires.and_then(|expires| expires.duration_since(SystemTime::now()).ok());
            tokio::select! {
                // The sender is kept by these very keys.
                changed = changed.changed() => drop(changed),
                () = tokio::time::sleep(left.unwrap_or(CLOCK_EVERY).min(CLOCK_EVERY)) => {}
            }
        }
    }

    fn holds(&self, scope: &str) -> bool {
        self.key.scopes.contains(scope)
    }
}

fn unauthenticated() -> Error {
    Error::new(Kind::Unauthenticated, "UNAUTHENTICATED", "a valid token is needed")
}

fn expired() -> Error {
    Error::new(Kind::Unauthenticated, "TOKEN_EXPIRED", "the token has expired")
}

fn foreign() -> Error {
    Error::new(
        Kind::PermissionDenied,
        "FOREIGN_ORGANISATION",
        "the token does not belong to this organisation",
    )
}

/// Whether a path is of the services that need no token.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN_SERVICES.iter().any(|open| path.starts_with(open))
}

/// An rpc's path and the scope it needs, `None` for paths that are not in the
/// contract.
pub(crate) fn rpc(path: &str) -> Option<(&'static str, &'static str)> {
    let table = sluice_proto::REQUIRED_SCOPES;
    table.binary_search_by_key(&path, |(name, _)| name).ok().map(|at| table[at])
}

fn authorise<B>(keys: &Arc<Keys>, request: &mut http::Request<B>) -> Result<(), Error> {
    let path = request.uri().path();
    if is_open(path) {
        return Ok(());
    }
    let (path, scope) =
        rpc(path).ok_or_else(|| Error::new(Kind::Unimplemented, "UNKNOWN_METHOD", "there is no such rpc"))?;
    let access = keys.access(request.headers(), scope, path)?;
    request.extensions_mut().insert(access);
    Ok(())
}

/// Puts authentication in front of a service.
#[derive(Clone, Debug)]
pub struct AuthLayer {
    keys: Arc<Keys>,
}

impl AuthLayer {
    pub(crate) fn new(keys: Arc<Keys>) -> Self {
        Self { keys }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService { inner, keys: self.keys.clone() }
    }
}

/// See [`AuthLayer`].
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    inner: S,
    keys: Arc<Keys>,
}

impl<S, B, R> Service<http::Request<B>> for AuthService<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match authorise(&self.keys, &mut request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(error) => {
                let answer = Status::from(error).into_http();
                Box::pin(async move { Ok(answer) })
            }
        }
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
