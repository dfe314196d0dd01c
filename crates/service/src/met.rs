//! A limit on callers that is met: each time is counted, and who met it is on the log, if
//! that is known, at most once a minute each. No metric's label holds an organisation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{OrganisationId, audit, metrics::Counter};

/// How long an organisation that was named is not named again.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Most organisations to remember; with more of them, some are not named.
const REMEMBERED_MAX: usize = 10_000;

/// When organisations were named last, by whichever limit. One per process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named(Arc<Mutex<HashMap<OrganisationId, Instant>>>);

impl Named {
    /// Whether it is time to name one, and if so, that it is done.
    fn is_due(&self, organisation: &OrganisationId, now: Instant) -> bool {
        // Whole after every step.
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |last: &Instant| now.duration_since(*last) >= TOLD_EVERY;
        match named.get_mut(organisation) {
            Some(last) if is_old(last) => *last = now,
            Some(_) => return false,
            None => {
                if named.len() >= REMEMBERED_MAX {
                    named.retain(|_, last| !is_old(last));
                }
                if named.len() >= REMEMBERED_MAX {
                    return false;
                }
                named.insert(organisation.clone(), now);
            }
        }
        true
    }
}

/// One limit, by the name of its setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limit {
    name: &'static str,
    refused: Counter,
    named: Named,
}

impl Limit {
    pub(crate) fn new(name: &'static str, refused: Counter, named: &Named) -> Self {
        Self { name, refused, named: named.clone() }
    }

    /// A caller is turned away; of an organisation, if that is known.
    pub(crate) fn met(&self, organisation: Option<&OrganisationId>) {
        self.refused.inc();
        if let Some(organisation) = organisation
            && self.named.is_due(organisation, Instant::now())
        {
            audit::limited(organisation, self.name);
        }
    }

    /// How often it was met.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.refused.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_at_most_once_a_minute() {
        let (named, now) = (Named::default(), Instant::now());
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        assert!(named.is_due(&acme, now));
        assert!(!named.is_due(&acme, now + TOLD_EVERY / 2));
        assert!(named.is_due(&globex, now));
        assert!(named.is_due(&acme, now + TOLD_EVERY));
        assert!(!named.is_due(&acme, now + TOLD_EVERY * 3 / 2));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (named, now) = (Named::default(), Instant::now());
        let organisation = |number: usize| format!("o{number}").parse().unwrap();
        for number in 0..REMEMBERED_MAX {
            assert!(named.is_due(&organisation(number), now));
        }
        let another = organisation(REMEMBERED_MAX);
        assert!(!named.is_due(&another, now));
        assert!(named.is_due(&another, now + TOLD_EVERY), "the old ones are forgotten");
        assert_eq!(named.0.lock().unwrap().len(), 1);
    }
}
