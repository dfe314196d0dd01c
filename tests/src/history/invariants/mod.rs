//! The seven invariants, one file each.

mod consumed;
mod final_once;
mod isolation;
mod moment;
mod nothing_left;
mod one_result;
mod throttle;
mod unique;
mod walks;

use crate::history::{Place, Violation, index::Index};

/// Looks for what breaks one invariant.
pub(super) type Check = fn(&Index<'_>, &mut Vec<Violation>);

/// All of them, in the order of the design.
pub(super) const ALL: [Check; 7] = [
    one_result::check,
    final_once::check,
    unique::check,
    throttle::check,
    nothing_left::check,
    consumed::check,
    isolation::check,
];

/// Collects the violations of one invariant.
struct Findings<'a> {
    invariant: crate::history::Invariant,
    all: &'a mut Vec<Violation>,
}

impl Findings<'_> {
    fn add(
        &mut self,
        key: impl Into<String>,
        says: impl Into<String>,
        places: impl IntoIterator<Item = Place>,
    ) {
        let (key, says) = (key.into(), says.into());
        self.all.push(Violation {
            invariant: self.invariant,
            key,
            says,
            places: places.into_iter().collect(),
        });
    }
}
