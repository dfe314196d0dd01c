//! What the gate decides, as a pure function: candidates in request order, what
//! the database held when everything was locked, and out come the decisions and
//! the rows that did not end as presumed.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

use crate::{
    check::{Candidate, FINGERPRINT_UNKNOWN, FileStage},
    definition::Throttle,
    outcome::{Decision, Final},
};

/// A marker's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// How the observation ended.
    pub outcome: Final,
    /// The id that was told.
    pub ingest_id: Option<Uuid>,
    /// Of the content.
    pub fingerprint: i64,
}

/// A unique window's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The accepted observation.
    pub ingest_id: Uuid,
    /// When it was accepted.
    pub accepted_at: SystemTime,
}

/// A throttle counter's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Start of the window it counts for.
    pub window_start: SystemTime,
    /// Acceptances in that window.
    pub used: i64,
}

/// Something found in the database, and whether its row is in the current slot
/// (then nothing was presumed for its key).
#[derive(Clone, Copy, Debug)]
pub struct Found<T> {
    /// The row.
    pub row: T,
    /// Whether it stands in the current slot.
    pub in_current_slot: bool,
}

/// What the database held when all locks were taken.
#[derive(Debug)]
pub struct Seen {
    /// The database's clock, read after the locks.
    pub now: SystemTime,
    /// Markers of others.
    pub markers: HashMap<Uuid, Found<Marker>>,
    /// The latest window of others by key.
    pub windows: HashMap<Uuid, Found<Window>>,
    /// Counters.
    pub counters: HashMap<Uuid, Counter>,
    /// Uploads that were not given up.
    pub uploads: HashSet<Uuid>,
}

impl Seen {
    /// Nothing, at a moment.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self {
            now,
            markers: HashMap::new(),
            windows: HashMap::new(),
            counters: HashMap::new(),
            uploads: HashSet::new(),
        }
    }
}

/// What was presumed: for each key, the first candidate that brings it. Rows
/// say success under that candidate's id. Keys are sorted.
#[derive(Debug, Default)]
pub struct Presumed {
    /// Key, id, fingerprint.
    pub markers: Vec<(Uuid, Uuid, i64)>,
    /// Key and id.
    pub windows: Vec<(Uuid, Uuid)>,
    /// Keys.
    pub counters: Vec<Uuid>,
    /// Ids of stored files. Nothing is presumed of them: they are there or not.
    pub uploads: Vec<Uuid>,
}

impl Presumed {
    /// What to presume for candidates in request order.
    #[must_use]
    pub fn of(candidates: &[&Candidate]) -> Self {
        let mut presumed = Self::default();
        for candidate in candidates {
            if let Some(key) = candidate.marker {
                presumed.markers.push((key, candidate.id, candidate.fingerprint));
            }
            if let Some((key, _)) = candidate.window {
                presumed.windows.push((key, candidate.id));
            }
            if let Some((key, _)) = candidate.throttle {
                presumed.counters.push(key);
            }
            if matches!(candidate.file, Some(FileStage::Stored { .. })) {
                presumed.uploads.push(candidate.id);
            }
        }
        // Stable sorts: of equal keys the first in request order stays.
        presumed.markers.sort_by_key(|row| row.0);
        presumed.markers.dedup_by_key(|row| row.0);
        presumed.windows.sort_by_key(|row| row.0);
        presumed.windows.dedup_by_key(|row| row.0);
        presumed.counters.sort_unstable();
        presumed.counters.dedup();
        presumed.uploads.sort_unstable();
        presumed
    }
}

/// The gate's answer.
#[derive(Debug, Default)]
pub struct Verdict {
    /// One per candidate, in order.
    pub decisions: Vec<Decision>,
    /// Markers to be corrected.
    pub markers: Vec<(Uuid, Marker)>,
    /// Windows to be corrected.
    pub windows: Vec<(Uuid, Window)>,
    /// Counters to be written.
    pub counters: Vec<(Uuid, Counter)>,
}

/// Candidates, by their places, that can't be decided: files whose upload was
/// given up, and unread ones that nothing speaks against.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit(pub Vec<usize>);

/// What is decided if nothing is known of any marker and window, as long as it leaves
/// what was presumed as it is. (The moment does not matter then: nothing is older than
/// these candidates.) `None` as well where a counter or an upload has to be seen.
#[must_use]
pub fn unless_known(candidates: &[&Candidate], presumed: &Presumed) -> Option<Verdict> {
    if !presumed.counters.is_empty() || !presumed.uploads.is_empty() {
        return None;
    }
    let verdict = decide(candidates, presumed, &Seen::at(UNIX_EPOCH)).ok()?;
    (verdict.markers.is_empty() && verdict.windows.is_empty()).then_some(verdict)
}

/// Decides every candidate in request order.
///
/// # Errors
/// If some can't be decided. The verdict on the others would be another one
/// without them: nothing may be kept of this one.
pub fn decide(candidates: &[&Candidate], presumed: &Presumed, seen: &Seen) -> Result<Verdict, Unfit> {
    let mut state = State {
        now: seen.now,
        markers: seen.markers.iter().map(|(key, found)| (*key, found.row)).collect(),
        windows: seen.windows.iter().map(|(key, found)| (*key, found.row)).collect(),
        counters: seen.counters.clone(),
    };
    let mut decisions = Vec::with_capacity(candidates.len());
    let mut unfit = Vec::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let given_up =
            matches!(candidate.file, Some(FileStage::Stored { .. })) && !seen.uploads.contains(&candidate.id);
        match state.decide(candidate).filter(|_| !given_up) {
            Some(decision) => decisions.push(decision),
            None => unfit.push(place),
        }
    }
    if !unfit.is_empty() {
        return Err(Unfit(unfit));
    }
    Ok(Verdict {
        decisions,
        markers: state.marker_corrections(presumed, seen),
        windows: state.window_corrections(presumed, seen),
        counters: state.counter_changes(seen),
    })
}

struct State {
    now: SystemTime,
    markers: HashMap<Uuid, Marker>,
    windows: HashMap<Uuid, Window>,
    counters: HashMap<Uuid, Counter>,
}

impl State {
    /// `None`: not without the bytes.
    fn decide(&mut self, candidate: &Candidate) -> Option<Decision> {
        if let Some(marker) = candidate.marker.and_then(|key| self.markers.get(&key)) {
            let known = |fingerprint| fingerprint != FINGERPRINT_UNKNOWN;
            return Some(Decision::Duplicate {
                original: marker.outcome,
                ingest_id: marker.ingest_id,
                content_differs: marker.fingerprint != candidate.fingerprint
                    && known(marker.fingerprint)
                    && known(candidate.fingerprint),
            });
        }
        let decision = match candidate.file {
            Some(FileStage::Unread) => self.decide_unread(candidate)?,
            Some(FileStage::Stored { .. }) | None => self.decide_new(candidate),
        };
        if let Some(key) = candidate.marker {
            let (outcome, ingest_id) = match &decision {
                Decision::Suppressed { ingest_id } => (Final::Suppressed, Some(*ingest_id)),
                Decision::Throttled { .. } => (Final::Throttled, None),
                Decision::Success | Decision::Duplicate { .. } => (Final::Success, Some(candidate.id)),
            };
            self.markers.insert(key, Marker { outcome, ingest_id, fingerprint: candidate.fingerprint });
        }
        Some(decision)
    }

    /// A file of which no byte was read: throttled if no slot is free, unless it
    /// may be suppressed, which comes first and takes the bytes to see.
    fn decide_unread(&self, candidate: &Candidate) -> Option<Decision> {
        let (key, throttle) = candidate.throttle?;
        if candidate.definition.draft.unique_seconds.is_some() {
            return None;
        }
        let mut counter = self.counters.get(&key).copied();
        let window_ends = self.take_slot(&mut counter, throttle).err()?;
        Some(Decision::Throttled { window_ends })
    }

    fn decide_new(&mut self, candidate: &Candidate) -> Decision {
        if let Some((key, unique_seconds)) = candidate.window
            && let Some(window) = self.windows.get(&key)
            && self.is_open(window, unique_seconds)
        {
            return Decision::Suppressed { ingest_id: window.ingest_id };
        }
        if let Some((key, throttle)) = candidate.throttle {
            let mut counter = self.counters.get(&key).copied();
            if let Err(window_ends) = self.take_slot(&mut counter, throttle) {
                return Decision::Throttled { window_ends };
            }
            self.counters.extend(counter.map(|counter| (key, counter)));
        }
        if let Some((key, _)) = candidate.window {
            self.windows.insert(key, Window { ingest_id: candidate.id, accepted_at: self.now });
        }
        Decision::Success
    }

    /// Less than `unique` ago. A clock that stepped back counts as no time.
    fn is_open(&self, window: &Window, unique_seconds: i64) -> bool {
        let age = self.now.duration_since(window.accepted_at).unwrap_or_default();
        age < Duration::from_secs(unique_seconds.unsigned_abs())
    }

    /// Takes a slot of the window that now is in, or says when that ends. A clock that
    /// stepped back stays in the window that slots were taken of.
    fn take_slot(&self, counter: &mut Option<Counter>, throttle: Throttle) -> Result<(), SystemTime> {
        let period = throttle.period_seconds.unsigned_abs().max(1);
        let seconds = self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let by_clock = UNIX_EPOCH + Duration::from_secs(seconds - seconds % period);
        let window_start = counter.map_or(by_clock, |counter| counter.window_start.max(by_clock));
        let used = counter.filter(|counter| counter.window_start == window_start).map_or(0, |c| c.used);
        if used >= i64::from(throttle.count) {
            return Err(window_start + Duration::from_secs(period));
        }
        *counter = Some(Counter { window_start, used: used + 1 });
        Ok(())
    }

    /// The markers whose row in the current slot does not say what is true. A
    /// marker found in an older slot only is carried over to the current one.
    fn marker_corrections(&self, presumed: &Presumed, seen: &Seen) -> Vec<(Uuid, Marker)> {
        let mut corrections = Vec::new();
        for &(key, id, fingerprint) in &presumed.markers {
            if seen.markers.get(&key).is_some_and(|found| found.in_current_slot) {
                continue;
            }
            let said = Marker { outcome: Final::Success, ingest_id: Some(id), fingerprint };
            match self.markers.get(&key) {
                Some(marker) if *marker != said => corrections.push((key, *marker)),
                _ => {}
            }
        }
        corrections
    }

    /// As for markers; a window that was presumed and not opened is closed by
    /// dating it to the epoch. One opened after another that has ended is dated to now:
    /// its row was inserted earlier, when that one may have been open still.
    fn window_corrections(&self, presumed: &Presumed, seen: &Seen) -> Vec<(Uuid, Window)> {
        let mut corrections = Vec::new();
        for &(key, id) in &presumed.windows {
            let found = seen.windows.get(&key);
            let now = self.windows.get(&key).copied();
            if let Some(found) = found.filter(|found| found.in_current_slot) {
                corrections.extend(now.filter(|now| *now != found.row).map(|now| (key, now)));
                continue;
            }
            match now {
                Some(window) if window.ingest_id == id && found.is_none() => {}
                Some(window) => corrections.push((key, window)),
                None => corrections.push((key, Window { ingest_id: id, accepted_at: UNIX_EPOCH })),
            }
        }
        corrections
    }

    fn counter_changes(&self, seen: &Seen) -> Vec<(Uuid, Counter)> {
        let changed = |(key, counter): &(&Uuid, &Counter)| seen.counters.get(key) != Some(*counter);
        let mut changes: Vec<_> = self.counters.iter().filter(changed).map(|(k, c)| (*k, *c)).collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        changes
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
