//! Counting observations: each that is taken in ends in exactly one outcome, so
//! the outcomes add up to what was taken in. Definitions are told apart up to a
//! bound.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use sluice_service::metrics::{By, Counter, Family, Registry};

use crate::{
    check::Request,
    outcome::{Cause, Decision, Outcome},
};

/// Definitions with series of their own: the first that are used. The others
/// share one.
const DEFINITIONS_MAX: usize = 200;
/// What the others are called; no path can hold these characters.
const OTHER: &str = "(other)";
/// Of a path without a definition: any caller could name as many as it likes.
const UNKNOWN: &str = "(unknown)";
/// The call failed, or its caller left, before the outcome was there.
const UNANSWERED: &str = "unanswered";

/// The labels of an outcome.
type Labels = ([(&'static str, Arc<str>); 1], [(&'static str, &'static str); 1]);

fn labels(definition: Arc<str>, outcome: &'static str) -> Labels {
    ([("definition", definition)], [("outcome", outcome)])
}

/// Counts observations and their outcomes.
#[derive(Clone, Debug)]
pub struct Tally {
    observations: Counter,
    outcomes: Family<Labels, Counter>,
    retries: By<Cause, Counter>,
    definitions: Arc<RwLock<HashSet<Arc<str>>>>,
}

impl Tally {
    /// Adds both to a registry.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            observations: registry.add(
                "sluice_observations_total",
                "Observations taken in, before any check",
                Counter::default(),
            ),
            outcomes: registry.add(
                "sluice_outcomes_total",
                "Outcomes by definition (the first 200, then `(other)`; `(unknown)`: there is no such \
                 definition); `unanswered`: the call failed or its caller left. Adds up to \
                 sluice_observations_total once nothing is under way",
                Family::default(),
            ),
            retries: registry.add_by(
                "sluice_retries_total",
                "Observations answered `retry`, by what kept them from being decided",
                "cause",
                Counter::default,
            ),
            definitions: Arc::default(),
        }
    }

    /// Observations were taken in. Keep what is returned until their outcomes
    /// are there.
    pub fn take_in(&self, request: &Arc<Request>) -> Taken {
        self.observations.inc_by(request.batch.observations.len() as u64);
        Taken { tally: self.clone(), request: Some(request.clone()) }
    }

    /// Counts each observation's outcome once; `None`: unanswered.
    fn settle(&self, request: &Request, outcome_of: impl Fn(usize) -> Option<Name>) {
        let mut counts: HashMap<(&str, &'static str), (u64, bool)> = HashMap::new();
        for (index, observation) in request.batch.observations.iter().enumerate() {
            let Name { outcome, definition_exists } =
                outcome_of(index).unwrap_or(Name { outcome: UNANSWERED, definition_exists: false });
            let (count, exists) = counts.entry((&observation.definition, outcome)).or_default();
            *count += 1;
            *exists |= definition_exists;
        }
        for ((path, outcome), (count, exists)) in counts {
            let labels = labels(self.definition(path, exists), outcome);
            self.outcomes.get_or_create(&labels).inc_by(count);
        }
    }

    /// The label of a path: only what exists gets one of its own.
    fn definition(&self, path: &str, exists: bool) -> Arc<str> {
        let known = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(path) {
            Some(path) => return path.clone(),
            None if !exists => return UNKNOWN.into(),
            None if known.len() >= DEFINITIONS_MAX => return OTHER.into(),
            None => drop(known),
        }
        let mut known = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have come first.
        if known.len() >= DEFINITIONS_MAX && !known.contains(path) {
            return OTHER.into();
        }
        known.insert(path.into());
        path.into()
    }
}

/// Observations on the way to their outcomes. Dropped before those are known,
/// it counts them as unanswered.
#[derive(Debug)]
#[must_use]
pub struct Taken {
    tally: Tally,
    request: Option<Arc<Request>>,
}

impl Taken {
    /// The outcomes are there, in the order of the request.
    pub fn settled(mut self, outcomes: &[Outcome]) {
        if let Some(request) = self.request.take() {
            self.tally.settle(&request, |index| outcomes.get(index).map(Name::of));
            for outcome in outcomes {
                if let Outcome::Retry(retry) = outcome {
                    self.tally.retries.of(retry.cause).inc();
                }
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.tally.settle(&request, |_| None);
        }
    }
}

/// An outcome's name, and whether it shows that the definition exists.
struct Name {
    outcome: &'static str,
    definition_exists: bool,
}

impl Name {
    fn of(outcome: &Outcome) -> Self {
        let (outcome, definition_exists) = match outcome {
            Outcome::Decided { decision, .. } => (decided(decision), true),
            Outcome::Error { etag, .. } => ("error", !etag.is_empty()),
            Outcome::Retry(_) => ("retry", false),
        };
        Self { outcome, definition_exists }
    }
}

fn decided(decision: &Decision) -> &'static str {
    match decision {
        Decision::Success => "success",
        Decision::Duplicate { .. } => "duplicate",
        Decision::Suppressed { .. } => "suppressed",
        Decision::Throttled { .. } => "throttled",
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        observation::{Batch, Limits, Observation},
        outcome::Retry,
    };

    fn request(definitions: &[&str]) -> Arc<Request> {
        let of = |path: &&str| Observation {
            definition: (*path).to_owned(),
            ..Observation::of_json(bytes::Bytes::new())
        };
        let observations = definitions.iter().map(of).collect();
        let limits = Limits { observations_max: 1000, observation_bytes_max: 1, json: Default::default() };
        let batch = Batch { organisation: "acme".parse().unwrap(), request_id: String::new(), observations };
        Arc::new(Request { batch, poll: String::new(), limits })
    }

    fn success() -> Outcome {
        Outcome::Decided { decision: Decision::Success, id: Uuid::nil(), etag: "e".into(), bytes: 1 }
    }

    fn count(tally: &Tally, definition: &str, outcome: &'static str) -> u64 {
        tally.outcomes.get(&labels(definition.into(), outcome)).map_or(0, |counter| counter.get())
    }

    #[test]
    fn every_observation_is_counted_once_whatever_becomes_of_it() {
        let tally = Tally::register(&mut Registry::new("ingest", "0"));
        let batch = request(&["a", "a", "b", "nobody"]);
        let retry = Outcome::Retry(Retry::not_kept(Cause::Backlog, "later"));
        tally.take_in(&batch).settled(&[success(), success(), retry.clone(), retry]);
        drop(tally.take_in(&batch));
        assert_eq!(tally.observations.get(), 8);
        assert_eq!(count(&tally, "a", "success"), 2);
        assert_eq!(count(&tally, UNKNOWN, "retry"), 2);
        assert_eq!(count(&tally, "a", UNANSWERED), 2);
        assert_eq!(count(&tally, UNKNOWN, UNANSWERED), 2);
        assert_eq!(tally.retries.of(Cause::Backlog).get(), 2);
    }

    #[test]
    fn so_many_definitions_are_told_apart_and_no_more() {
        let tally = Tally::register(&mut Registry::new("ingest", "0"));
        for number in 0..=DEFINITIONS_MAX {
            tally.take_in(&request(&[&format!("p/{number}")])).settled(&[success()]);
        }
        assert_eq!(count(&tally, &format!("p/{}", DEFINITIONS_MAX - 1), "success"), 1);
        assert_eq!(count(&tally, &format!("p/{DEFINITIONS_MAX}"), "success"), 0);
        assert_eq!(count(&tally, OTHER, "success"), 1);
        // What is known stays known.
        tally.take_in(&request(&["p/0"])).settled(&[success()]);
        assert_eq!(count(&tally, "p/0", "success"), 2);
    }
}
