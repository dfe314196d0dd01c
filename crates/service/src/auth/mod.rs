//! Tokens and scopes. Before a request gets a place, the caller's token is found in
//! its headers, its id looked up in the keys file, and the secret compared in constant
//! time. Before its body is read, a gRPC call needs the scope of its rpc (written beside it
//! in `proto/`). What is not in that table is denied. HTTP routes can't be declared
//! without naming theirs (see [`crate::http`]). Handlers get an [`Access`], and the
//! organisation only through it.

mod keys_file;
mod streams;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use sluice_proto::rpc;
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use keys_file::{
    INTAKE_SCOPE, KeyEntry, KeysFile, SCOPES, TOKEN_PREFIX, fault, is_token_id, secret_sha256, token_text,
};
use keys_file::{Key, KeyTable, parse_keys, read_keys};

use crate::{
    Error, Kind, OrganisationId, audit,
    follow::{Unusable, follow_text},
    limits::Rate,
    metrics::{Refusals, Requests},
    no_token::NoToken,
    rate::Rates,
    shares::Owner,
};

/// Longest token, in bytes, that is looked at.
const TOKEN_BYTES_MAX: usize = 256;
/// What an unknown token's secret is compared with: the hash of none.
const NOBODY: [u8; 32] = [0; 32];

/// The keys that are valid now, read from a file and again whenever it changes.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    table: ArcSwap<KeyTable>,
    /// How many requests each organisation may send.
    rates: Option<Rates>,
    refusals: Arc<Refusals>,
    strangers: audit::Strangers,
    /// Told of every change, for those who act under a token for long.
    changed: watch::Sender<()>,
}

impl Keys {
    /// Reads the keys file. Each organisation's own tokens are held to the rate,
    /// if there is one; `requests` counts what that refuses.
    ///
    /// # Errors
    /// If it can't be read or says something unclear.
    pub fn load(path: &Path, rate: Option<Rate>, requests: &Requests) -> Result<Arc<Self>, String> {
        let table = ArcSwap::from_pointee(read_keys(path)?);
        let (rates, refusals) = (rate.map(Rates::new), requests.refusals.clone());
        let (strangers, changed) = (audit::Strangers::default(), watch::Sender::new(()));
        Ok(Arc::new(Self { path: path.into(), table, rates, refusals, strangers, changed }))
    }

    /// Follows changes of the file until shutdown. A file that can't be read or
    /// parsed leaves the keys as they are, is logged once, and told of by the metric.
    pub async fn follow(self: Arc<Self>, unusable: Unusable, shutdown: CancellationToken) {
        follow_text(unusable.of("keys_file"), self.path.clone(), shutdown, |text| {
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

    /// Who calls, by the token in a request's headers.
    pub(crate) fn caller(&self, headers: &http::HeaderMap) -> Caller {
        let (id, secret) = token_of(headers).and_then(split_token).unwrap_or_default();
        let given: [u8; 32] = Sha256::digest(secret).into();
        // An unknown id takes as long as a wrong secret.
        let known = self.table.load().get(id).cloned();
        let kept = known.as_ref().map_or(&NOBODY, |key| &key.secret_sha256);
        let is_same = bool::from(kept.ct_eq(&given));
        Caller { id: if is_token_id(id) { id } else { "" }.into(), key: known.filter(|_| is_same) }
    }

    /// The access of a request whose [`Caller`] has a valid token that holds a scope. `to`
    /// says what it asks for, for the log.
    ///
    /// # Errors
    /// UNAUTHENTICATED or PERMISSION_DENIED; RESOURCE_EXHAUSTED if the token's
    /// organisation sends more requests than it may.
    pub(crate) fn access<B>(
        self: &Arc<Self>,
        request: &http::Request<B>,
        scope: &'static str,
        to: &'static str,
    ) -> Result<Access, Error> {
        let access = self.known(request.extensions().get(), to)?;
        if access.holds(scope) {
            self.is_within_rate(access.key.organisation.as_ref())?;
            return Ok(access);
        }
        let message = format!("the token lacks the scope {scope}");
        Err(access.refuse(Error::new(Kind::PermissionDenied, "MISSING_SCOPE", message)))
    }

    fn is_within_rate(&self, organisation: Option<&OrganisationId>) -> Result<(), Error> {
        if let (Some(rates), Some(organisation)) = (&self.rates, organisation) {
            rates.take(organisation).inspect_err(|_| {
                self.refusals.rate.met(Some(organisation));
            })?;
        }
        Ok(())
    }

    fn known(self: &Arc<Self>, caller: Option<&Caller>, to: &'static str) -> Result<Access, Error> {
        let Some((id, key)) = caller.and_then(Caller::known) else {
            let error = unauthenticated();
            self.strangers.refused(caller.map_or("", |caller| &caller.id), to, error.reason());
            return Err(error);
        };
        let access = Access { id: id.clone(), key: key.clone(), to, keys: self.clone() };
        if access.key.is_expired() { Err(access.refuse(expired())) } else { Ok(access) }
    }
}

/// Who calls, as far as a request's token tells: found once, before anything is done for the
/// request. [`Keys::access`] finds it in the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What was given as the token's id; empty if that can't be one.
    id: Arc<str>,
    /// If the token is in the keys file.
    key: Option<Arc<Key>>,
}

impl Caller {
    fn known(&self) -> Option<(&Arc<str>, &Arc<Key>)> {
        Some((&self.id, self.key.as_ref()?))
    }

    /// Whose share the request takes of what all have together.
    pub(crate) fn owner(&self) -> Owner {
        match self.key.as_ref().filter(|key| !key.is_expired()) {
            Some(key) => key.organisation.clone().map_or(Owner::Operator, Owner::Organisation),
            None => Owner::Nobody,
        }
    }
}

/// The token in `Authorization: Bearer|Token <t>` or `X-AIMS-Auth-Token: <t>`.
fn token_of(headers: &http::HeaderMap) -> Option<&str> {
    let authorization = headers.get(http::header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        known.then_some(token.trim())
    });
    // Beside credentials of another scheme: Alert Logic's own client sends `Basic` along.
    authorization.or_else(|| headers.get("x-aims-auth-token")?.to_str().ok().map(str::trim))
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
    /// UNAUTHENTICATED if the request came without its token being looked at.
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

/// Settles whether a gRPC call may be made: its handler finds the [`Access`] in its
/// extensions.
///
/// # Errors
/// UNIMPLEMENTED if there is no such rpc; else as [`Keys::access`].
pub(crate) fn authorise<B>(keys: &Arc<Keys>, request: &mut http::Request<B>) -> Result<(), Error> {
    let path = request.uri().path();
    if NoToken::at(path).is_some() {
        return Ok(());
    }
    let rpc =
        rpc(path).ok_or_else(|| Error::new(Kind::Unimplemented, "UNKNOWN_METHOD", "there is no such rpc"))?;
    let access = keys.access(request, rpc.scope, rpc.path)?;
    request.extensions_mut().insert(access);
    Ok(())
}

#[cfg(test)]
mod tests;
