//! Invariant 1: An observation that was answered `success` has exactly one result with
//! that id and those bytes. No result exists without an accepted observation.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Findings, walks};
use crate::history::{
    Answer, Did, Invariant, Outcome, Place, Sent, Violation,
    index::{Attempt, Index, Last},
};

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::OneResult, all };
    for attempt in &index.attempts {
        promised(index, attempt, &mut findings);
    }
    for results in index.results.values() {
        let results: Vec<_> = results.iter().map(|at| &index.last[*at]).collect();
        if results.len() > 1 {
            let places = results.iter().map(|last| last.place);
            findings.add(&results[0].record.id, "it is there more than once", places);
        }
        whole(&results, &mut findings);
    }
    if index.knows_gate {
        accepted(index, &mut findings);
    }
    nobodys(index, &mut findings);
    seen(index, &mut findings);
    asked(index, &mut findings);
    missed(index, &mut findings);
    walks::check(index, &mut findings);
    kept(index, &mut findings);
}

/// Who was told `success`, now or as the first outcome, finds the result.
fn promised(index: &Index<'_>, attempt: &Attempt<'_>, findings: &mut Findings<'_>) {
    let Some(told) = attempt.told else { return };
    let first = told.outcome == Outcome::Success;
    let repeated = told.outcome == Outcome::Duplicate && told.original == Some(Outcome::Success);
    if !first && !repeated {
        return;
    }
    let Some(results) = index.results.get(&(attempt.organisation(), told.id.as_str())) else {
        findings.add(&told.id, "told success, and there is no such result", [attempt.place]);
        return;
    };
    let last = &index.last[results[0]];
    // A duplicate may have had another content.
    if first && !is_of(last, attempt.sent) {
        findings.add(&told.id, "the result is not what was published", [attempt.place, last.place]);
    }
}

/// All that was published is in it as it was, whichever of its tries brought it: a nonce is of
/// one observation, which is the same each time that it is sent.
fn is_of(last: &Last<'_>, sent: &Sent) -> bool {
    let record = last.record;
    record.nonce == sent.nonce
        && record.data == sent.data
        && record.labels == sent.labels
        && record.definition == sent.definition
}

/// What a transaction of the gate accepted is there, whoever heard of it; and as many
/// are there as were handed over, which counts also what left no marker and no window.
fn accepted(index: &Index<'_>, findings: &mut Findings<'_>) {
    let ids: HashSet<&str> = index.results.keys().map(|(_, id)| *id).collect();
    let markers = index.accepted.iter().map(|(id, (place, _))| (*id, *place));
    let windows = index.windows.iter().map(|(id, windows)| (*id, windows[0].place));
    let mut missing: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for (id, place) in markers.chain(windows).filter(|(id, _)| !ids.contains(id)) {
        missing.entry(id).or_default().push(place);
    }
    for (id, places) in missing {
        findings.add(id, "a transaction accepted it, and there is no such result", places);
    }
    let mut there: BTreeMap<&str, u64> = BTreeMap::new();
    for (organisation, _) in index.results.keys() {
        *there.entry(organisation).or_default() += 1;
    }
    for (organisation, (sum, place)) in &index.handed_over {
        let there = there.get(organisation).copied().unwrap_or_default();
        if there != *sum {
            let says = format!("{sum} results were handed over, and {there} are there");
            findings.add(*organisation, says, [*place]);
        }
    }
}

/// The data is what the record says.
fn whole(results: &[&Last<'_>], findings: &mut Findings<'_>) {
    for last in results {
        if *last.data != last.record.data {
            findings.add(&last.record.id, "its data is not what its record says", [last.place]);
        }
    }
}

/// Every result comes from an observation that was accepted, or may have been;
/// each of those has one at most.
fn nobodys(index: &Index<'_>, findings: &mut Findings<'_>) {
    let mut by_nonce: HashMap<(&str, &str), Vec<&Last<'_>>> = HashMap::new();
    for results in index.results.values() {
        let last = &index.last[results[0]];
        by_nonce.entry((last.organisation, &last.record.nonce)).or_default().push(last);
    }
    for ((organisation, nonce), results) in by_nonce {
        let attempts: Vec<_> = index.of_nonce(organisation, nonce).collect();
        // What only ever left nothing is the fifth invariant's.
        if !attempts.is_empty() && attempts.iter().all(|attempt| attempt.left_nothing()) {
            continue;
        }
        let is_told = |last: &Last<'_>| {
            let names = |attempt: &Attempt<'_>| attempt.told.is_some_and(|told| told.id == last.record.id);
            attempts.iter().any(|attempt| attempt.is(Outcome::Success) && names(attempt))
        };
        let untold: Vec<_> = results.iter().filter(|last| !is_told(last)).collect();
        let unknown = attempts.iter().filter(|attempt| attempt.is_unknown());
        let fitting = |last: &Last<'_>| {
            let fits = |attempt: &Attempt<'_>| is_of(last, attempt.sent);
            attempts.iter().any(|attempt| attempt.is_unknown() && fits(attempt))
        };
        let may_have = unknown.count();
        if untold.len() > may_have || !untold.iter().all(|last| fitting(last)) {
            let places = results.iter().map(|last| last.place).chain(attempts.iter().map(|a| a.place));
            let says = format!("{} result(s) of {nonce} come from no accepted observation", untold.len());
            findings.add(untold.last().map_or("", |last| &last.record.id), says, places);
        }
    }
}

/// What somebody saw is there in the end, and was never anything else.
fn seen(index: &Index<'_>, findings: &mut Findings<'_>) {
    let ids: HashSet<&str> = index.results.keys().map(|(_, id)| *id).collect();
    for (key, sightings) in &index.sightings {
        let first = sightings[0].record;
        let mut lists: HashMap<usize, Place> = HashMap::new();
        for sighting in sightings {
            let record = sighting.record;
            let same = record.data == first.data
                && record.nonce == first.nonce
                && record.definition == first.definition
                && record.labels == first.labels
                && record.date_created == first.date_created;
            if !same {
                findings.add(key.1, "it changed", [sightings[0].place, sighting.place]);
                break;
            }
            if let Some(before) = lists.insert(sighting.place.event, sighting.place) {
                findings.add(key.1, "it is twice in one list", [before, sighting.place]);
                break;
            }
        }
        // What is another's is the seventh invariant's.
        let is_others = ids.contains(key.1) || index.is_foreign(key.0, &first.nonce);
        if !index.results.contains_key(key) && !is_others {
            findings.add(key.1, "it was there and is no more", [sightings[0].place]);
        }
    }
}

/// Who asks for one result is answered with no other.
fn asked(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (place, call) in &index.calls {
        let (id, record) = match &call.did {
            Did::Get { id, found: Answer::Said(Some(record)) } => (id, record),
            Did::Acknowledge { ids, record: Some(record), .. } => (&ids[0], record),
            _ => continue,
        };
        if record.id != *id {
            findings.add(id, format!("it was asked for, and {} came", record.id), [*place]);
        }
    }
}

/// Nobody is told that there is no such result when it was there before; and what
/// is downloaded is the data.
fn missed(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (place, call) in &index.calls {
        let (ids, missing, data): (&[String], bool, _) = match &call.did {
            Did::Get { id, found } => (std::slice::from_ref(id), found.said() == Some(&None), None),
            Did::Download { id, found } => {
                let data = found.said().and_then(Option::as_ref);
                (std::slice::from_ref(id), found.said() == Some(&None), data)
            }
            Did::Acknowledge { ids, changed, .. } => (ids, changed.said() == Some(&None), None),
            _ => continue,
        };
        for id in ids {
            let key = (call.organisation.as_str(), id.as_str());
            let sightings = index.sightings.get(&key).into_iter().flatten();
            let earlier = sightings.filter_map(|seen| Some((seen.place, seen.call?.ended)));
            let earlier = earlier.filter(|(_, ended)| *ended < call.began).map(|(place, _)| place).next();
            if let (true, Some(earlier)) = (missing, earlier) {
                findings.add(id, "it was there, and then NOT_FOUND", [earlier, *place]);
            }
            let last = index.results.get(&key).map(|results| &index.last[results[0]]);
            if let (Some(data), Some(last)) = (data, last)
                && *data != last.record.data
            {
                findings.add(id, "other bytes were downloaded", [*place, last.place]);
            }
        }
    }
}

/// The API and the database know the same results.
fn kept(index: &Index<'_>, findings: &mut Findings<'_>) {
    for (key, (place, _)) in &index.kept {
        if !index.results.contains_key(key) {
            findings.add(key.1, "it is in the database, and in no list", [*place]);
        }
    }
    for (key, results) in &index.results {
        if !index.kept.contains_key(key) {
            findings.add(key.1, "it is in a list, and not in the database", [index.last[results[0]].place]);
        }
    }
}
