//! The checker is checked: into a right history one thing is put that must not
//! be, and the right invariant has to say so and name the key.

use super::{
    Answer, Call, Data, Did, Event, GateRow, History, Invariant, KeptRow, Kind, Outcome, Record, SECOND,
    State, Told, check,
    model::{Fate, Item, Model, Step},
};

fn publish(organisation: usize, items: Vec<(usize, Option<u8>, u8)>, fate: Fate) -> Step {
    let items = items.into_iter().map(|(kind, chkpt, key)| Item { kind, chkpt, key }).collect();
    Step::Publish { organisation, request: None, items, fate }
}

/// Two organisations with the same marks, keys and definitions; each outcome;
/// lost answers; results in both states.
fn right() -> History {
    let (plain, once, few, bad) = (0, 1, 2, 4);
    let told = Fate::Told;
    let steps = vec![
        publish(0, vec![(plain, Some(0), 0), (plain, None, 0)], told),
        publish(1, vec![(plain, Some(0), 0)], told),
        Step::Resend { pick: 0, fate: told },
        publish(0, vec![(plain, Some(0), 0), (bad, Some(1), 0)], told),
        publish(0, vec![(once, Some(2), 1)], told),
        publish(0, vec![(once, Some(3), 1)], told),
        Step::List { organisation: 0, all: false },
        Step::Acknowledge { organisation: 0, picks: vec![0, 3], fate: told },
        Step::List { organisation: 0, all: true },
        publish(0, vec![(few, Some(4), 0), (few, Some(5), 0), (few, Some(6), 0)], told),
        publish(0, vec![(plain, Some(7), 0)], Fate::NotKept),
        publish(0, vec![(plain, Some(8), 0)], Fate::AnswerLost),
        Step::Resend { pick: 7, fate: told },
        Step::Look { organisation: 1, pick: 0, download: false },
        Step::Look { organisation: 0, pick: 0, download: true },
        // A second acceptance of the key, when the first is long ago.
        publish(0, vec![(once, Some(9), 1)], told),
    ];
    let after = |at: usize| if at == 15 { 3000 } else { 50 };
    Model::run(&steps.into_iter().enumerate().map(|(at, step)| (step, after(at), 10)).collect::<Vec<_>>())
}

/// That invariant alone, or among others, is found broken for that key, and the
/// counter-example names it.
fn caught(history: &History, invariant: Invariant, key: &str) {
    let found = check(history);
    let violation = found.iter().find(|found| found.invariant == invariant && found.key.contains(key));
    let violation = violation.unwrap_or_else(|| panic!("{invariant:?} for {key}, and not {found:#?}"));
    let explained = violation.explain(history);
    assert!(explained.contains(key) && explained.lines().count() >= 2, "{explained}");
    assert!(violation.places.len() <= 6, "no more than what proves it: {explained}");
}

fn calls(history: &mut History) -> impl Iterator<Item = &mut Call> {
    history.events.iter_mut().filter_map(|event| match event {
        Event::Call(call) => Some(call),
        _ => None,
    })
}

/// The outcomes of each publication that was answered.
fn told(history: &mut History) -> impl Iterator<Item = &mut Told> {
    calls(history).flat_map(|call| match &mut call.did {
        Did::Publish { told: Answer::Said(told), .. } => told.as_mut_slice(),
        _ => &mut [],
    })
}

fn records(history: &mut History) -> impl Iterator<Item = &mut Record> {
    history.events.iter_mut().filter_map(|event| match event {
        Event::Last { record, .. } => Some(record),
        _ => None,
    })
}

fn first_id(history: &mut History, outcome: Outcome) -> String {
    told(history).find(|told| told.outcome == outcome).unwrap().id.clone()
}

fn remove(history: &mut History, id: &str) {
    history.events.retain(|event| match event {
        Event::Last { record, .. } => record.id != id,
        Event::Kept(row) => row.id != id,
        _ => true,
    });
}

/// One more result like that of `id`, under another id.
fn add_like(history: &mut History, id: &str, other: &str) {
    let mut record = records(history).find(|record| record.id == id).unwrap().clone();
    record.id = other.into();
    let (organisation, data) = (record.organisation.clone(), record.data.clone());
    let available = record.state == State::Available;
    let row =
        KeptRow { organisation: organisation.clone(), id: other.into(), available, consumed: !available };
    history.events.extend([Event::Kept(row), Event::Last { organisation, record, data }]);
}

#[test]
fn the_history_that_is_spoilt_below_is_right() {
    let mut history = right();
    assert_eq!(check(&history), []);
    let mut outcomes: Vec<_> = told(&mut history).map(|told| format!("{:?}", told.outcome)).collect();
    outcomes.sort();
    outcomes.dedup();
    assert_eq!(outcomes, ["Duplicate", "Error", "NotKept", "Success", "Suppressed", "Throttled"]);
}

#[test]
fn a_dropped_emission() {
    let mut history = right();
    let id = first_id(&mut history, Outcome::Success);
    remove(&mut history, &id);
    caught(&history, Invariant::OneResult, &id);
}

#[test]
fn a_dropped_emission_of_what_only_a_duplicate_told() {
    let mut history = right();
    let id = told(&mut history).filter(|t| t.outcome == Outcome::Duplicate).last().unwrap().id.clone();
    remove(&mut history, &id);
    caught(&history, Invariant::OneResult, &id);
}

#[test]
fn a_doubled_result() {
    let mut history = right();
    let id = first_id(&mut history, Outcome::Success);
    add_like(&mut history, &id, &id);
    caught(&history, Invariant::OneResult, &id);
}

#[test]
fn a_doubled_result_under_another_id() {
    let mut history = right();
    let id = first_id(&mut history, Outcome::Success);
    add_like(&mut history, &id, "id-doubled");
    caught(&history, Invariant::OneResult, "id-doubled");
    caught(&history, Invariant::FinalOnce, "acme plain chkpt chkpt-0");
}

#[test]
fn other_bytes() {
    let mut history = right();
    let spoilt = Data { md5: "other".into(), size: 1 };
    let record = records(&mut history).next().unwrap();
    let id = record.id.clone();
    record.data = spoilt.clone();
    caught(&history, Invariant::OneResult, &id);
    let mut history = right();
    for event in &mut history.events {
        if let Event::Last { record, data, .. } = event
            && record.id == id
        {
            *data = spoilt.clone();
        }
    }
    caught(&history, Invariant::OneResult, &id);
}

#[test]
fn a_result_that_vanishes_for_a_while() {
    let mut history = right();
    let looked = calls(&mut history).find_map(|call| match &mut call.did {
        Did::Download { id, found } => Some((id.clone(), found)),
        _ => None,
    });
    let (id, found) = looked.unwrap();
    *found = Answer::Said(None);
    caught(&history, Invariant::OneResult, &id);
}

#[test]
fn two_final_outcomes_of_a_chkpt() {
    let mut history = right();
    let duplicate = told(&mut history).find(|told| told.outcome == Outcome::Duplicate).unwrap();
    *duplicate = Told { outcome: Outcome::Success, original: None, ..duplicate.clone() };
    caught(&history, Invariant::FinalOnce, "acme plain chkpt chkpt-0");
}

#[test]
fn a_duplicate_that_names_another() {
    for spoil in [
        |told: &mut Told| told.id = "id-0001".into(),
        |told: &mut Told| {
            told.original = Some(Outcome::Throttled);
        },
    ] {
        let mut history = right();
        spoil(told(&mut history).find(|told| told.outcome == Outcome::Duplicate).unwrap());
        caught(&history, Invariant::FinalOnce, "acme plain chkpt chkpt-0");
    }
}

#[test]
fn a_final_outcome_after_its_duplicate() {
    let mut history = right();
    let first = calls(&mut history).next().unwrap();
    first.began += 600 * SECOND;
    first.ended += 600 * SECOND;
    caught(&history, Invariant::FinalOnce, "acme plain chkpt chkpt-0");
}

/// The rows of the gate.
fn rows(history: &mut History) -> impl Iterator<Item = &mut GateRow> {
    history.events.iter_mut().filter_map(|event| match event {
        Event::Gate(row) => Some(row),
        _ => None,
    })
}

#[test]
fn two_transactions_that_decide_a_mark() {
    for spoil in [
        |row: &mut Kind| match row {
            Kind::Marker { outcome, .. } => *outcome = Outcome::Throttled,
            _ => panic!("no marker"),
        },
        |row: &mut Kind| match row {
            Kind::Marker { id, .. } => *id = "id-other".into(),
            _ => panic!("no marker"),
        },
    ] {
        let mut history = right();
        let marker = rows(&mut history).find(|row| matches!(row.row, Kind::Marker { .. })).unwrap();
        let mut other = GateRow { transaction: "other".into(), ..marker.clone() };
        spoil(&mut other.row);
        history.events.push(Event::Gate(other));
        caught(&history, Invariant::FinalOnce, "chkpt-0");
    }
}

/// Other rules than those that the services went by.
fn under_other_rules(change: impl Fn(&mut super::Rules)) -> History {
    let mut history = right();
    for event in &mut history.events {
        if let Event::Rules(rules) = event {
            change(rules);
        }
    }
    history
}

/// The same, of what callers alone know.
fn from_outside(mut history: History) -> History {
    history.events.retain(|event| !matches!(event, Event::Gate(_)));
    for event in &mut history.events {
        if let Event::Rules(rules) = event {
            rules.counter = None;
        }
    }
    history
}

#[test]
fn a_key_accepted_twice_within_unique() {
    let history = under_other_rules(|rules| rules.unique = rules.unique.map(|unique| unique * 10));
    caught(&history, Invariant::Unique, "acme once key key-1");
    caught(&from_outside(history), Invariant::Unique, "acme once key key-1");
}

/// The call that was told this outcome.
fn call_told(history: &mut History, outcome: Outcome) -> &mut Call {
    let is = |call: &&mut Call| match &call.did {
        Did::Publish { told: Answer::Said(told), .. } => told.iter().any(|told| told.outcome == outcome),
        _ => false,
    };
    calls(history).find(is).unwrap()
}

#[test]
fn a_key_suppressed_too_long() {
    let mut history = right();
    let call = call_told(&mut history, Outcome::Suppressed);
    (call.began, call.ended) = (call.began + 3 * SECOND, call.ended + 3 * SECOND);
    caught(&history, Invariant::Unique, "acme once key key-1");
}

#[test]
fn a_window_that_is_not_dated_as_its_call() {
    for seconds in [-1, 1] {
        let mut history = right();
        let mut windows = rows(&mut history).filter_map(|row| match &mut row.row {
            Kind::Window { id, accepted_at, .. } => Some((id.clone(), accepted_at)),
            _ => None,
        });
        let (id, accepted_at) = windows.next().unwrap();
        *accepted_at += seconds * SECOND;
        drop(windows);
        caught(&history, Invariant::Unique, &id);
    }
}

#[test]
fn a_quota_that_is_off_by_one() {
    let less = under_other_rules(|rules| rules.throttle = rules.throttle.map(|(n, period)| (n - 1, period)));
    caught(&less, Invariant::Throttle, "acme few window");
    caught(&from_outside(less), Invariant::Throttle, "acme few window");
    let more = under_other_rules(|rules| rules.throttle = rules.throttle.map(|(n, period)| (n + 1, period)));
    caught(&more, Invariant::Throttle, "acme few window");
    caught(&from_outside(more), Invariant::Throttle, "acme few window");
}

#[test]
fn an_acceptance_that_takes_no_slot() {
    let mut history = right();
    history.events.retain(|event| match event {
        Event::Gate(row) => !matches!(row.row, super::Kind::Counter { .. }),
        _ => true,
    });
    caught(&history, Invariant::Throttle, "id-");
}

#[test]
fn an_error_that_left_a_result() {
    for outcome in [Outcome::Error, Outcome::NotKept] {
        let mut history = right();
        // The one without a mark.
        let second = told(&mut history).nth(1).unwrap();
        let id = second.id.clone();
        *second = Told { outcome, id: String::new(), ..second.clone() };
        caught(&history, Invariant::NothingLeft, &id);
    }
}

#[test]
fn a_try_that_was_not_kept_and_left_a_marker() {
    let mut history = right();
    let first = told(&mut history).next().unwrap();
    let id = first.id.clone();
    *first = Told { outcome: Outcome::NotKept, id: String::new(), ..first.clone() };
    remove(&mut history, &id);
    caught(&history, Invariant::NothingLeft, "acme plain chkpt chkpt-0");
}

#[test]
fn an_upload_that_nobody_wants() {
    let mut history = right();
    let leftover = super::Leftover { table: "file_upload".into(), id: "id-upload".into() };
    history.events.push(Event::Leftover(leftover));
    caught(&history, Invariant::NothingLeft, "id-upload");
}

/// The first id that was acknowledged.
fn consumed(history: &mut History) -> String {
    let id = calls(history).find_map(|call| match &call.did {
        Did::Acknowledge { ids, .. } => Some(ids[0].clone()),
        _ => None,
    });
    id.unwrap()
}

#[test]
fn a_lost_acknowledgement() {
    let mut history = right();
    let id = consumed(&mut history);
    let record = records(&mut history).find(|record| record.id == id).unwrap();
    (record.state, record.date_consumed) = (State::Available, None);
    caught(&history, Invariant::Consumed, &id);
}

#[test]
fn a_consumed_result_in_a_list_of_available_ones() {
    let mut history = right();
    let id = consumed(&mut history);
    let found = calls(&mut history).filter_map(|call| match &mut call.did {
        Did::List { found: Answer::Said(found), .. } => Some(found),
        _ => None,
    });
    for record in found.flatten().filter(|record| record.id == id) {
        record.state = State::Available;
    }
    caught(&history, Invariant::Consumed, &id);
}

#[test]
fn a_result_consumed_by_two_or_by_nobody() {
    let mut history = right();
    let id = consumed(&mut history);
    let spoil = |changed: Vec<String>| {
        let mut history = right();
        let call = calls(&mut history).find(|call| matches!(call.did, Did::Acknowledge { .. })).unwrap();
        let Did::Acknowledge { changed: told, .. } = &mut call.did else { panic!("as found") };
        let all = std::mem::replace(told, Answer::Said(Some(changed)));
        (history, all)
    };
    let (mut twice, _) = spoil(vec![id.clone()]);
    let again = calls(&mut twice).find(|call| matches!(call.did, Did::Acknowledge { .. })).unwrap().clone();
    twice.events.push(Event::Call(again));
    caught(&twice, Invariant::Consumed, &id);
    let (by_nobody, _) = spoil(vec![]);
    caught(&by_nobody, Invariant::Consumed, &id);
}

#[test]
fn a_foreign_result_that_is_listed() {
    let mut history = right();
    let foreign = records(&mut history).find(|record| record.organisation == "globex").unwrap().clone();
    // Whatever it says of itself.
    for organisation in ["acme", "globex"] {
        let mut history = right();
        let foreign = Record { organisation: organisation.into(), ..foreign.clone() };
        let list = calls(&mut history).find_map(|call| match &mut call.did {
            Did::List { found: Answer::Said(found), .. } => Some(found),
            _ => None,
        });
        list.unwrap().push(foreign.clone());
        caught(&history, Invariant::Isolation, &foreign.id);
    }
}

#[test]
fn a_foreign_result_that_is_found() {
    let mut history = right();
    let record = records(&mut history).next().unwrap().clone();
    assert_eq!(record.organisation, "acme");
    let looked = calls(&mut history).find_map(|call| match &mut call.did {
        Did::Get { found, .. } if call.organisation == "globex" => Some(found),
        _ => None,
    });
    *looked.unwrap() = Answer::Said(Some(record.clone()));
    caught(&history, Invariant::Isolation, &record.id);
}

#[test]
fn a_foreign_id_that_is_told() {
    let mut history = right();
    let foreign = records(&mut history).find(|record| record.organisation == "globex").unwrap().id.clone();
    told(&mut history).find(|told| told.outcome == Outcome::Suppressed).unwrap().id = foreign.clone();
    caught(&history, Invariant::Isolation, &foreign);
}
