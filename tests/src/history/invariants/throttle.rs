//! Invariant 4: Per throttle window never more than `throttle_count` acceptances; and never
//! a `throttled` while slots are free.

use std::collections::BTreeMap;

use super::{Findings, moment::moment};
use crate::history::{
    Invariant, Micros, Outcome, Place, Rules, Violation,
    index::{Attempt, Counter, Index, Last, SKEW},
};

/// A definition's throttle.
struct Throttle<'a> {
    rules: &'a Rules,
    count: u64,
    period: Micros,
    /// What its counter said, if that is known.
    counter: Option<&'a [Counter<'a>]>,
}

impl Throttle<'_> {
    fn name(&self, window_start: Micros) -> String {
        format!("{} {} window {window_start}", self.rules.organisation, self.rules.definition)
    }
}

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::Throttle, all };
    for (_, rules) in &index.rules {
        let Some((count, period)) = rules.throttle else { continue };
        let key = rules.counter.as_deref();
        let counter = key.map(|key| index.counters.get(key).map_or(&[][..], Vec::as_slice));
        let throttle = Throttle { rules, count, period, counter };
        let windows = windows(index, &throttle, &mut findings);
        for (start, taken) in &windows {
            full(&throttle, *start, taken, &mut findings);
        }
        let throttled = index.attempts.iter().filter(|a| {
            a.is(Outcome::Throttled)
                && a.organisation() == rules.organisation
                && a.sent.definition == rules.definition
        });
        for attempt in throttled {
            justified(index, &throttle, attempt, &mut findings);
        }
    }
}

/// The acceptances of each window: by the counter that the same transaction
/// wrote, or else those that can only have been in it.
fn windows(
    index: &Index<'_>,
    throttle: &Throttle<'_>,
    findings: &mut Findings<'_>,
) -> BTreeMap<Micros, Vec<Place>> {
    let mut windows: BTreeMap<Micros, Vec<Place>> = BTreeMap::new();
    for last in of_definition(index, throttle.rules) {
        let (places, earliest, latest) = moment(index, last);
        let Some(counter) = throttle.counter else {
            let start = earliest.div_euclid(throttle.period) * throttle.period;
            if latest < start + throttle.period {
                windows.entry(start).or_default().push(places[0]);
            }
            continue;
        };
        let accepted = index.accepted.get(last.record.id.as_str());
        let row = accepted.and_then(|(_, row)| counter.iter().find(|c| c.transaction == row.transaction));
        let Some(row) = row else {
            findings.add(&last.record.id, "accepted under a throttle without taking a slot", places);
            continue;
        };
        let start = row.window_start;
        if latest < start || earliest >= start + throttle.period || start.rem_euclid(throttle.period) != 0 {
            let places = places.into_iter().chain([row.place]);
            findings.add(throttle.name(start), "a slot of another window was taken", places);
        }
        windows.entry(start).or_default().push(last.place);
    }
    windows
}

fn of_definition<'a>(index: &'a Index<'a>, rules: &'a Rules) -> impl Iterator<Item = &'a Last<'a>> {
    index
        .last
        .iter()
        .filter(|last| last.organisation == rules.organisation && last.record.definition == rules.definition)
}

/// Never more than the rule says; and the counter counts what there is.
fn full(throttle: &Throttle<'_>, start: Micros, taken: &[Place], findings: &mut Findings<'_>) {
    let count = taken.len() as u64;
    if count > throttle.count {
        let says = format!("{count} were accepted, and only {} may be", throttle.count);
        findings.add(throttle.name(start), says, taken.iter().copied());
    }
    let Some(counter) = throttle.counter else { return };
    let used = counter.iter().filter(|row| row.window_start == start).max_by_key(|row| row.used);
    if let Some(row) = used.filter(|row| row.used != count) {
        let says = format!("{} slots were taken for {count} acceptances", row.used);
        findings.add(throttle.name(start), says, taken.iter().copied().chain([row.place]));
    }
}

/// Its window was full when it was told so.
fn justified(index: &Index<'_>, throttle: &Throttle<'_>, attempt: &Attempt<'_>, findings: &mut Findings<'_>) {
    let Some(ends) = attempt.told.and_then(|told| told.window_ends) else {
        findings.add(&attempt.sent.nonce, "throttled without saying for how long", [attempt.place]);
        return;
    };
    let start = ends - throttle.period;
    let name = || throttle.name(start);
    let (began, ended) = (attempt.call.began - SKEW, attempt.call.ended + SKEW);
    if began >= ends || ended < start || start.rem_euclid(throttle.period) != 0 {
        findings.add(name(), "throttled by a window of another time", [attempt.place]);
        return;
    }
    if let Some(counter) = throttle.counter {
        let of_window = counter.iter().filter(|row| row.window_start == start && row.at <= ended);
        let last = of_window.max_by_key(|row| row.used);
        let used = last.map_or(0, |row| row.used);
        if used < throttle.count {
            let says = format!("throttled when {used} of {} slots were taken", throttle.count);
            findings.add(name(), says, [attempt.place].into_iter().chain(last.map(|row| row.place)));
        }
        return;
    }
    let may_count = |last: &&Last<'_>| {
        let (_, earliest, latest) = moment(index, last);
        earliest <= ended && earliest < ends && latest >= start
    };
    let possible: Vec<_> =
        of_definition(index, throttle.rules).filter(may_count).map(|last| last.place).collect();
    if (possible.len() as u64) < throttle.count {
        let says = format!("throttled when {} of {} slots were taken", possible.len(), throttle.count);
        findings.add(name(), says, possible.into_iter().chain([attempt.place]));
    }
}
