//! Seeds of invariant 4: a window is filled to the last slot and no further.

use super::*;

const INVARIANT: Invariant = Invariant::Throttle;
const ACME_WINDOW: &str = "acme few window 999999000000";
const GLOBEX_WINDOW: &str = "globex few window 999999000000";
const PERIOD: i64 = 3 * SECOND;

/// The row of globex's counter.
fn counter(history: &mut History) -> &mut Kind {
    let is = |row: &Kind| matches!(row, Kind::Counter { key, .. } if key.contains("globex few"));
    &mut rows(history).find(|row| is(&row.row)).unwrap().row
}

fn throttled(history: &mut History) -> &mut Told {
    told(history).find(|told| told.outcome == Outcome::Throttled).unwrap()
}

#[test]
fn a_window_that_takes_too_many() {
    let less = under_other_rules(|rules| rules.throttle = rules.throttle.map(|(n, period)| (n - 1, period)));
    finds(&less, INVARIANT, ACME_WINDOW, "2 were accepted, and only 1 may be");
    finds(&from_outside(less), INVARIANT, ACME_WINDOW, "2 were accepted, and only 1 may be");
}

#[test]
fn an_acceptance_that_takes_no_slot() {
    let mut history = right();
    // One that was let in under a definition without a throttle.
    for call in calls(&mut history) {
        if let Did::Publish { sent, .. } = &mut call.did {
            let of = sent.iter_mut().filter(|sent| sent.chkpt == "chkpt-10");
            of.for_each(|sent| sent.definition = "few".into());
        }
    }
    last(&mut history, TOLD).0.definition = "few".into();
    finds(&history, INVARIANT, TOLD, "accepted under a throttle without taking a slot");
}

#[test]
fn a_slot_of_another_window() {
    // The one before, the one after, and one that begins when none does.
    for (by, name) in [(PERIOD, "999996000000"), (-PERIOD, "1000002000000"), (SECOND, "999998000000")] {
        let mut history = right();
        match counter(&mut history) {
            Kind::Counter { window_start, .. } => *window_start -= by,
            other => panic!("{other:?}"),
        }
        let key = format!("globex few window {name}");
        finds(&history, INVARIANT, &key, "a slot of another window was taken");
    }
}

#[test]
fn a_counter_that_miscounts() {
    let mut history = right();
    match counter(&mut history) {
        Kind::Counter { used, .. } => *used += 1,
        other => panic!("{other:?}"),
    }
    finds(&history, INVARIANT, GLOBEX_WINDOW, "0 and 1 acceptances made it 2");
    // Of a window without a result, and set back.
    for (after, used, key, says) in [
        (PERIOD, 1, "globex few window 1000002000000", "0 and 0 acceptances made it 1"),
        (0, 0, GLOBEX_WINDOW, "1 and 0 acceptances made it 0"),
    ] {
        let mut history = right();
        let row = match counter(&mut history).clone() {
            Kind::Counter { key, window_start, .. } => {
                Kind::Counter { key, window_start: window_start + after, used }
            }
            other => panic!("{other:?}"),
        };
        add_row(&mut history, row);
        finds(&history, INVARIANT, key, says);
    }
}

#[test]
fn a_throttled_one_that_is_not_told_for_how_long() {
    let mut history = right();
    throttled(&mut history).window_ends = None;
    finds(&history, INVARIANT, "acme-10", "throttled without saying for how long");
}

#[test]
fn a_throttled_one_by_a_window_of_another_time() {
    // Of a later one, of an earlier one, and of one that ends when none does.
    for (by, name) in [(200 * PERIOD, "1000599000000"), (-PERIOD, "999996000000"), (SECOND, "1000000000000")]
    {
        let mut history = right();
        let told = throttled(&mut history);
        told.window_ends = told.window_ends.map(|ends| ends + by);
        let key = format!("acme few window {name}");
        finds(&history, INVARIANT, &key, "throttled by a window of another time");
    }
}

#[test]
fn a_throttled_one_while_slots_are_free() {
    // It was full half a second later, and in another transaction.
    let mut history = right();
    let is_throttled = |row: &Kind| matches!(row, Kind::Marker { outcome: Outcome::Throttled, .. });
    let row = rows(&mut history).find(|row| is_throttled(&row.row)).unwrap();
    row.at += SECOND / 2;
    finds(&history, INVARIANT, ACME_WINDOW, "throttled, and no transaction of that time found it full");
    let more = under_other_rules(|rules| rules.throttle = rules.throttle.map(|(n, period)| (n + 1, period)));
    finds(&from_outside(more), INVARIANT, ACME_WINDOW, "throttled when 2 of 3 slots were taken");
}

/// Its own marker was written when another's window was full, and its own one became full
/// during its call.
#[test]
fn a_throttled_one_that_is_excused_by_the_marker_of_another() {
    let few = |organisation, chkpt| publish(organisation, vec![(2, Some(chkpt), 0)], Fate::Told);
    let steps = [few(1, 0), few(1, 1), few(0, 0), few(0, 1), few(0, 2)];
    let history = || Model::run(&steps.clone().map(|step| (step, 50, 10)));
    assert_eq!(check(&history()), []);
    let mut history = history();
    let before = call_of(&mut history, "acme", "chkpt-0", 0).ended;
    let mut call = call_told(&mut history, Outcome::Throttled).clone();
    call.began = before;
    let Did::Publish { sent, .. } = &mut call.did else { panic!("{call:?}") };
    (sent[0].chkpt, sent[0].nonce) = ("chkpt-3".into(), "acme-other".into());
    let marker = Kind::Marker { key: "key".into(), outcome: Outcome::Throttled, id: String::new() };
    let row = GateRow { transaction: "other".into(), began: before, at: before, row: marker };
    history.events.extend([Event::Call(call), Event::Gate(row)]);
    finds(&history, INVARIANT, ACME_WINDOW, "2 were throttled, and 1 found it full");
}

#[test]
fn a_throttled_one_that_nobody_heard_of_while_slots_are_free() {
    // Before anything was accepted, and when the window was over that was full.
    for seconds in [-1, 3] {
        let mut history = right();
        let at = 1_000_000 * SECOND + seconds * SECOND;
        let marker = Kind::Marker { key: "key".into(), outcome: Outcome::Throttled, id: String::new() };
        let row = GateRow { transaction: "other".into(), began: at, at, row: marker };
        history.events.push(Event::Gate(row));
        finds(&history, INVARIANT, "transaction other", "it throttled when no window was full");
    }
}
