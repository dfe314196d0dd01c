//! Who changed what, who was refused, and who meets a limit: one line each in the log, under the
//! target `audit`, so that they can be kept apart and longer. Lines have the
//! token's public id, never its secret, and no contents. Refused calls without a valid token
//! anybody can make: of these, some are only counted.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{OrganisationId, auth::Access};

/// Refused calls without a valid token that have a line of their own, each second.
const STRANGERS_TOLD_MAX: u64 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// A line for a change that was made: `what` it is, such as `definition created`, and
/// which `thing` it is. `organisation` is the one whose thing it is; `None` is
/// system-wide.
pub fn changed(access: &Access, organisation: Option<&OrganisationId>, what: &str, thing: impl fmt::Display) {
    let (token, organisation) = (access.token_id(), organisation.map_or("", OrganisationId::as_str));
    tracing::info!(target: "audit", token, organisation, what, %thing, "changed");
}

/// A line for an organisation that met a limit, which is a setting's name.
pub(crate) fn limited(organisation: &OrganisationId, limit: &'static str) {
    tracing::warn!(target: "audit", %organisation, limit, "turned away at a limit");
}

/// A line for a call that was refused: `what` was called, and the reason that was
/// answered. `organisation` is the token's own; `None` for one that is not known or
/// is for all of them.
pub fn refused(token: &str, organisation: Option<&OrganisationId>, what: &str, reason: &str) {
    let organisation = organisation.map_or("", OrganisationId::as_str);
    tracing::warn!(target: "audit", token, organisation, what, reason, "refused");
}

/// The refused calls of this second that came without a valid token.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Arc<AtomicU64>);

impl Strangers {
    /// A line for a refused call, if it is one of the first of its second; all others are
    /// counted in one line at the second's end. Called in a runtime.
    pub(crate) fn refused(&self, token: &str, what: &str, reason: &str) {
        let before = self.0.fetch_add(1, Relaxed);
        if before == 0 {
            let second = Second(self.0.clone());
            tokio::spawn(async move {
                tokio::time::sleep(SECOND).await;
                drop(second);
            });
        }
        if before < STRANGERS_TOLD_MAX {
            refused(token, None, what, reason);
        }
    }
}

/// A second that began with a refused call. Its end comes sooner if the process ends.
struct Second(Arc<AtomicU64>);

impl Drop for Second {
    fn drop(&mut self) {
        let calls = self.0.swap(0, Relaxed).saturating_sub(STRANGERS_TOLD_MAX);
        if calls > 0 {
            tracing::warn!(target: "audit", calls, "more calls refused without a valid token");
        }
    }
}
