//! Invariant 3: Per unique key: never two acceptances less than `unique` apart. And whoever
//! was suppressed was so by an acceptance of that key less than `unique` ago.
//!
//! When something was accepted is what the gate wrote; but not on its word alone: the
//! calls and the transaction have to agree with it.

use std::collections::{BTreeMap, HashMap};

use super::{Findings, moment::moment};
use crate::history::{
    Invariant, Micros, Outcome, Place, SECOND, Violation,
    index::{Attempt, Index, Last, Marker, SKEW, Window},
};

/// When something was accepted: at a moment between these two.
struct Acceptance<'a> {
    last: &'a Last<'a>,
    /// The window that it opened, if that is known.
    window: Option<&'a Window<'a>>,
    places: Vec<Place>,
    earliest: Micros,
    latest: Micros,
}

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Unique, all };
    let (mut names, mut uniques) = (HashMap::new(), HashMap::new());
    for (_, rules) in &index.rules {
        let Some(unique) = rules.unique else { continue };
        let keys = acceptances(index, &rules.organisation, &rules.definition, &mut findings);
        for (key, acceptances) in &keys {
            let name = format!("{} {} key {key}", rules.organisation, rules.definition);
            keyed(&name, acceptances, &mut names, &mut findings);
            apart(&name, acceptances, unique, &mut findings);
            uniques.extend(acceptances.iter().map(|acceptance| (acceptance.id(), unique)));
        }
        let suppressed = index.attempts.iter().filter(|a| {
            a.is(Outcome::Suppressed)
                && a.organisation() == rules.organisation
                && a.sent.definition == rules.definition
        });
        for attempt in suppressed {
            let key = attempt.sent.key.as_deref().unwrap_or_default();
            let name = format!("{} {} key {key}", rules.organisation, rules.definition);
            let by = keys.get(key).map_or(&[][..], |acceptances| acceptances);
            justified(&name, attempt, by, unique, &mut findings);
        }
    }
    for markers in index.markers.values() {
        // One that is kept for longer is written once more, as it is, long after.
        let first = markers.iter().min_by_key(|marker| marker.row.at);
        if let Some(marker) = first.filter(|marker| marker.outcome == Outcome::Suppressed) {
            by_some(index, &uniques, marker, &mut findings);
        }
    }
}

/// The acceptances of each key of a definition.
fn acceptances<'a>(
    index: &'a Index<'a>,
    organisation: &str,
    definition: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<&'a str, Vec<Acceptance<'a>>> {
    let mut keys: BTreeMap<&str, Vec<Acceptance<'_>>> = BTreeMap::new();
    for last in &index.last {
        if last.organisation != organisation || last.record.definition != definition {
            continue;
        }
        let attempts: Vec<_> = index.of_nonce(organisation, &last.record.nonce).collect();
        let Some(key) = attempts.iter().find_map(|a| a.sent.key.as_deref()) else { continue };
        let (places, earliest, latest) = moment(index, last);
        let mut acceptance = Acceptance { last, window: None, places, earliest, latest };
        if index.knows_gate {
            acceptance.by_gate(index, findings);
        }
        keys.entry(key).or_default().push(acceptance);
    }
    keys
}

impl<'a> Acceptance<'a> {
    fn id(&self) -> &'a str {
        &self.last.record.id
    }

    /// It opened one window, while its transaction and its call went on: that was the
    /// moment.
    fn by_gate(&mut self, index: &'a Index<'a>, findings: &mut Findings<'_>) {
        let windows = index.windows.get(self.id()).map_or(&[][..], Vec::as_slice);
        self.places.extend(windows.iter().map(|window| window.place));
        let [window] = windows else {
            let says = format!("its acceptance opened {} windows", windows.len());
            return findings.add(self.id(), says, self.places.iter().copied());
        };
        self.window = Some(window);
        let at = window.accepted_at;
        let in_call = (self.earliest..=self.latest).contains(&at);
        if !in_call || at < window.row.began - SKEW || at > window.row.at + SKEW {
            let says = "its window says that it was accepted at another time";
            return findings.add(self.id(), says, self.places.iter().copied());
        }
        (self.earliest, self.latest) = (at, at);
    }
}

/// To the gate they are of one key, too, and no others are.
fn keyed<'a>(
    name: &str,
    acceptances: &[Acceptance<'a>],
    names: &mut HashMap<&'a str, (String, Place)>,
    findings: &mut Findings<'_>,
) {
    let mut windows = acceptances.iter().filter_map(|acceptance| acceptance.window);
    let Some(first) = windows.next() else { return };
    let (known, place) = names.entry(first.key).or_insert_with(|| (name.to_owned(), first.place));
    let other = if known == name {
        windows.find(|other| other.key != first.key).map(|other| [first.place, other.place])
    } else {
        Some([*place, first.place])
    };
    if let Some(places) = other {
        findings.add(name, "it is another key to the gate", places);
    }
}

/// No two can be less than `unique` apart, whenever exactly they were.
fn apart(name: &str, acceptances: &[Acceptance<'_>], unique: Micros, findings: &mut Findings<'_>) {
    for (at, one) in acceptances.iter().enumerate() {
        for other in &acceptances[at + 1..] {
            let apart = (other.latest - one.earliest).max(one.latest - other.earliest);
            if apart < unique {
                let says =
                    format!("two acceptances within {} s: {} and {}", unique / SECOND, one.id(), other.id());
                findings.add(name, says, one.places.iter().chain(&other.places).copied());
            }
        }
    }
}

/// It names an acceptance of its key that came before its end, and was less than
/// `unique` ago.
fn justified(
    name: &str,
    attempt: &Attempt<'_>,
    by: &[Acceptance<'_>],
    unique: Micros,
    findings: &mut Findings<'_>,
) {
    let Some(told) = attempt.told else { return };
    let Some(earlier) = by.iter().find(|acceptance| acceptance.id() == told.id) else {
        findings.add(name, format!("suppressed by {}, which is none of its key", told.id), [attempt.place]);
        return;
    };
    let places = || earlier.places.iter().copied().chain([attempt.place]);
    if earlier.earliest > attempt.call.ended + SKEW {
        findings.add(name, "suppressed by one that came later", places());
    }
    if attempt.call.began - earlier.latest >= unique + SKEW {
        findings.add(name, "suppressed by one that is too long ago", places());
    }
}

/// A marker names what opened a window that was open then, whether or not anybody heard of
/// it. It was opened before the marker was written: by what was committed, or by the same
/// transaction. And it was no older when that looked than when that began, however long it was
/// stopped afterwards. (What was accepted and has no result is the first invariant's; how long
/// its window was open is not known here.)
fn by_some(
    index: &Index<'_>,
    uniques: &HashMap<&str, Micros>,
    marker: &Marker<'_>,
    findings: &mut Findings<'_>,
) {
    let windows = index.windows.get(marker.id).map_or(&[][..], Vec::as_slice);
    let unique = uniques.get(marker.id).copied();
    let is_open = |window: &Window<'_>| {
        let age = marker.row.began - window.accepted_at;
        window.accepted_at <= marker.row.at + SKEW && unique.is_none_or(|unique| age < unique + SKEW)
    };
    if !windows.iter().any(is_open) {
        let name = format!("transaction {}", marker.row.transaction);
        let places = windows.iter().map(|window| window.place).chain([marker.place]);
        findings.add(name, format!("it suppressed by {}, and no window of it was open", marker.id), places);
    }
}
