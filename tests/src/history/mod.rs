//! A history checker in the manner of Jepsen: every call and its answer goes
//! into a history, with what the databases say in the end; then each invariant
//! of the design is checked against it, and what breaks one is shown with the
//! few events that prove it.
//!
//! Everything here is pure. The workload, the faults and the test that use it are
//! in `tests/it/history`.

mod event;
mod index;
mod invariants;
mod violation;

#[cfg(test)]
mod model;
#[cfg(test)]
mod seeded_tests;
#[cfg(test)]
mod soundness_tests;

pub use event::{
    Answer, Call, Data, Did, Event, Found, GateRow, History, KeptRow, Kind, Labels, Leftover, Micros,
    Outcome, Record, Rules, SECOND, Sent, State, Told, Via,
};
pub use violation::{Invariant, Place, Violation};

use index::Index;

/// What the history breaks, invariant by invariant. Empty: nothing.
///
/// # Panics
/// If the history contradicts itself, such as by an answer of another length
/// than its request: whoever recorded it is wrong.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let index = Index::of(history);
    let mut all = Vec::new();
    for invariant in invariants::ALL {
        invariant(&index, &mut all);
    }
    all
}
