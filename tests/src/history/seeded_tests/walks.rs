//! Seeds of invariant 1, of lists: they bring what was asked for, and all of it.

use super::*;

const INVARIANT: Invariant = Invariant::OneResult;

/// The lists of an organisation.
fn lists_of<'a>(history: &'a mut History, organisation: &str) -> Vec<&'a mut Did> {
    let of = calls(history).filter(|call| call.organisation == organisation);
    of.map(|call| &mut call.did).filter(|did| matches!(did, Did::List { .. })).collect()
}

/// Takes a result out of that list.
fn skip(list: &mut Did, id: &str) {
    match list {
        Did::List { found: Answer::Said(found), .. } => {
            let before = found.len();
            found.retain(|record| record.id != id);
            assert_eq!(found.len(), before - 1);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_walk_that_skips_a_result() {
    let says = "a walk to the end missed it";
    // Of all states, and of those available alone, of a poll.
    for (organisation, id) in [("acme", "id-0000"), ("globex", GLOBEX)] {
        let mut history = right();
        skip(lists_of(&mut history, organisation)[1], id);
        finds(&history, INVARIANT, id, says);
    }
    // Of those consumed alone.
    let mut history = right();
    let list = lists_of(&mut history, "acme").remove(1);
    let Did::List { states, found: Answer::Said(found), .. } = list else { panic!("{list:?}") };
    *states = vec![State::Consumed];
    found.retain(|record| record.state == State::Consumed && record.id != "id-0000");
    finds(&history, INVARIANT, "id-0000", says);
}

#[test]
fn a_walk_that_broke_off_may_miss_what_it_did_not_come_to() {
    let mut history = right();
    let mut lists = lists_of(&mut history, "acme");
    skip(lists[1], "id-0000");
    let Did::List { whole, .. } = &mut *lists[1] else { panic!("{lists:?}") };
    *whole = false;
    assert_eq!(check(&history), []);
}

#[test]
fn a_list_with_a_result_of_another_poll() {
    let mut history = right();
    let list = lists_of(&mut history, "globex").remove(1);
    let Did::List { poll, .. } = list else { panic!("{list:?}") };
    *poll = Some("poll-1".into());
    finds(&history, INVARIANT, GLOBEX, "it is of poll-0 in a list of poll-1");
}
