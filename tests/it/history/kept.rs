//! Histories in files: that of a run that did not end well is kept, and can be checked
//! once more.

use std::{
    fs::File,
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
};

use sluice_tests::history::{Event, History, check};

use super::recorder::Recorder;

/// Counter-examples that are printed at most.
const SHOWN_MAX: usize = 5;
/// What a history says when all evidence of the end is in it.
pub const GATHERED: &str = "all is gathered";

/// A run's history, which is kept when this is dropped: unless the run ended well.
pub struct Evidence {
    pub recorder: Recorder,
    pub seed: u64,
    pub ended_well: bool,
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if self.ended_well {
            return;
        }
        let target = sluice_tests::program().ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
        let path = target.join(format!("history-{}.jsonl", self.seed));
        let written =
            File::create(&path).and_then(|file| self.recorder.history().write(BufWriter::new(file)));
        println!("SLUICE_HISTORY_SEED={}; the history, {written:?}: {}", self.seed, path.display());
    }
}

/// Prints what the history breaks, and answers how much that is.
pub fn violations(history: &History) -> usize {
    let violations = check(history);
    for violation in violations.iter().take(SHOWN_MAX) {
        println!("{}", violation.explain(history));
    }
    violations.len()
}

/// Checks a kept history once more. A path that is not absolute is one in this repository.
pub fn check_again(path: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let history = History::read(BufReader::new(file)).unwrap();
    let gathered = |event: &Event| matches!(event, Event::Fault { did, .. } if did == GATHERED);
    let is_whole = history.events.iter().any(gathered);
    let note = if is_whole { "" } else { "; the run broke off: what it did not find in the end is no proof" };
    println!("{} events{note}", history.events.len());
    assert_eq!(violations(&history), 0, "violations");
}
