//! Invariant 2: Per (organisation, definition, chkpt): at most one final outcome within the
//! marker retention; every later answer is `duplicate` and names what was told
//! first.

use super::Findings;
use crate::history::{
    Invariant, Outcome, Violation,
    index::{Attempt, Index, Mark, Marker},
};

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::FinalOnce, all };
    for (mark, attempts) in &index.marks {
        let attempts: Vec<_> = attempts.iter().map(|at| &index.attempts[*at]).collect();
        one(mark, &attempts, &mut findings);
        let duplicates: Vec<_> = attempts.iter().copied().filter(|a| a.is(Outcome::Duplicate)).collect();
        for (at, duplicate) in duplicates.iter().enumerate() {
            agrees(mark, duplicate, &duplicates[..at], &attempts, &mut findings);
        }
        results(index, mark, &attempts, &mut findings);
    }
    for (key, markers) in &index.markers {
        decided_once(key, markers, &mut findings);
    }
}

/// No two transactions decided it, whoever heard of them. (The same again is a
/// marker that is kept for longer.)
fn decided_once(key: &str, markers: &[Marker<'_>], findings: &mut Findings<'_>) {
    let Some((first, others)) = markers.split_first() else { return };
    if let Some(other) = others.iter().find(|other| (other.outcome, other.id) != (first.outcome, first.id)) {
        let places = [first.place, other.place];
        findings.add(format!("marker {key}"), "two transactions decided it differently", places);
    }
}

/// At most one try was told a final outcome.
fn one(mark: &Mark<'_>, attempts: &[&Attempt<'_>], findings: &mut Findings<'_>) {
    let finals: Vec<_> = attempts.iter().filter(|a| a.final_outcome().is_some()).collect();
    if finals.len() > 1 {
        findings.add(mark.name(), "it has two final outcomes", finals.iter().take(2).map(|a| a.place));
    }
}

/// A duplicate names what the first was told, which began before it ended; what
/// was told first never begins after it.
fn agrees(
    mark: &Mark<'_>,
    duplicate: &Attempt<'_>,
    earlier: &[&Attempt<'_>],
    attempts: &[&Attempt<'_>],
    findings: &mut Findings<'_>,
) {
    let Some(told) = duplicate.told else { return };
    if let Some(other) = earlier.first()
        && other.told.is_some_and(|other| (other.original, &other.id) != (told.original, &told.id))
    {
        findings.add(mark.name(), "two duplicates name different firsts", [other.place, duplicate.place]);
    }
    let first = attempts.iter().find_map(|attempt| Some((attempt, attempt.final_outcome()?)));
    let Some((first, (outcome, first_told))) = first else {
        let may_be_first = |a: &&&Attempt<'_>| a.is_unknown() && a.call.began <= duplicate.call.ended;
        // Where all tries before it left nothing, it is the fifth invariant's.
        let nothing_left = attempts.iter().any(|a| a.left_nothing());
        if attempts.iter().filter(may_be_first).count() == 0 && !nothing_left {
            findings.add(mark.name(), "a duplicate of nothing", [duplicate.place]);
        }
        return;
    };
    let id = if outcome == Outcome::Throttled { "" } else { first_told.id.as_str() };
    if told.original != Some(outcome) || told.id != id {
        findings.add(
            mark.name(),
            "a duplicate does not name what was told first",
            [first.place, duplicate.place],
        );
    }
    if first.call.began > duplicate.call.ended {
        findings.add(mark.name(), "the first one came after its duplicate", [first.place, duplicate.place]);
    }
    let differs = first.sent.data != duplicate.sent.data;
    let reason = if differs { "CONTENT_DIFFERS" } else { "CHKPT" };
    // Of a file that nobody read it is not known.
    if told.reason != reason
        && !(differs && told.reason == "CHKPT" && (first.is_file() || duplicate.is_file()))
    {
        let says = format!("a duplicate's reason is {} and not {reason}", told.reason);
        findings.add(mark.name(), says, [first.place, duplicate.place]);
    }
}

/// What was accepted under a mark is one result, and none if it ended otherwise.
fn results(index: &Index<'_>, mark: &Mark<'_>, attempts: &[&Attempt<'_>], findings: &mut Findings<'_>) {
    let of_attempts = |last: &&crate::history::index::Last<'_>| {
        last.organisation == mark.organisation
            && last.record.definition == mark.definition
            && attempts.iter().any(|a| a.sent.nonce == last.record.nonce)
    };
    let mut nonces: Vec<_> = attempts.iter().map(|a| a.sent.nonce.as_str()).collect();
    nonces.sort_unstable();
    nonces.dedup();
    let results: Vec<_> = nonces
        .iter()
        .flat_map(|nonce| index.results_of(mark.organisation, nonce))
        .filter(of_attempts)
        .collect();
    let places = |attempts: &[&Attempt<'_>]| -> Vec<_> {
        results.iter().map(|last| last.place).chain(attempts.iter().map(|a| a.place)).collect()
    };
    if results.len() > 1 {
        findings.add(mark.name(), "it has two results", places(attempts));
    }
    let ended = attempts.iter().find_map(|a| {
        let told = a.told?;
        let ended = if a.is(Outcome::Duplicate) { told.original? } else { a.final_outcome()?.0 };
        Some((a, ended, &told.id))
    });
    let Some((attempt, ended, id)) = ended else { return };
    match results.first() {
        Some(last) if ended != Outcome::Success => {
            findings.add(mark.name(), "it was not accepted and has a result", [attempt.place, last.place]);
        }
        Some(last) if *id != last.record.id => {
            findings.add(mark.name(), "its result has another id than was told", [attempt.place, last.place]);
        }
        None if ended == Outcome::Success => of_another(index, mark, id, attempts, findings),
        _ => {}
    }
}

/// What was accepted, as a duplicate alone says, is not lost behind another mark's result.
/// (Who was told `success` itself is the first invariant's, and so is an id without a
/// result.) Every try is in the history, whatever became of it, and the result has the nonce
/// of the one that was accepted: with any other it is not this mark's.
fn of_another(
    index: &Index<'_>,
    mark: &Mark<'_>,
    id: &str,
    attempts: &[&Attempt<'_>],
    findings: &mut Findings<'_>,
) {
    let Some(named) = index.results.get(&(mark.organisation, id)) else { return };
    let last = &index.last[named[0]];
    let is_told = attempts.iter().any(|a| a.is(Outcome::Success));
    if !is_told && attempts.iter().all(|a| a.sent.nonce != last.record.nonce) {
        let places = attempts.iter().map(|a| a.place).chain([last.place]);
        findings.add(mark.name(), "a duplicate names the result of another mark", places);
    }
}
