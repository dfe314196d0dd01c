//! Seeds of invariant 5: what was refused leaves nothing.

use super::*;

const INVARIANT: Invariant = Invariant::NothingLeft;

#[test]
fn an_error_that_left_a_result() {
    for outcome in [Outcome::Error, Outcome::NotKept] {
        let mut history = right();
        let told = told_id(&mut history, UNMARKED).next().unwrap();
        (told.outcome, told.id) = (outcome, String::new());
        finds(&history, INVARIANT, UNMARKED, "every try was told that nothing was kept");
    }
}

#[test]
fn a_try_that_was_not_kept_and_left_a_marker() {
    let mut history = right();
    let told = told(&mut history).find(|told| told.outcome == Outcome::Suppressed).unwrap();
    (told.outcome, told.id) = (Outcome::NotKept, String::new());
    finds(&history, INVARIANT, "acme once chkpt chkpt-3", "what was not kept left a marker");
}

#[test]
fn an_upload_that_nobody_wants() {
    let mut history = right();
    let leftover = crate::history::Leftover { table: "file_upload".into(), id: "id-upload".into() };
    history.events.push(Event::Leftover(leftover));
    finds(&history, INVARIANT, "id-upload", "it was left in file_upload");
}
