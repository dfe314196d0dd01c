//! What breaks an invariant, with the events that prove it and no others.

use std::collections::BTreeMap;

use crate::history::{Answer, Did, Event, History};

/// The invariants of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// 1: success means exactly one result, with those bytes, which no walk through
    /// the lists misses; and no result without an accepted observation.
    OneResult,
    /// 2: one final outcome per mark, and duplicates name it.
    FinalOnce,
    /// 3: two acceptances of a unique key are never less than `unique` apart.
    Unique,
    /// 4: a throttle window is filled to the last slot and no further.
    Throttle,
    /// 5: `error` and `NOT_KEPT` leave nothing behind.
    NothingLeft,
    /// 6: what was consumed is never available again.
    Consumed,
    /// 7: nobody sees anything of another organisation.
    Isolation,
}

/// An event, or one item of it: of a publication the observation, of a list the
/// record, of an acknowledgement the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Which event of the history.
    pub event: usize,
    /// Which item of it. `None`: all of it.
    pub item: Option<usize>,
}

impl From<usize> for Place {
    fn from(event: usize) -> Self {
        Self { event, item: None }
    }
}

/// One counter-example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What it breaks.
    pub invariant: Invariant,
    /// What it is about: an id, a mark, a unique key, a window.
    pub key: String,
    /// What is wrong.
    pub says: String,
    /// What proves it.
    pub places: Vec<Place>,
}

impl Violation {
    /// For people: what is wrong, and the events in order of time, of each only
    /// the items that have to do with it.
    #[must_use]
    pub fn explain(&self, history: &History) -> String {
        let mut text = format!("{:?} is broken for {}: {}\n", self.invariant, self.key, self.says);
        let mut items: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for place in &self.places {
            items.entry(place.event).or_default().extend(place.item);
        }
        let mut events: Vec<_> =
            items.into_iter().map(|(event, items)| narrowed(&history.events[event], &items)).collect();
        events.sort_by_key(moment);
        for event in events {
            let json = serde_json::to_string(&event).unwrap_or_default();
            text.extend(["  ", &json, "\n"]);
        }
        text
    }
}

fn moment(event: &Event) -> i64 {
    match event {
        Event::Rules(_) => i64::MIN,
        Event::Call(call) => call.began,
        Event::Fault { at, .. } => *at,
        Event::Gate(row) => row.at,
        Event::Last { .. } | Event::Kept(_) | Event::Leftover(_) => i64::MAX,
    }
}

/// The event with these items only; none given means all.
fn narrowed(event: &Event, items: &[usize]) -> Event {
    let mut event = event.clone();
    let Event::Call(call) = &mut event else { return event };
    if items.is_empty() {
        return event;
    }
    match &mut call.did {
        Did::Publish { sent, told, .. } => {
            keep(sent, items);
            if let Answer::Said(told) = told {
                keep(told, items);
            }
        }
        Did::List { found: Answer::Said(records), .. } => keep(records, items),
        Did::Acknowledge { ids, changed, .. } => {
            keep(ids, items);
            if let Answer::Said(Some(changed)) = changed {
                changed.retain(|id| ids.contains(id));
            }
        }
        _ => {}
    }
    event
}

fn keep<T>(all: &mut Vec<T>, items: &[usize]) {
    let mut at = 0;
    all.retain(|_| {
        at += 1;
        items.contains(&(at - 1))
    });
}
