//! Seeds of invariant 1: each success has one result, and no other result is there.

use super::*;

const INVARIANT: Invariant = Invariant::OneResult;

#[test]
fn a_success_without_a_result() {
    // The second is known by a duplicate alone.
    for id in [SECOND_OF_KEY, LOST] {
        let mut history = right();
        undo(&mut history, id);
        finds(&history, INVARIANT, id, "told success, and there is no such result");
    }
}

#[test]
fn a_result_of_other_bytes_or_another_definition() {
    let says = "the result is not what was published";
    let mut history = right();
    let spoilt = Data { md5: "other".into(), size: 1 };
    let (record, data) = last(&mut history, SECOND_OF_KEY);
    (record.data, *data) = (spoilt.clone(), spoilt);
    finds(&history, INVARIANT, SECOND_OF_KEY, says);
    let mut history = right();
    last(&mut history, SECOND_OF_KEY).0.definition = "plain".into();
    finds(&history, INVARIANT, SECOND_OF_KEY, says);
}

#[test]
fn a_result_with_other_labels() {
    let spoils: [fn(&mut Labels); 3] = [
        |labels| labels.poll = "other".into(),
        |labels| labels.task = "other".into(),
        |labels| labels.r#type = "other".into(),
    ];
    for spoil in spoils {
        let mut history = right();
        spoil(&mut last(&mut history, SECOND_OF_KEY).0.labels);
        finds(&history, INVARIANT, SECOND_OF_KEY, "the result is not what was published");
        // And of one that a duplicate alone tells of, or nobody.
        for (id, nonce) in [(LOST, "acme-14"), (UNHEARD, "acme-15")] {
            let mut history = right();
            spoil(&mut last(&mut history, id).0.labels);
            let says = format!("1 result(s) of {nonce} come from no accepted observation");
            finds(&history, INVARIANT, id, &says);
        }
    }
}

#[test]
fn data_that_is_not_what_its_record_says() {
    let mut history = right();
    *last(&mut history, UNMARKED).1 = Data { md5: "other".into(), size: 1 };
    finds(&history, INVARIANT, UNMARKED, "its data is not what its record says");
}

#[test]
fn a_doubled_result() {
    let mut history = right();
    let again = history
        .events
        .iter()
        .find(|event| matches!(event, Event::Last { record, .. } if record.id == UNMARKED));
    let again = again.unwrap().clone();
    history.events.push(again);
    finds(&history, INVARIANT, UNMARKED, "it is there more than once");
}

#[test]
fn a_result_of_nobodys_observation() {
    let mut history = right();
    add_like(&mut history, UNMARKED, "id-doubled");
    let says = "1 result(s) of acme-2 come from no accepted observation";
    finds(&history, INVARIANT, "id-doubled", says);
}

#[test]
fn a_lost_observation_that_nobody_heard_of() {
    let marker = Kind::Marker { key: "key".into(), outcome: Outcome::Success, id: "id-lost".into() };
    let window = Kind::Window { key: "key".into(), id: "id-lost".into(), accepted_at: 1 };
    for row in [marker, window] {
        let mut history = right();
        add_row(&mut history, row);
        let says = "a transaction accepted it, and there is no such result";
        finds(&history, INVARIANT, "id-lost", says);
    }
}

#[test]
fn a_lost_observation_without_a_trace() {
    let mut history = right();
    remove(&mut history, UNHEARD);
    finds(&history, INVARIANT, "acme", "10 results were handed over, and 9 are there");
}

#[test]
fn a_result_that_changes() {
    let spoils: [fn(&mut Record); 5] = [
        |record| record.data.size += 1,
        |record| record.nonce = "other".into(),
        |record| record.definition = "few".into(),
        |record| record.date_created += 1,
        |record| record.labels.task = "other".into(),
    ];
    for spoil in spoils {
        let mut history = right();
        spoil(lists(&mut history).flatten().find(|record| record.id == UNMARKED).unwrap());
        finds(&history, INVARIANT, UNMARKED, "it changed");
    }
}

#[test]
fn a_result_that_is_listed_twice() {
    let mut history = right();
    let list = lists(&mut history).next().unwrap();
    let again = list[1].clone();
    assert_eq!(again.id, UNMARKED);
    list.push(again);
    finds(&history, INVARIANT, UNMARKED, "it is twice in one list");
}

#[test]
fn a_result_that_vanishes() {
    let mut history = right();
    let list = lists(&mut history).next().unwrap();
    let ghost = Record { id: "id-ghost".into(), nonce: "ghost".into(), ..list[1].clone() };
    list.push(ghost);
    finds(&history, INVARIANT, "id-ghost", "it was there and is no more");
}

#[test]
fn a_result_that_vanishes_for_a_while() {
    let says = "it was there, and then NOT_FOUND";
    let mut history = right();
    let mut seen: Vec<_> = calls(&mut history).filter(|call| call.organisation == "acme").collect();
    for call in &mut seen {
        if let Did::Get { found, .. } = &mut call.did {
            *found = Answer::Said(None);
        }
    }
    finds(&history, INVARIANT, UNMARKED, says);
    let mut history = right();
    for call in calls(&mut history) {
        if let Did::Download { found, .. } = &mut call.did {
            *found = Answer::Said(None);
        }
    }
    finds(&history, INVARIANT, "id-0000", says);
    let mut history = right();
    let call = acknowledgements(&mut history, "acme").pop().unwrap();
    call.did = Did::Acknowledge { ids: vec![UNMARKED.into()], changed: Answer::Said(None), record: None };
    finds(&history, INVARIANT, UNMARKED, says);
}

#[test]
fn another_result_than_was_asked_for() {
    let mut history = right();
    let other = last(&mut history, "id-0000").0.clone();
    for call in calls(&mut history).filter(|call| call.organisation == "acme") {
        if let Did::Get { found, .. } = &mut call.did {
            *found = Answer::Said(Some(other.clone()));
        }
    }
    finds(&history, INVARIANT, UNMARKED, "it was asked for, and id-0000 came");
    let mut history = right();
    *answered(acknowledgements(&mut history, "acme").pop().unwrap()) = other;
    finds(&history, INVARIANT, UNMARKED, "it was asked for, and id-0000 came");
}

#[test]
fn other_bytes_that_are_downloaded() {
    let mut history = right();
    for call in calls(&mut history) {
        if let Did::Download { found: Answer::Said(Some(data)), .. } = &mut call.did {
            data.size += 1;
        }
    }
    finds(&history, INVARIANT, "id-0000", "other bytes were downloaded");
}

#[test]
fn a_row_without_a_result() {
    let mut history = right();
    let row = KeptRow { id: "id-hidden".into(), ..kept(&mut history, UNMARKED).clone() };
    history.events.push(Event::Kept(row));
    finds(&history, INVARIANT, "id-hidden", "it is in the database, and in no list");
}

#[test]
fn a_result_without_a_row() {
    let mut history = right();
    history.events.retain(|event| !matches!(event, Event::Kept(row) if row.id == UNMARKED));
    finds(&history, INVARIANT, UNMARKED, "it is in a list, and not in the database");
}
