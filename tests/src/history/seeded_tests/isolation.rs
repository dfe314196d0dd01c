//! Seeds of invariant 7: nobody sees another's.

use super::*;

const INVARIANT: Invariant = Invariant::Isolation;

#[test]
fn an_id_that_two_were_told() {
    let mut history = right();
    told_id(&mut history, GLOBEX_UNMARKED).for_each(|told| told.id = "id-0000".into());
    last(&mut history, GLOBEX_UNMARKED).0.id = "id-0000".into();
    kept(&mut history, GLOBEX_UNMARKED).id = "id-0000".into();
    finds(&history, INVARIANT, "id-0000", "two organisations were told this id");
}

#[test]
fn a_foreign_id_that_is_told() {
    let mut history = right();
    told(&mut history).find(|told| told.outcome == Outcome::Throttled).unwrap().id = GLOBEX.into();
    finds(&history, INVARIANT, GLOBEX, "it was told by acme, and is globex's");
}

/// Whatever it says of itself.
#[test]
fn a_foreign_result_that_is_listed() {
    let mut history = right();
    let record = last(&mut history, GLOBEX_UNMARKED).0.clone();
    lists(&mut history).next().unwrap().push(record.clone());
    finds(&history, INVARIANT, GLOBEX_UNMARKED, "acme saw a record of globex");
    let mut history = right();
    let claims = Record { organisation: "acme".into(), ..record };
    lists(&mut history).next().unwrap().push(claims.clone());
    finds(&history, INVARIANT, GLOBEX_UNMARKED, "it was seen by acme, and is globex's");
    // Under an id that nobody knows.
    let mut history = right();
    let nonce = claims.nonce.clone();
    lists(&mut history).next().unwrap().push(Record { id: "id-ghost".into(), ..claims });
    finds(&history, INVARIANT, &nonce, "it was seen by acme, and is globex's");
}

#[test]
fn a_foreign_result_that_is_got() {
    let mut history = right();
    let record = last(&mut history, "id-0000").0.clone();
    for call in calls(&mut history).filter(|call| call.organisation == "globex") {
        if let Did::Get { found, .. } = &mut call.did {
            *found = Answer::Said(Some(record.clone()));
        }
    }
    finds(&history, INVARIANT, "id-0000", "globex saw a record of acme");
}

#[test]
fn a_foreign_result_that_is_downloaded() {
    let mut history = right();
    for call in calls(&mut history) {
        if let Did::Download { id, .. } = &mut call.did {
            *id = GLOBEX.into();
        }
    }
    finds(&history, INVARIANT, GLOBEX, "it was found by acme, and is globex's");
    // One that nobody was told of.
    let mut history = right();
    for call in calls(&mut history) {
        if let Did::Download { id, .. } = &mut call.did {
            (*id, call.organisation) = (UNHEARD.into(), "globex".into());
        }
    }
    finds(&history, INVARIANT, UNHEARD, "it was found by globex, and is acme's");
}

#[test]
fn a_foreign_result_that_is_acknowledged() {
    let mut history = right();
    let call = acknowledgements(&mut history, "acme").remove(0);
    let Did::Acknowledge { ids, changed: Answer::Said(Some(changed)), .. } = &mut call.did else {
        panic!("{call:?}")
    };
    ids.push(GLOBEX_FEW.into());
    changed.push(GLOBEX_FEW.into());
    finds(&history, INVARIANT, GLOBEX_FEW, "it was found by acme, and is globex's");
    // And alone, by its record.
    let mut history = right();
    let record = last(&mut history, GLOBEX_FEW).0.clone();
    let call = acknowledgements(&mut history, "acme").pop().unwrap();
    let (ids, changed) = (vec![GLOBEX_FEW.into()], Answer::Said(Some(vec![])));
    let consumed = Record { state: State::Consumed, date_consumed: Some(1), ..record };
    call.did = Did::Acknowledge { ids, changed, record: Some(consumed) };
    finds(&history, INVARIANT, GLOBEX_FEW, "acme saw a record of globex");
}
