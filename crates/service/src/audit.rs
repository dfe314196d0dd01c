//! Who changed what, who was refused, and who meets a limit: one line each in the log, under the
//! target `audit`, so that they can be kept apart and longer. Lines have the
//! token's public id, never its secret, and no contents.

use std::fmt;

use crate::{OrganisationId, auth::Access};

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
