//! Invariant 3: Per unique key: never two acceptances less than `unique` apart. And whoever
//! was suppressed was so by an acceptance of that key less than `unique` ago.

use std::collections::BTreeMap;

use super::{Findings, moment::moment};
use crate::history::{
    Invariant, Micros, Outcome, Place, SECOND, Violation,
    index::{Attempt, Index, Last, SKEW},
};

/// When something was accepted: at a moment between these two.
struct Acceptance<'a> {
    last: &'a Last<'a>,
    places: Vec<Place>,
    earliest: Micros,
    latest: Micros,
}

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Unique, all };
    for (_, rules) in &index.rules {
        let Some(unique) = rules.unique else { continue };
        let keys = acceptances(index, &rules.organisation, &rules.definition);
        for (key, acceptances) in &keys {
            let name = format!("{} {} key {key}", rules.organisation, rules.definition);
            apart(&name, acceptances, unique, &mut findings);
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
}

/// The acceptances of each key of a definition, in order.
fn acceptances<'a>(
    index: &'a Index<'a>,
    organisation: &str,
    definition: &str,
) -> BTreeMap<&'a str, Vec<Acceptance<'a>>> {
    let mut keys: BTreeMap<&str, Vec<Acceptance<'_>>> = BTreeMap::new();
    for last in &index.last {
        if last.organisation != organisation || last.record.definition != definition {
            continue;
        }
        let attempts: Vec<_> = index.of_nonce(organisation, &last.record.nonce).collect();
        let Some(key) = attempts.iter().find_map(|a| a.sent.key.as_deref()) else { continue };
        let (mut places, mut earliest, mut latest) = moment(index, last);
        if let Some((place, at)) = index.windows.get(last.record.id.as_str()) {
            places.push(*place);
            (earliest, latest) = (*at, *at);
        }
        keys.entry(key).or_default().push(Acceptance { last, places, earliest, latest });
    }
    for acceptances in keys.values_mut() {
        acceptances.sort_by_key(|acceptance| (acceptance.earliest, acceptance.latest));
    }
    keys
}

/// No two can be less than `unique` apart, whenever exactly they were.
fn apart(name: &str, acceptances: &[Acceptance<'_>], unique: Micros, findings: &mut Findings<'_>) {
    for pair in acceptances.windows(2) {
        let [one, other] = pair else { continue };
        let apart = (other.latest - one.earliest).max(one.latest - other.earliest);
        if apart < unique {
            let says =
                format!("two acceptances within {} s: {} and {}", unique / SECOND, one.id(), other.id());
            findings.add(name, says, one.places.iter().chain(&other.places).copied());
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

impl Acceptance<'_> {
    fn id(&self) -> &str {
        &self.last.record.id
    }
}
