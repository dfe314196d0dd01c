//! Of the first invariant: a list brings what was asked for, and a walk that came to its end
//! misses nothing that was there before it began.

use std::collections::{BTreeMap, HashSet};

use super::Findings;
use crate::history::{
    Micros, Place, State,
    index::{Index, Walk},
};

/// A result as others knew it at some moment.
struct Known<'a> {
    id: &'a str,
    poll: &'a str,
    /// When the first call ended that saw it.
    seen: (Micros, Place),
    /// When the first call ended that consumed it, or saw it consumed.
    consumed: Option<Micros>,
    /// When somebody began who may have consumed it.
    signed: Option<Micros>,
}

pub(super) fn check(index: &Index<'_>, findings: &mut Findings<'_>) {
    let known = known(index);
    for walk in &index.walks {
        others(walk, findings);
        if walk.whole {
            let known = known.get(walk.call.organisation.as_str()).map_or(&[][..], Vec::as_slice);
            missing(walk, known, findings);
        }
    }
}

/// The results of each organisation, in the order in which they were first seen.
fn known<'a>(index: &'a Index<'a>) -> BTreeMap<&'a str, Vec<Known<'a>>> {
    let mut all: BTreeMap<&str, Vec<Known<'_>>> = BTreeMap::new();
    for (key, sightings) in &index.sightings {
        // What is not its own is another's finding.
        if !index.results.contains_key(key) {
            continue;
        }
        let by_calls = || sightings.iter().filter_map(|seen| Some((seen, seen.call?.ended)));
        let Some(seen) = by_calls().map(|(seen, ended)| (ended, seen.place)).min() else { continue };
        let signings = || index.signings.get(key).into_iter().flatten();
        let signed = signings().filter(|signing| signing.changed != Some(false));
        let signed = signed.map(|signing| signing.call.began).min();
        let by_list = by_calls().filter(|(seen, _)| seen.record.state == State::Consumed);
        let by_answer = signings().filter(|signing| signing.changed == Some(true));
        let consumed = by_list.map(|(_, ended)| ended).chain(by_answer.map(|s| s.call.ended)).min();
        let poll = sightings[0].record.labels.poll.as_str();
        all.entry(key.0).or_default().push(Known { id: key.1, poll, seen, consumed, signed });
    }
    for known in all.values_mut() {
        known.sort_by_key(|result| result.seen);
    }
    all
}

/// What is of another poll has no place in it.
fn others(walk: &Walk<'_>, findings: &mut Findings<'_>) {
    let Some(poll) = walk.poll else { return };
    for (item, record) in walk.found.iter().enumerate().filter(|(_, record)| record.labels.poll != poll) {
        let place = Place { item: Some(item), ..walk.place };
        findings.add(&record.id, format!("it is of {} in a list of {poll}", record.labels.poll), [place]);
    }
}

/// Whatever was there when it began, and certainly in a state that was asked for until it
/// ended, is in it.
fn missing(walk: &Walk<'_>, known: &[Known<'_>], findings: &mut Findings<'_>) {
    let (began, ended) = (walk.call.began, walk.call.ended);
    let [available, consumed] = [State::Available, State::Consumed].map(|state| walk.states.contains(&state));
    let found: HashSet<&str> = walk.found.iter().map(|record| record.id.as_str()).collect();
    let before = known.iter().take_while(|result| result.seen.0 < began);
    for result in before.filter(|result| walk.poll.is_none_or(|poll| poll == result.poll)) {
        let is_meant = match (available, consumed) {
            (true, true) => true,
            (true, false) => result.signed.is_none_or(|signed| signed > ended),
            (false, true) => result.consumed.is_some_and(|consumed| consumed < began),
            (false, false) => false,
        };
        if is_meant && !found.contains(result.id) {
            findings.add(result.id, "a walk to the end missed it", [result.seen.1, walk.place]);
        }
    }
}
