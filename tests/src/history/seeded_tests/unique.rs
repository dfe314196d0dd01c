//! Seeds of invariant 3: acceptances of a key are apart.

use super::*;

const INVARIANT: Invariant = Invariant::Unique;
const KEY: &str = "acme once key key-1";

#[test]
fn a_key_that_is_accepted_twice_within_unique() {
    let history = under_other_rules(|rules| rules.unique = rules.unique.map(|unique| unique * 10));
    let says = format!("two acceptances within 20 s: {FIRST_OF_KEY} and {SECOND_OF_KEY}");
    finds(&history, INVARIANT, KEY, &says);
    finds(&from_outside(history), INVARIANT, KEY, &says);
}

#[test]
fn an_acceptance_that_opens_no_window_or_two() {
    let mut none = right();
    let row = window(&mut none, SECOND_OF_KEY).row.clone();
    none.events.retain(|event| !matches!(event, Event::Gate(other) if other.row == row));
    finds(&none, INVARIANT, SECOND_OF_KEY, "its acceptance opened 0 windows");
    let mut closed = right();
    match &mut window(&mut closed, SECOND_OF_KEY).row {
        Kind::Window { accepted_at, .. } => *accepted_at = 0,
        other => panic!("{other:?}"),
    }
    finds(&closed, INVARIANT, SECOND_OF_KEY, "its acceptance opened 0 windows");
    let mut two = right();
    add_row(&mut two, row);
    finds(&two, INVARIANT, SECOND_OF_KEY, "its acceptance opened 2 windows");
}

/// Whether or not the calls say otherwise, too.
#[test]
fn a_window_that_is_dated_to_another_time() {
    for (seconds, around) in [(-1, 0), (1, 0), (-1, 5), (1, 5)] {
        let mut history = right();
        let call = call_of(&mut history, "acme", "chkpt-9", 0);
        (call.began, call.ended) = (call.began - around * SECOND, call.ended + around * SECOND);
        last(&mut history, SECOND_OF_KEY).0.date_created += around * SECOND;
        match &mut window(&mut history, SECOND_OF_KEY).row {
            Kind::Window { accepted_at, .. } => *accepted_at += seconds * SECOND,
            other => panic!("{other:?}"),
        }
        let says = "its window says that it was accepted at another time";
        finds(&history, INVARIANT, SECOND_OF_KEY, says);
    }
}

#[test]
fn a_key_that_is_another_to_the_gate() {
    let rename = |history: &mut History, id: &str, to: &str| match &mut window(history, id).row {
        Kind::Window { key, .. } => *key = to.into(),
        other => panic!("{other:?}"),
    };
    let mut history = right();
    rename(&mut history, SECOND_OF_KEY, "other");
    finds(&history, INVARIANT, KEY, "it is another key to the gate");
    // Two keys that are one.
    for id in [FIRST_OF_KEY, SECOND_OF_KEY, GLOBEX_OF_KEY] {
        rename(&mut history, id, "other");
    }
    finds(&history, INVARIANT, "globex once key key-1", "it is another key to the gate");
}

#[test]
fn a_key_that_is_suppressed_by_another() {
    let mut history = right();
    told(&mut history).find(|told| told.outcome == Outcome::Suppressed).unwrap().id = UNMARKED.into();
    // Its duplicate says the same.
    let duplicates = told(&mut history).filter(|told| told.original == Some(Outcome::Suppressed));
    duplicates.for_each(|told| told.id = UNMARKED.into());
    let says = format!("suppressed by {UNMARKED}, which is none of its key");
    finds(&history, INVARIANT, KEY, &says);
}

#[test]
fn a_key_that_is_suppressed_too_early_or_too_long() {
    for (seconds, says) in
        [(-2, "suppressed by one that came later"), (3, "suppressed by one that is too long ago")]
    {
        let mut history = right();
        shift(call_told(&mut history, Outcome::Suppressed), seconds);
        shift(call_of(&mut history, "acme", "chkpt-3", 1), seconds);
        finds(&history, INVARIANT, KEY, says);
    }
}

/// A transaction that suppressed, so many seconds after the key's first acceptance.
fn suppressed(history: &mut History, id: &str, began: i64, waited: i64) {
    let began = window(history, FIRST_OF_KEY).at + began * SECOND;
    let at = began + waited * SECOND;
    let row = Kind::Marker { key: "key".into(), outcome: Outcome::Suppressed, id: id.into() };
    history.events.push(Event::Gate(GateRow { transaction: format!("{began}"), began, at, row }));
}

#[test]
fn a_suppression_that_nobody_heard_of_by_a_window_that_is_not_open() {
    // Before it was, when it is over, and by what never opened one.
    for (id, began) in [(FIRST_OF_KEY, -1), (FIRST_OF_KEY, 3), (TOLD, 0), ("id-ghost", 0)] {
        let mut history = right();
        suppressed(&mut history, id, began, 0);
        let transaction = window(&mut history, FIRST_OF_KEY).at + began * SECOND;
        let says = format!("it suppressed by {id}, and no window of it was open");
        finds(&history, INVARIANT, &format!("transaction {transaction}"), &says);
    }
}

#[test]
fn a_suppression_that_is_written_late_and_once_more_when_its_marker_is_kept_for_longer() {
    let mut history = right();
    suppressed(&mut history, FIRST_OF_KEY, 1, 5);
    suppressed(&mut history, FIRST_OF_KEY, 9, 0);
    assert_eq!(check(&history), []);
}
