//! Invariant 4: Per throttle window never more than `throttle_count` acceptances; and never
//! a `throttled` while slots are free.
//!
//! Whoever takes slots, or finds none, has the counter's row locked until its
//! transaction ends: rows in order of time are the counter's whole life, and what a
//! transaction found is the last one before its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Findings, moment::moment};
use crate::history::{
    Invariant, Micros, Outcome, Place, Rules, Violation,
    index::{Attempt, Counter, Index, Last, Marker, SKEW},
};

/// An acceptance that took a slot, and the transaction that did, if that is known.
type Taken<'a> = (Place, Option<&'a str>);

/// A definition's throttle.
struct Throttle<'a> {
    rules: &'a Rules,
    count: u64,
    period: Micros,
    /// What its counter said, if that is known.
    counter: Option<&'a [Counter<'a>]>,
}

/// A try that was told throttled, and which markers, by their places among all that say so,
/// may be its own.
struct Claim {
    place: Place,
    /// The window that was full.
    name: String,
    fitting: Vec<usize>,
}

impl Throttle<'_> {
    fn name(&self, window_start: Micros) -> String {
        format!("{} {} window {window_start}", self.rules.organisation, self.rules.definition)
    }

    /// The window that was full when a transaction wrote this marker, if one was: the
    /// transaction's own row comes next, if it wrote one.
    fn full_at(&self, marker: &Marker<'_>) -> Option<Micros> {
        let rows = self.counter?;
        let before = rows.partition_point(|row| row.at <= marker.row.at);
        let own = rows.get(before).filter(|row| row.transaction == marker.row.transaction);
        let found = own.or_else(|| rows[..before].last())?;
        (found.used >= self.count).then_some(found.window_start)
    }
}

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Throttle, all };
    let throttles: Vec<_> = index.rules.iter().filter_map(|(_, rules)| throttle(index, rules)).collect();
    let is_throttled = |marker: &&Marker<'_>| marker.outcome == Outcome::Throttled;
    let mut markers: Vec<_> = index.markers.values().flatten().filter(is_throttled).collect();
    markers.sort_by_key(|marker| marker.row.at);
    let mut claims = Vec::new();
    for throttle in &throttles {
        let windows = windows(index, throttle, &mut findings);
        for (start, taken) in &windows {
            within(throttle, *start, taken, &mut findings);
        }
        counted(throttle, &windows, &mut findings);
        let throttled = index.attempts.iter().filter(|a| {
            a.is(Outcome::Throttled)
                && a.organisation() == throttle.rules.organisation
                && a.sent.definition == throttle.rules.definition
        });
        for attempt in throttled {
            claims.extend(justified(index, throttle, &markers, attempt, &mut findings));
        }
    }
    each_by_its_own(&claims, &markers, &mut findings);
    if throttles.iter().all(|throttle| throttle.counter.is_some()) {
        for marker in markers {
            by_some(&throttles, marker, &mut findings);
        }
    }
}

fn throttle<'a>(index: &'a Index<'a>, rules: &'a Rules) -> Option<Throttle<'a>> {
    let (count, period) = rules.throttle?;
    let key = rules.counter.as_deref();
    let counter = key.map(|key| index.counters.get(key).map_or(&[][..], Vec::as_slice));
    Some(Throttle { rules, count, period, counter })
}

/// The acceptances of each window: by the counter that the same transaction
/// wrote, or else those that can only have been in it.
fn windows<'a>(
    index: &'a Index<'a>,
    throttle: &Throttle<'_>,
    findings: &mut Findings<'_>,
) -> BTreeMap<Micros, Vec<Taken<'a>>> {
    let mut windows: BTreeMap<Micros, Vec<Taken<'a>>> = BTreeMap::new();
    for last in of_definition(index, throttle.rules) {
        let (places, earliest, latest) = moment(index, last);
        let Some(counter) = throttle.counter else {
            let start = earliest.div_euclid(throttle.period) * throttle.period;
            if latest < start + throttle.period {
                windows.entry(start).or_default().push((places[0], None));
            }
            continue;
        };
        let accepted = index.accepted.get(last.record.id.as_str());
        let transaction = accepted.map(|(_, row)| row.transaction.as_str());
        let Some(row) = counter.iter().find(|row| Some(row.transaction) == transaction) else {
            findings.add(&last.record.id, "accepted under a throttle without taking a slot", places);
            continue;
        };
        let start = row.window_start;
        if latest < start || earliest >= start + throttle.period || start.rem_euclid(throttle.period) != 0 {
            let places = places.into_iter().chain([row.place]);
            findings.add(throttle.name(start), "a slot of another window was taken", places);
        }
        windows.entry(start).or_default().push((last.place, transaction));
    }
    windows
}

fn of_definition<'a>(index: &'a Index<'a>, rules: &Rules) -> impl Iterator<Item = &'a Last<'a>> {
    index
        .last
        .iter()
        .filter(|last| last.organisation == rules.organisation && last.record.definition == rules.definition)
}

/// Never more than the rule says.
fn within(throttle: &Throttle<'_>, start: Micros, taken: &[Taken<'_>], findings: &mut Findings<'_>) {
    let count = taken.len() as u64;
    if count > throttle.count {
        let says = format!("{count} were accepted, and only {} may be", throttle.count);
        findings.add(throttle.name(start), says, taken.iter().map(|(place, _)| *place));
    }
}

/// Each transaction took as many slots as it accepted, also in a window of which no
/// result is there.
fn counted(throttle: &Throttle<'_>, windows: &BTreeMap<Micros, Vec<Taken<'_>>>, findings: &mut Findings<'_>) {
    let mut used: BTreeMap<Micros, u64> = BTreeMap::new();
    for row in throttle.counter.into_iter().flatten() {
        let start = row.window_start;
        let taken = windows.get(&start).into_iter().flatten();
        let taken: Vec<_> = taken.filter(|(_, by)| *by == Some(row.transaction)).collect();
        let before = used.insert(start, row.used).unwrap_or_default();
        if before + taken.len() as u64 != row.used {
            let says = format!("{before} and {} acceptances made it {}", taken.len(), row.used);
            let places = taken.iter().map(|(place, _)| *place).chain([row.place]);
            findings.add(throttle.name(start), says, places);
        }
    }
}

/// Its window was full when it was told so. Answers which markers may say so.
fn justified(
    index: &Index<'_>,
    throttle: &Throttle<'_>,
    markers: &[&Marker<'_>],
    attempt: &Attempt<'_>,
    findings: &mut Findings<'_>,
) -> Option<Claim> {
    let Some(ends) = attempt.told.and_then(|told| told.window_ends) else {
        findings.add(&attempt.sent.nonce, "throttled without saying for how long", [attempt.place]);
        return None;
    };
    let start = ends - throttle.period;
    let (began, ended) = (attempt.call.began - SKEW, attempt.call.ended + SKEW);
    if began >= ends || ended < start || start.rem_euclid(throttle.period) != 0 {
        findings.add(throttle.name(start), "throttled by a window of another time", [attempt.place]);
        return None;
    }
    if throttle.counter.is_some() {
        let [from, to] = [began, ended + 1].map(|at| markers.partition_point(|marker| marker.row.at < at));
        let fitting = (from..to).filter(|at| throttle.full_at(markers[*at]) == Some(start));
        let (name, fitting) = (throttle.name(start), fitting.collect::<Vec<_>>());
        if fitting.is_empty() {
            findings.add(name, "throttled, and no transaction of that time found it full", [attempt.place]);
            return None;
        }
        // Without a mark there is no marker to have.
        return attempt.mark.map(|_| Claim { place: attempt.place, name, fitting });
    }
    let may_count = |last: &&Last<'_>| {
        let (_, earliest, latest) = moment(index, last);
        earliest <= ended && earliest < ends && latest >= start
    };
    let possible: Vec<_> =
        of_definition(index, throttle.rules).filter(may_count).map(|last| last.place).collect();
    if (possible.len() as u64) < throttle.count {
        let says = format!("throttled when {} of {} slots were taken", possible.len(), throttle.count);
        findings.add(throttle.name(start), says, possible.into_iter().chain([attempt.place]));
    }
    None
}

/// Each has a marker of its own, so that none is excused by another's. Whoever is told
/// throttled is told so of a transaction that was committed during its call and wrote the
/// marker of its mark; whoever comes under that mark later is told of a duplicate. So each can
/// be given one: in a right history at least that which it has. Markers of answers that were
/// lost, and those that are written once more, are left over.
fn each_by_its_own(claims: &[Claim], markers: &[&Marker<'_>], findings: &mut Findings<'_>) {
    let mut owners = HashMap::new();
    for (at, claim) in claims.iter().enumerate() {
        let mut met = BTreeSet::new();
        if !finds_its_own(at, claims, &mut owners, &mut met) {
            let says = format!("{} were throttled, and {} found it full", met.len() + 1, met.len());
            let others = met.iter().flat_map(|marker| [markers[*marker].place, claims[owners[marker]].place]);
            findings.add(&claim.name, says, others.chain([claim.place]));
        }
    }
}

/// Gives a claim a marker that nobody has, or that its owner can do without. If there is none:
/// all that were met are wanted by more than there are.
fn finds_its_own(
    claim: usize,
    claims: &[Claim],
    owners: &mut HashMap<usize, usize>,
    met: &mut BTreeSet<usize>,
) -> bool {
    for marker in &claims[claim].fitting {
        let is_new = met.insert(*marker);
        let owner = owners.get(marker).copied();
        if is_new && owner.is_none_or(|owner| finds_its_own(owner, claims, owners, met)) {
            owners.insert(*marker, claim);
            return true;
        }
    }
    false
}

/// Some window of its time was full when a marker was written that says so, whether or
/// not anybody heard of it.
fn by_some(throttles: &[Throttle<'_>], marker: &Marker<'_>, findings: &mut Findings<'_>) {
    let (began, at) = (marker.row.began - SKEW, marker.row.at + SKEW);
    let is_full = |throttle: &Throttle<'_>| {
        throttle.full_at(marker).is_some_and(|start| start <= at && began < start + throttle.period)
    };
    if !throttles.iter().any(is_full) {
        let name = format!("transaction {}", marker.row.transaction);
        findings.add(name, "it throttled when no window was full", [marker.place]);
    }
}
