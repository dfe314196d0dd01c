//! Invariant 5: `error` and `retry` with NOT_KEPT leave nothing behind: no result, no
//! marker, no upload.

use super::Findings;
use crate::history::{Invariant, Outcome, Violation, index::Index};

pub(in crate::history) fn check(index: &Index<'_>, all: &mut Vec<Violation>) {
    let mut findings = Findings { invariant: Invariant::NothingLeft, all };
    for last in &index.last {
        let attempts: Vec<_> = index.of_nonce(last.organisation, &last.record.nonce).collect();
        if !attempts.is_empty() && attempts.iter().all(|attempt| attempt.left_nothing()) {
            let places = attempts.iter().map(|a| a.place).chain([last.place]);
            findings.add(&last.record.id, "every try was told that nothing was kept", places);
        }
    }
    for (mark, attempts) in &index.marks {
        let attempts: Vec<_> = attempts.iter().map(|at| &index.attempts[*at]).collect();
        let nothing: Vec<_> = attempts.iter().filter(|a| a.left_nothing()).collect();
        for duplicate in attempts.iter().filter(|a| a.is(Outcome::Duplicate)) {
            let first = attempts.iter().any(|a| a.may_be_final() && a.call.began <= duplicate.call.ended);
            if !first && !nothing.is_empty() {
                let places = nothing.iter().map(|a| a.place).chain([duplicate.place]);
                findings.add(mark.name(), "what was not kept left a marker", places);
                break;
            }
        }
    }
    for (place, leftover) in &index.leftovers {
        findings.add(&leftover.id, format!("it was left in {}", leftover.table), [*place]);
    }
}
