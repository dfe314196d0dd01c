//! Invariant 6: CONSUMED never becomes AVAILABLE; one call at most is told that it was the
//! one that consumed; and whoever acknowledges is answered with what is consumed now.

use std::collections::HashSet;

use super::Findings;
use crate::history::{
    Answer, Did, Invariant, Micros, Place, Record, State, Violation,
    index::{Index, Sighting, Signing},
};

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Consumed, all };
    for (key, sightings) in &index.sightings {
        let signings = index.signings.get(key).map_or(&[][..], Vec::as_slice);
        stays(key.1, sightings, signings, &mut findings);
        // What is not its own is the first or the seventh invariant's.
        if index.results.contains_key(key) {
            by_somebody(key.1, sightings, signings, &mut findings);
        }
        dates(key.1, sightings, &mut findings);
        asked_for(key.1, sightings, &mut findings);
    }
    for (key, signings) in &index.signings {
        once(key.1, signings, &mut findings);
        answered(key.1, signings, &mut findings);
    }
    for (place, call) in &index.calls {
        if let Did::Acknowledge { ids, changed: Answer::Said(Some(changed)), .. } = &call.did {
            told(ids, changed, *place, &mut findings);
        }
    }
    for (key, (place, row)) in &index.kept {
        if row.available == row.consumed {
            let says = if row.available { "both available and consumed" } else { "in no state" };
            findings.add(key.1, says, [*place]);
        }
    }
}

/// The first moment at which the result was certainly consumed, and what says so.
fn consumed_at(sightings: &[Sighting<'_>], signings: &[Signing<'_>]) -> Option<(Micros, Place)> {
    // An acknowledgement answered for a result that was there before consumed it,
    // or found it so.
    let known = sightings.iter().filter_map(|seen| seen.call.map(|call| call.ended)).min();
    let known = known.unwrap_or(Micros::MAX);
    let signed = signings.iter().filter(|s| match s.changed {
        Some(true) => true,
        Some(false) => known < s.call.began,
        None => false,
    });
    let signed = signed.map(|s| (s.call.ended, s.place));
    let seen = sightings.iter().filter(|seen| seen.record.state == State::Consumed);
    let seen = seen.filter_map(|seen| Some((seen.call?.ended, seen.place)));
    signed.chain(seen).min()
}

fn stays(id: &str, sightings: &[Sighting<'_>], signings: &[Signing<'_>], findings: &mut Findings<'_>) {
    let Some((consumed, proof)) = consumed_at(sightings, signings) else { return };
    for seen in sightings.iter().filter(|seen| seen.record.state == State::Available) {
        if seen.call.is_none_or(|call| call.began > consumed) {
            findings.add(id, "it was consumed, and is AVAILABLE", [proof, seen.place]);
            return;
        }
    }
    // Whoever changes it is the first.
    let late = signings.iter().find(|s| s.changed == Some(true) && s.call.began > consumed);
    if let Some(late) = late {
        findings.add(id, "it was consumed, and then consumed anew", [proof, late.place]);
    }
}

/// What is CONSUMED was acknowledged by a call that may have done it.
fn by_somebody(id: &str, sightings: &[Sighting<'_>], signings: &[Signing<'_>], findings: &mut Findings<'_>) {
    for seen in sightings.iter().filter(|seen| seen.record.state == State::Consumed) {
        let before = seen.call.map_or(Micros::MAX, |call| call.ended);
        if !signings.iter().any(|s| s.changed != Some(false) && s.call.began <= before) {
            let says = format!("it is {} and nobody was told to have consumed it", State::Consumed.name());
            let places = signings.iter().map(|s| s.place).chain([seen.place]);
            findings.add(id, says, places);
            return;
        }
    }
}

/// It was consumed at one moment, and has a date from then on.
fn dates(id: &str, sightings: &[Sighting<'_>], findings: &mut Findings<'_>) {
    let is_dated = |record: &Record| record.date_consumed.is_some();
    let fits = |record: &Record| match record.state {
        State::Available => !is_dated(record),
        State::Consumed => is_dated(record),
        State::Expired => true,
    };
    if let Some(seen) = sightings.iter().find(|seen| !fits(seen.record)) {
        let dated = if is_dated(seen.record) { "with" } else { "without" };
        let says = format!("it is {} {dated} a date of consumption", seen.record.state.name());
        findings.add(id, says, [seen.place]);
    }
    let mut dated = sightings.iter().filter_map(|seen| Some((seen.record.date_consumed?, seen.place)));
    let Some((date, first)) = dated.next() else { return };
    if let Some((_, other)) = dated.find(|(other, _)| *other != date) {
        findings.add(id, "it was consumed at two moments", [first, other]);
    }
}

/// A list brings results of the states that were asked for.
fn asked_for(id: &str, sightings: &[Sighting<'_>], findings: &mut Findings<'_>) {
    let is_other = |seen: &&Sighting<'_>| {
        let Some(Did::List { states, .. }) = seen.call.map(|call| &call.did) else { return false };
        !states.contains(&seen.record.state)
    };
    if let Some(seen) = sightings.iter().find(is_other) {
        findings.add(id, format!("it is {} in a list without", seen.record.state.name()), [seen.place]);
    }
}

fn once(id: &str, signings: &[Signing<'_>], findings: &mut Findings<'_>) {
    let changed: Vec<_> = signings.iter().filter(|s| s.changed == Some(true)).collect();
    if changed.len() > 1 {
        findings.add(id, "two calls were told that they consumed it", changed.iter().map(|s| s.place));
    }
}

/// A call is told to have consumed what it asked for, and each once, however often it asked.
/// (Nothing but the call itself is looked at: another try is another call.)
fn told(ids: &[String], changed: &[String], place: Place, findings: &mut Findings<'_>) {
    let asked: HashSet<&String> = ids.iter().collect();
    let mut before = HashSet::new();
    for id in changed {
        if !asked.contains(id) {
            findings.add(id, "a call that did not ask for it was told to have consumed it", [place]);
        } else if !before.insert(id) {
            findings.add(id, "one call was told twice that it consumed it", [place]);
        }
    }
}

/// The answer to an acknowledgement says that it is consumed.
fn answered(id: &str, signings: &[Signing<'_>], findings: &mut Findings<'_>) {
    let open = signings.iter().find(|s| s.record.is_some_and(|record| record.state == State::Available));
    if let Some(open) = open {
        findings.add(id, "acknowledged, and the answer says AVAILABLE", [open.place]);
    }
}
