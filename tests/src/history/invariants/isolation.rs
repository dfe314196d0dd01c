//! Invariant 7: No call sees another organisation's anything.

use std::collections::HashMap;

use super::Findings;
use crate::history::{Did, Invariant, Outcome, Place, Violation, index::Index};

/// Whose something is, and what says so.
type Owners<'a> = HashMap<&'a str, (&'a str, Place)>;

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Isolation, all };
    let (ids, nonces) = owners(index, &mut findings);
    told(index, &ids, &mut findings);
    seen(index, &ids, &nonces, &mut findings);
    found(index, &ids, &mut findings);
}

/// Whose each id and each nonce is: the organisation's for which it was accepted
/// or sent.
fn owners<'a>(index: &'a Index<'a>, findings: &mut Findings<'_>) -> (Owners<'a>, Owners<'a>) {
    let (mut ids, mut nonces) = (Owners::new(), Owners::new());
    let mut shared = Vec::new();
    for attempt in &index.attempts {
        let owner = (attempt.call.organisation.as_str(), attempt.place);
        nonces.entry(&attempt.sent.nonce).or_insert(owner);
        if let (Some(told), true) = (attempt.told, attempt.is(Outcome::Success)) {
            let known = ids.entry(&told.id).or_insert(owner);
            if known.0 != owner.0 {
                findings.add(&told.id, "two organisations were told this id", [known.1, owner.1]);
                shared.push(told.id.as_str());
            }
        }
    }
    for last in &index.last {
        // An id that only an unknown answer could tell.
        if let Some(owner) = nonces.get(last.record.nonce.as_str()) {
            ids.entry(&last.record.id).or_insert(*owner);
        }
    }
    // Whose they are nobody can say.
    for id in shared {
        ids.remove(id);
    }
    (ids, nonces)
}

/// No publisher is told another's id.
fn told(index: &Index<'_>, ids: &Owners<'_>, findings: &mut Findings<'_>) {
    for attempt in index.attempts.iter().filter(|a| !a.is(Outcome::Success)) {
        let Some(told) = attempt.told else { continue };
        foreign(&told.id, attempt.organisation(), ids, attempt.place, "it was told", findings);
    }
}

/// No consumer sees another's record.
fn seen(index: &Index<'_>, ids: &Owners<'_>, nonces: &Owners<'_>, findings: &mut Findings<'_>) {
    for seen in index.sightings.values().flatten() {
        let (organisation, record) = (seen.organisation, seen.record);
        if record.organisation != organisation {
            let says = format!("{organisation} saw a record of {}", record.organisation);
            findings.add(&record.id, says, [seen.place]);
        } else if !foreign(&record.id, organisation, ids, seen.place, "it was seen", findings) {
            foreign(&record.nonce, organisation, nonces, seen.place, "it was seen", findings);
        }
    }
}

/// No call with another's id finds its data, and none changes anything. (What comes as a
/// record was seen.)
fn found(index: &Index<'_>, ids: &Owners<'_>, findings: &mut Findings<'_>) {
    for (place, call) in &index.calls {
        let organisation = call.organisation.as_str();
        let found: Vec<&str> = match &call.did {
            Did::Download { id, found } if matches!(found.said(), Some(Some(_))) => vec![id],
            Did::Acknowledge { changed, .. } => {
                let changed = changed.said().and_then(Option::as_ref);
                changed.into_iter().flatten().map(String::as_str).collect()
            }
            _ => continue,
        };
        for id in found {
            foreign(id, organisation, ids, *place, "it was found", findings);
        }
    }
}

/// Reports it if it belongs to another organisation.
fn foreign(
    what: &str,
    organisation: &str,
    owners: &Owners<'_>,
    place: Place,
    how: &str,
    findings: &mut Findings<'_>,
) -> bool {
    let Some((owner, proof)) = owners.get(what).filter(|(owner, _)| *owner != organisation) else {
        return false;
    };
    findings.add(what, format!("{how} by {organisation}, and is {owner}'s"), [*proof, place]);
    true
}
