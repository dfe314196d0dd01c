//! The checker is checked: into a right history one thing is put that must not
//! be, and exactly one check has to say so and name the key. Each check has a seed
//! that no other one finds.

mod consumed;
mod final_once;
mod isolation;
mod nothing_left;
mod one_result;
mod throttle;
mod unique;
mod walks;

use super::{
    Answer, Call, Data, Did, Event, GateRow, History, Invariant, KeptRow, Kind, Labels, Outcome, Record,
    Rules, SECOND, State, Told, check,
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
    let (told, lost) = (Fate::Told, Fate::AnswerLost);
    let acknowledge =
        |organisation, picks: &[usize], fate| Step::Acknowledge { organisation, picks: picks.into(), fate };
    let steps = vec![
        publish(0, vec![(plain, Some(0), 0), (plain, None, 0)], told),
        publish(1, vec![(plain, Some(0), 0)], told),
        Step::Resend { pick: 0, fate: told },
        publish(0, vec![(plain, Some(0), 0), (bad, Some(1), 0)], told),
        publish(0, vec![(once, Some(2), 1)], told),
        publish(0, vec![(once, Some(3), 1)], told),
        Step::Resend { pick: 4, fate: told },
        Step::List { organisation: 0, all: false, poll: None },
        Step::List { organisation: 1, all: false, poll: None },
        // Of that of its only result.
        Step::List { organisation: 1, all: false, poll: Some(0) },
        acknowledge(0, &[0, 3], told),
        // Consumed, and only a list says so.
        acknowledge(0, &[1], lost),
        Step::List { organisation: 0, all: true, poll: None },
        acknowledge(0, &[1], told),
        acknowledge(1, &[2], told),
        acknowledge(1, &[2], told),
        Step::Look { organisation: 1, pick: 0, download: false },
        Step::Look { organisation: 0, pick: 0, download: true },
        Step::Look { organisation: 0, pick: 1, download: false },
        publish(0, vec![(few, Some(4), 0), (few, Some(5), 0), (few, Some(6), 0)], told),
        publish(0, vec![(plain, Some(7), 0)], Fate::NotKept),
        // Tried twice without an answer, and decided the first time.
        publish(0, vec![(plain, Some(8), 0)], lost),
        Step::Resend { pick: 7, fate: Fate::RequestLost },
        Step::Resend { pick: 7, fate: told },
        Step::Resend { pick: 7, fate: told },
        publish(0, vec![(plain, Some(10), 0)], told),
        Step::Resend { pick: 8, fate: told },
        publish(0, vec![(plain, Some(11), 0)], lost),
        Step::Resend { pick: 9, fate: told },
        // Nobody ever hears of it.
        publish(0, vec![(plain, None, 0)], lost),
        publish(1, vec![(plain, None, 0)], told),
        publish(1, vec![(once, Some(2), 1)], told),
        publish(1, vec![(few, Some(4), 0)], told),
        // A second acceptance of the key, when the first is long ago.
        publish(0, vec![(once, Some(9), 1)], told),
    ];
    let last = steps.len() - 1;
    let after = |at: usize| if at == last { 3000 } else { 50 };
    Model::run(&steps.into_iter().enumerate().map(|(at, step)| (step, after(at), 10)).collect::<Vec<_>>())
}

/// Its results, by what is known of them. (Those before were listed.)
const UNMARKED: &str = "id-0001";
const GLOBEX: &str = "id-0002";
const FIRST_OF_KEY: &str = "id-0003";
const LOST_TWICE: &str = "id-0006";
const TOLD: &str = "id-0007";
const LOST: &str = "id-0008";
const UNHEARD: &str = "id-0009";
const GLOBEX_UNMARKED: &str = "id-0010";
const GLOBEX_OF_KEY: &str = "id-0011";
const GLOBEX_FEW: &str = "id-0012";
const SECOND_OF_KEY: &str = "id-0013";

/// That is found, and nothing else; and the counter-example names it.
fn finds(history: &History, invariant: Invariant, key: &str, says: &str) {
    let all = check(history);
    let found: Vec<_> = all.iter().map(|v| (v.invariant, v.key.as_str(), v.says.as_str())).collect();
    assert_eq!(found, [(invariant, key, says)]);
    let explained = all[0].explain(history);
    assert!(explained.contains(says) && explained.lines().count() >= 2, "{explained}");
    assert!(all[0].places.len() <= 6, "no more than what proves it: {explained}");
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

/// Those that name this id.
fn told_id<'a>(history: &'a mut History, id: &'a str) -> impl Iterator<Item = &'a mut Told> {
    told(history).filter(move |told| told.id == id)
}

/// The first call that was told this outcome.
fn call_told(history: &mut History, outcome: Outcome) -> &mut Call {
    let is = |call: &&mut Call| match &call.did {
        Did::Publish { told: Answer::Said(told), .. } => told.iter().any(|told| told.outcome == outcome),
        _ => false,
    };
    calls(history).find(is).unwrap()
}

/// The call under this mark, so manieth of an organisation.
fn call_of<'a>(history: &'a mut History, organisation: &str, chkpt: &str, at: usize) -> &'a mut Call {
    let is = |call: &&mut Call| match &call.did {
        Did::Publish { sent, .. } => call.organisation == organisation && sent[0].chkpt == chkpt,
        _ => false,
    };
    calls(history).filter(is).nth(at).unwrap()
}

fn shift(call: &mut Call, seconds: i64) {
    call.began += seconds * SECOND;
    call.ended += seconds * SECOND;
}

fn lists(history: &mut History) -> impl Iterator<Item = &mut Vec<Record>> {
    calls(history).filter_map(|call| match &mut call.did {
        Did::List { found: Answer::Said(found), .. } => Some(found),
        _ => None,
    })
}

/// A result in the end, and its data.
fn last<'a>(history: &'a mut History, id: &str) -> (&'a mut Record, &'a mut Data) {
    let last = history.events.iter_mut().find_map(|event| match event {
        Event::Last { record, data, .. } if record.id == id => Some((record, data)),
        _ => None,
    });
    last.unwrap()
}

fn kept<'a>(history: &'a mut History, id: &str) -> &'a mut KeptRow {
    let kept = history.events.iter_mut().find_map(|event| match event {
        Event::Kept(row) if row.id == id => Some(row),
        _ => None,
    });
    kept.unwrap()
}

/// The calls that acknowledge, of an organisation.
fn acknowledgements<'a>(history: &'a mut History, organisation: &str) -> Vec<&'a mut Call> {
    let is =
        |call: &&mut Call| call.organisation == organisation && matches!(call.did, Did::Acknowledge { .. });
    calls(history).filter(is).collect()
}

/// What such a call was told to have changed.
fn changed(call: &mut Call) -> &mut Vec<String> {
    match &mut call.did {
        Did::Acknowledge { changed: Answer::Said(Some(changed)), .. } => changed,
        other => panic!("{other:?}"),
    }
}

/// The record that it was answered with.
fn answered(call: &mut Call) -> &mut Record {
    match &mut call.did {
        Did::Acknowledge { record: Some(record), .. } => record,
        other => panic!("{other:?}"),
    }
}

/// The rows of the gate.
fn rows(history: &mut History) -> impl Iterator<Item = &mut GateRow> {
    history.events.iter_mut().filter_map(|event| match event {
        Event::Gate(row) => Some(row),
        _ => None,
    })
}

fn is_row_of(row: &Kind, of: &str) -> bool {
    matches!(row, Kind::Marker { id, .. } | Kind::Window { id, .. } if id == of)
}

/// The row of the window that an id opened.
fn window<'a>(history: &'a mut History, id: &str) -> &'a mut GateRow {
    rows(history).find(|row| matches!(row.row, Kind::Window { .. }) && is_row_of(&row.row, id)).unwrap()
}

/// One more row of another transaction.
fn add_row(history: &mut History, row: Kind) {
    let now = rows(history).map(|row| row.at).max().unwrap();
    history.events.push(Event::Gate(GateRow { transaction: "other".into(), began: now, at: now, row }));
}

/// It was never recorded.
fn remove(history: &mut History, id: &str) {
    history.events.retain(|event| match event {
        Event::Last { record, .. } => record.id != id,
        Event::Kept(row) => row.id != id,
        _ => true,
    });
}

/// It was not even accepted.
fn undo(history: &mut History, id: &str) {
    remove(history, id);
    let transaction = rows(history).find(|row| is_row_of(&row.row, id)).unwrap().transaction.clone();
    for row in rows(history).filter(|row| row.transaction == transaction) {
        if let Kind::Outbox { results, .. } = &mut row.row {
            *results -= 1;
        }
    }
    history.events.retain(|event| !matches!(event, Event::Gate(row) if is_row_of(&row.row, id)));
}

/// One more result like that of `id`, under another id.
fn add_like(history: &mut History, id: &str, other: &str) {
    let mut record = last(history, id).0.clone();
    (record.id, record.state, record.date_consumed) = (other.into(), State::Available, None);
    let (organisation, data) = (record.organisation.clone(), record.data.clone());
    let row =
        KeptRow { organisation: organisation.clone(), id: other.into(), available: true, consumed: false };
    add_row(history, Kind::Outbox { organisation: organisation.clone(), results: 1 });
    history.events.extend([Event::Kept(row), Event::Last { organisation, record, data }]);
}

/// Other rules than those that the services went by.
fn under_other_rules(change: impl Fn(&mut Rules)) -> History {
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
fn the_history_that_is_spoilt_is_right() {
    let mut history = right();
    assert_eq!(check(&history), []);
    assert_eq!(check(&from_outside(right())), []);
    let mut outcomes: Vec<_> = told(&mut history).map(|told| format!("{:?}", told.outcome)).collect();
    outcomes.sort();
    outcomes.dedup();
    assert_eq!(outcomes, ["Duplicate", "Error", "NotKept", "Success", "Suppressed", "Throttled"]);
    for (id, organisation, definition) in [
        (UNMARKED, "acme", "plain"),
        (GLOBEX, "globex", "plain"),
        (FIRST_OF_KEY, "acme", "once"),
        (LOST_TWICE, "acme", "plain"),
        (TOLD, "acme", "plain"),
        (LOST, "acme", "plain"),
        (UNHEARD, "acme", "plain"),
        (GLOBEX_UNMARKED, "globex", "plain"),
        (GLOBEX_OF_KEY, "globex", "once"),
        (GLOBEX_FEW, "globex", "few"),
        (SECOND_OF_KEY, "acme", "once"),
    ] {
        let record = last(&mut history, id).0;
        assert_eq!((&record.organisation[..], &record.definition[..]), (organisation, definition));
    }
}
