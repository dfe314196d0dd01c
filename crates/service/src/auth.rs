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
    time::Duration,
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

use crate::{Error, Kind, OrganisationId};

/// How often the keys file is looked at.
const RELOAD_EVERY: Duration = Duration::from_millis(500);
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
    Ok(Key { secret_sha256, organisation, scopes: entry.scopes })
}

/// The keys that are valid now, read from a file and again whenever it changes.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    table: ArcSwap<KeyTable>,
    /// Told of every change, for those who act under a token for long.
    changed: watch::Sender<()>,
}

impl Keys {
    /// Reads the keys file.
    ///
    /// # Errors
    /// If it can't be read or says something unclear.
    pub fn load(path: &Path) -> Result<Arc<Self>, String> {
        let text = std::fs::read_to_string(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
        let table = parse_keys(&text).map_err(|fault| format!("{}: {fault}", path.display()))?;
        let table = ArcSwap::from_pointee(table);
        Ok(Arc::new(Self { path: path.into(), table, changed: watch::Sender::new(()) }))
    }

    /// Follows changes of the file until shutdown. A file that can't be read or
    /// parsed leaves the keys as they are, and is logged once.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failed: Option<String> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RELOAD_EVERY) => {}
            }
            let read = tokio::fs::read_to_string(&self.path).await.map_err(|fault| fault.to_string());
            match read.and_then(|text| parse_keys(&text)) {
                Ok(table) => {
                    failed = None;
                    if **self.table.load() != table {
                        tracing::info!(tokens = table.len(), "keys reloaded");
                        self.table.store(Arc::new(table));
                        self.changed.send_replace(());
                    }
                }
                Err(fault) if failed.as_ref() != Some(&fault) => {
                    tracing::error!(%fault, "keys file not usable, keeping the keys as they were");
                    failed = Some(fault);
                }
                Err(_) => {}
            }
        }
    }

    /// The access of a request whose token is valid and holds a scope. `to` says
    /// what it asks for, for the log.
    ///
    /// # Errors
    /// UNAUTHENTICATED or PERMISSION_DENIED.
    pub(crate) fn access(
        self: &Arc<Self>,
        headers: &http::HeaderMap,
        scope: &'static str,
        to: &str,
    ) -> Result<Access, Error> {
        let access = self.find(headers)?;
        if access.holds(scope) {
            return Ok(access);
        }
        tracing::warn!(token = access.token_id(), path = to, scope, "refused: scope missing");
        let message = format!("the token lacks the scope {scope}");
        Err(Error::new(Kind::PermissionDenied, "MISSING_SCOPE", message))
    }

    fn find(self: &Arc<Self>, headers: &http::HeaderMap) -> Result<Access, Error> {
        let unknown = || Error::new(Kind::Unauthenticated, "UNAUTHENTICATED", "a valid token is needed");
        let (id, secret) = token_of(headers).and_then(split_token).ok_or_else(unknown)?;
        let given: [u8; 32] = Sha256::digest(secret).into();
        let key = self.table.load().get(id).cloned().ok_or_else(unknown)?;
        if bool::from(key.secret_sha256.ct_eq(&given)) {
            Ok(Access { id: id.into(), key, keys: self.clone() })
        } else {
            Err(unknown())
        }
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
    keys: Arc<Keys>,
}

impl Access {
    /// The access of an authenticated request.
    ///
    /// # Errors
    /// UNAUTHENTICATED if the request came past the layer without a token.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Error> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::new(Kind::Unauthenticated, "UNAUTHENTICATED", "a valid token is needed"))
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
            (Some(_), _) => Err(foreign()),
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

    /// For long streams: whether the token is still valid as it was.
    ///
    /// # Errors
    /// UNAUTHENTICATED if it was revoked or changed since.
    pub fn still_valid(&self) -> Result<(), Error> {
        match self.keys.table.load().get(&*self.id) {
            Some(key) if *key == self.key => Ok(()),
            _ => Err(Error::new(Kind::Unauthenticated, "TOKEN_REVOKED", "the token is no longer valid")),
        }
    }

    /// Waits until the token is no longer valid as it was.
    pub async fn revoked(&self) {
        let mut changed = self.keys.changed.subscribe();
        while self.still_valid().is_ok() {
            // The sender is kept by these very keys.
            drop(changed.changed().await);
        }
    }

    fn holds(&self, scope: &str) -> bool {
        self.key.scopes.contains(scope)
    }
}

fn foreign() -> Error {
    Error::new(
        Kind::PermissionDenied,
        "FOREIGN_ORGANISATION",
        "the token does not belong to this organisation",
    )
}

/// The scope an rpc needs, `None` for paths that are not in the contract.
pub(crate) fn required_scope(path: &str) -> Option<&'static str> {
    let table = sluice_proto::REQUIRED_SCOPES;
    table.binary_search_by_key(&path, |(name, _)| name).ok().map(|at| table[at].1)
}

fn authorise<B>(keys: &Arc<Keys>, request: &mut http::Request<B>) -> Result<(), Error> {
    let path = request.uri().path();
    if OPEN_SERVICES.iter().any(|open| path.starts_with(open)) {
        return Ok(());
    }
    let scope = required_scope(path)
        .ok_or_else(|| Error::new(Kind::Unimplemented, "UNKNOWN_METHOD", "there is no such rpc"))?;
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
