//! Seeds of invariant 6: what was consumed stays so.

use super::*;

const INVARIANT: Invariant = Invariant::Consumed;

#[test]
fn a_row_in_both_states_or_in_none() {
    let mut both = right();
    kept(&mut both, TOLD).consumed = true;
    finds(&both, INVARIANT, TOLD, "both available and consumed");
    let mut none = right();
    kept(&mut none, TOLD).available = false;
    finds(&none, INVARIANT, TOLD, "in no state");
}

#[test]
fn a_lost_acknowledgement() {
    let says = "it was consumed, and is AVAILABLE";
    let available = |record: &mut Record| {
        (record.state, record.date_consumed) = (State::Available, None);
    };
    let mut history = right();
    available(last(&mut history, UNMARKED).0);
    finds(&history, INVARIANT, UNMARKED, says);
    // For a while.
    let mut history = right();
    let listed = lists(&mut history).flatten().filter(|record| record.id == FIRST_OF_KEY);
    listed.for_each(available);
    finds(&history, INVARIANT, FIRST_OF_KEY, says);
}

#[test]
fn a_result_that_is_consumed_anew() {
    let mut history = right();
    let call = acknowledgements(&mut history, "acme").pop().unwrap();
    changed(call).push(UNMARKED.into());
    finds(&history, INVARIANT, UNMARKED, "it was consumed, and then consumed anew");
}

#[test]
fn a_result_that_is_consumed_by_two() {
    let mut history = right();
    let [first, second] = &mut acknowledgements(&mut history, "globex")[..] else { panic!("two calls") };
    // Neither was the later one.
    second.began = first.began;
    changed(second).push(GLOBEX.into());
    finds(&history, INVARIANT, GLOBEX, "two calls were told that they consumed it");
}

#[test]
fn a_call_that_is_told_of_what_it_did_not_ask_for() {
    // One that is available to the end.
    let mut history = right();
    changed(acknowledgements(&mut history, "acme").remove(0)).push(TOLD.into());
    finds(&history, INVARIANT, TOLD, "a call that did not ask for it was told to have consumed it");
}

#[test]
fn a_call_that_is_told_twice_of_the_same() {
    let mut history = right();
    changed(acknowledgements(&mut history, "acme").remove(0)).push(FIRST_OF_KEY.into());
    finds(&history, INVARIANT, FIRST_OF_KEY, "one call was told twice that it consumed it");
}

#[test]
fn a_result_that_is_consumed_by_nobody() {
    let mut history = right();
    changed(acknowledgements(&mut history, "globex").remove(0)).clear();
    finds(&history, INVARIANT, GLOBEX, "it is CONSUMED and nobody was told to have consumed it");
}

#[test]
fn a_result_that_is_consumed_at_two_moments() {
    let mut history = right();
    let record = answered(acknowledgements(&mut history, "globex").pop().unwrap());
    record.date_consumed = record.date_consumed.map(|date| date + 1);
    finds(&history, INVARIANT, GLOBEX, "it was consumed at two moments");
}

#[test]
fn a_result_that_is_dated_wrongly() {
    let mut without = right();
    answered(acknowledgements(&mut without, "globex").remove(0)).date_consumed = None;
    finds(&without, INVARIANT, GLOBEX, "it is CONSUMED without a date of consumption");
    let mut with = right();
    last(&mut with, TOLD).0.date_consumed = Some(SECOND);
    finds(&with, INVARIANT, TOLD, "it is AVAILABLE with a date of consumption");
}

#[test]
fn a_list_with_what_was_not_asked_for() {
    let mut history = right();
    let (id, states) = calls(&mut history)
        .find_map(|call| match &mut call.did {
            Did::List { states, found: Answer::Said(found), .. } => Some((found.first()?.id.clone(), states)),
            _ => None,
        })
        .unwrap();
    *states = vec![State::Expired];
    let mut all = check(&history);
    all.retain(|found| found.key == id);
    assert!(
        all.iter().all(|found| found.invariant == INVARIANT && found.says.ends_with("in a list without"))
    );
    assert_eq!(all.len(), 1);
}

#[test]
fn an_acknowledgement_that_is_answered_with_an_available_one() {
    let mut history = right();
    let record = answered(acknowledgements(&mut history, "globex").remove(0));
    (record.state, record.date_consumed) = (State::Available, None);
    finds(&history, INVARIANT, GLOBEX, "acknowledged, and the answer says AVAILABLE");
}
