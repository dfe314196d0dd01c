//! Seeds of invariant 2: one final outcome of a mark, which duplicates name.

use super::*;

const INVARIANT: Invariant = Invariant::FinalOnce;

#[test]
fn two_final_outcomes() {
    let mut history = right();
    let duplicate = told(&mut history).find(|told| told.outcome == Outcome::Duplicate).unwrap();
    (duplicate.outcome, duplicate.original) = (Outcome::Success, None);
    finds(&history, INVARIANT, "acme plain chkpt chkpt-0", "it has two final outcomes");
}

#[test]
fn two_transactions_that_decide() {
    for (outcome, id) in [(Outcome::Success, UNMARKED), (Outcome::Suppressed, "id-0000")] {
        let mut history = right();
        let marker = rows(&mut history).find_map(|row| match &row.row {
            Kind::Marker { key, id, .. } if id == "id-0000" => Some(key.clone()),
            _ => None,
        });
        let key = marker.unwrap();
        add_row(&mut history, Kind::Marker { key: key.clone(), outcome, id: id.into() });
        let says = "two transactions decided it differently";
        finds(&history, INVARIANT, &format!("marker {key}"), says);
    }
}

#[test]
fn duplicates_of_two_firsts() {
    let mut history = right();
    told_id(&mut history, LOST_TWICE).last().unwrap().id = UNMARKED.into();
    finds(&history, INVARIANT, "acme plain chkpt chkpt-8", "two duplicates name different firsts");
}

#[test]
fn a_duplicate_of_nothing() {
    let mut history = right();
    shift(call_of(&mut history, "acme", "chkpt-11", 0), 600);
    finds(&history, INVARIANT, "acme plain chkpt chkpt-11", "a duplicate of nothing");
}

#[test]
fn a_duplicate_that_names_another() {
    for spoil in [
        |told: &mut Told| told.id = UNMARKED.into(),
        |told: &mut Told| {
            told.original = Some(Outcome::Throttled);
        },
    ] {
        let mut history = right();
        spoil(told_id(&mut history, TOLD).last().unwrap());
        let says = "a duplicate does not name what was told first";
        finds(&history, INVARIANT, "acme plain chkpt chkpt-10", says);
    }
}

#[test]
fn a_first_one_after_its_duplicate() {
    let mut history = right();
    shift(call_of(&mut history, "acme", "chkpt-10", 0), 600);
    finds(&history, INVARIANT, "acme plain chkpt chkpt-10", "the first one came after its duplicate");
}

#[test]
fn a_duplicate_that_says_why_it_is_not() {
    let mut history = right();
    told_id(&mut history, TOLD).last().unwrap().reason = "CONTENT_DIFFERS".into();
    let says = "a duplicate's reason is CONTENT_DIFFERS and not CHKPT";
    finds(&history, INVARIANT, "acme plain chkpt chkpt-10", says);
}

#[test]
fn two_results() {
    let mut history = right();
    // As far as its content says, it may be of the other try.
    add_like(&mut history, LOST_TWICE, "id-doubled");
    finds(&history, INVARIANT, "acme plain chkpt chkpt-8", "it has two results");
}

#[test]
fn a_result_of_what_was_not_accepted() {
    let mut history = right();
    let duplicate = told_id(&mut history, LOST).last().unwrap();
    (duplicate.original, duplicate.id) = (Some(Outcome::Throttled), String::new());
    finds(&history, INVARIANT, "acme plain chkpt chkpt-11", "it was not accepted and has a result");
}

#[test]
fn a_result_of_another_id() {
    let mut history = right();
    told_id(&mut history, LOST).last().unwrap().id = UNMARKED.into();
    finds(&history, INVARIANT, "acme plain chkpt chkpt-11", "its result has another id than was told");
}

#[test]
fn a_lost_observation_whose_duplicate_names_the_result_of_another_mark() {
    let mut history = right();
    undo(&mut history, LOST);
    told_id(&mut history, LOST).for_each(|told| told.id = TOLD.into());
    let says = "a duplicate names the result of another mark";
    finds(&history, INVARIANT, "acme plain chkpt chkpt-11", says);
}
