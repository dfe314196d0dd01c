//! What callers have been told so far, since nobody proves anything who gets nothing done: the
//! nemesis waits for it between its steps, and the run goes on until there is enough of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sluice_tests::history::{Answer, Call, Did, Event, Outcome, Sent, Told};

use super::{
    observations::{ORGANISATIONS, PATHS},
    recorder::Recorder,
};

/// Observations that each replica of ingest said `success` to.
#[derive(Clone, Default)]
pub struct Served(Arc<[AtomicUsize; 2]>);

impl Served {
    pub fn add(&self, replica: usize, fresh: usize) {
        self.0[replica].fetch_add(fresh, Relaxed);
    }

    fn get(&self) -> [usize; 2] {
        [0, 1].map(|replica| self.0[replica].load(Relaxed))
    }
}

/// What is counted beside outcomes.
const LISTS: &str = "lists with something in them";
const WALKS: &str = "walks to the end with something in them";
const LOOKS: &str = "looks at a result";
const ACKNOWLEDGEMENTS: &str = "acknowledgements that changed something";
const FOUND_AGAIN: &str = "lost answers that a duplicate told later";

/// How much of each there has to be in a run, beside fresh successes of each replica, and
/// under each definition of each organisation.
const ENOUGH: [(&str, usize); 11] = [
    ("Suppressed", 50),
    ("Throttled", 50),
    ("Duplicate", 50),
    ("Error", 20),
    ("Success over Stream", 50),
    ("Success over File", 10),
    (LISTS, 50),
    (WALKS, 30),
    (LOOKS, 50),
    (ACKNOWLEDGEMENTS, 50),
    (FOUND_AGAIN, 3),
];
const ENOUGH_OF_A_REPLICA: usize = 100;
const ENOUGH_OF_A_DEFINITION: usize = 10;
/// How much there has to be between two faults.
const GOES_ON: [(&str, usize); 2] = [(LISTS, 3), (ACKNOWLEDGEMENTS, 3)];
const GOES_ON_OF_A_REPLICA: usize = 10;

/// For how long something may be missing that has to come, and how often that is looked at.
const WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// By what it is.
type Counts = BTreeMap<String, usize>;

/// What counts of a history's events, which are looked at once each.
#[derive(Default)]
struct Tally {
    seen: usize,
    counts: Counts,
    /// Marks that a final outcome was told of, and those whose answer was lost before.
    told: BTreeSet<String>,
    lost: BTreeSet<String>,
}

/// What of it there was at some moment.
pub struct Moment {
    counts: Counts,
    served: [usize; 2],
}

/// What came of everything since a moment.
pub struct Progress {
    recorder: Recorder,
    served: Served,
    tally: Mutex<Tally>,
}

impl Progress {
    /// From now on.
    pub fn new(recorder: &Recorder, served: &Served) -> Self {
        let tally = Tally { seen: recorder.since(0).len(), ..Tally::default() };
        Self { recorder: recorder.clone(), served: served.clone(), tally: Mutex::new(tally) }
    }

    pub fn moment(&self) -> Moment {
        let mut tally = self.tally.lock().unwrap();
        for event in self.recorder.since(tally.seen) {
            tally.seen += 1;
            if let Event::Call(call) = &event {
                tally.add(call);
            }
        }
        Moment { counts: tally.counts.clone(), served: self.served.get() }
    }

    /// What nobody did since, that somebody has to do between two faults.
    pub fn missing_since(&self, before: &Moment) -> Vec<String> {
        let now = self.moment();
        let of = |moment: &Moment, what| moment.counts.get(what).copied().unwrap_or(0);
        let mut missing: Vec<_> = GOES_ON
            .into_iter()
            .filter(|(what, least)| of(&now, *what) < of(before, *what) + least)
            .map(|(what, _)| what.to_owned())
            .collect();
        for replica in [0, 1] {
            if now.served[replica] < before.served[replica] + GOES_ON_OF_A_REPLICA {
                missing.push(format!("successes of ingest {replica}"));
            }
        }
        missing
    }
}

impl Moment {
    /// Acceptances under the definitions of a path.
    pub fn successes_of(&self, path: &str) -> usize {
        let counts =
            ORGANISATIONS.map(|organisation| self.counts.get(&success_of(organisation, path)).copied());
        counts.into_iter().flatten().sum()
    }

    /// What is still too little to prove anything.
    pub fn too_few(&self) -> Vec<String> {
        let definitions = ORGANISATIONS.into_iter().flat_map(|organisation| {
            PATHS.map(|path| (success_of(organisation, path), ENOUGH_OF_A_DEFINITION))
        });
        let counted = ENOUGH.map(|(what, least)| (what.to_owned(), least)).into_iter().chain(definitions);
        let counted =
            counted.map(|(what, least)| (self.counts.get(&what).copied().unwrap_or(0), least, what));
        let served = self.served.iter().enumerate();
        let served = served.map(|(replica, served)| {
            (*served, ENOUGH_OF_A_REPLICA, format!("successes of ingest {replica}"))
        });
        counted
            .chain(served)
            .filter(|(count, least, _)| count < least)
            .map(|(count, least, what)| format!("{what}: {count} of {least}"))
            .collect()
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>7} {what}")?;
        }
        for (replica, served) in self.served.iter().enumerate() {
            writeln!(f, "{served:>7} Success of ingest {replica}")?;
        }
        Ok(())
    }
}

fn success_of(organisation: &str, path: &str) -> String {
    format!("Success of {organisation} {path}")
}

/// By what a resend is recognised, and that it is one.
fn mark(call: &Call, request_id: &str, sent: &Sent) -> Option<String> {
    let mark = if sent.chkpt.is_empty() { request_id } else { &sent.chkpt };
    (!mark.is_empty()).then(|| format!("{} {} {mark} {}", call.organisation, sent.definition, sent.nonce))
}

impl Tally {
    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, call: &Call) {
        match &call.did {
            Did::Publish { via, request_id, sent, told } => {
                for (at, sent) in sent.iter().enumerate() {
                    let told = told.said().map(|told| &told[at]);
                    if let Some(Told { outcome: Outcome::Success, .. }) = told {
                        self.count(format!("Success over {via:?}"));
                        self.count(success_of(&call.organisation, &sent.definition));
                    }
                    self.add_outcome(mark(call, request_id, sent), told);
                }
            }
            Did::List { found: Answer::Said(found), whole, .. } if !found.is_empty() => {
                self.count(LISTS);
                if *whole {
                    self.count(WALKS);
                }
            }
            Did::Get { found: Answer::Said(Some(_)), .. }
            | Did::Download { found: Answer::Said(Some(_)), .. } => self.count(LOOKS),
            Did::Acknowledge { changed: Answer::Said(Some(changed)), .. } if !changed.is_empty() => {
                self.count(ACKNOWLEDGEMENTS);
            }
            _ => {}
        }
    }

    fn add_outcome(&mut self, mark: Option<String>, told: Option<&Told>) {
        let outcome = told.map(|told| told.outcome);
        self.count(outcome.map_or("no answer".into(), |outcome| format!("{outcome:?}")));
        let Some(mark) = mark else { return };
        match told {
            None | Some(Told { outcome: Outcome::OutcomeUnknown, .. }) => {
                if !self.told.contains(&mark) {
                    self.lost.insert(mark);
                }
            }
            Some(Told { outcome: Outcome::NotKept | Outcome::Error, .. }) => {}
            Some(told) => {
                // Of the same content, that is: nobody else sends that.
                let is_own = told.outcome == Outcome::Duplicate && told.reason == "CHKPT";
                if self.lost.remove(&mark) && is_own && told.original == Some(Outcome::Success) {
                    self.count(FOUND_AGAIN);
                }
                self.told.insert(mark);
            }
        }
    }
}

/// Waits until nothing is missing, however slow the machine is.
///
/// # Panics
/// If something is for too long; the message says what.
pub async fn until_nothing(missing: impl Fn() -> Vec<String>) {
    let since = Instant::now();
    loop {
        let missing = missing();
        if missing.is_empty() {
            return;
        }
        assert!(since.elapsed() < WITHIN, "still missing after {WITHIN:?}: {missing:?}");
        tokio::time::sleep(POLL).await;
    }
}
