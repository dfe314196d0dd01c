//! The decision against a small model of the contract's rules, over random
//! histories: many batches, a moving clock, slots that roll over. The store in
//! between does what the SQL does.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::definition::{Definition, RawDraft};

const UNIQUE_SECONDS: i64 = 40;
const RETENTION_SECONDS: u64 = 100;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn definition() -> Arc<Definition> {
    let raw = RawDraft { path: "p".into(), ..RawDraft::default() };
    let draft = raw.check(Duration::from_secs(1)).unwrap();
    Arc::new(Definition::of("", draft))
}

/// What a random observation looks like: small numbers, so that they meet.
#[derive(Clone, Debug)]
struct Sketch {
    chkpt: Option<u8>,
    unique: Option<u8>,
    throttled: bool,
    content: i64,
}

fn candidate(sketch: &Sketch, definition: &Arc<Definition>) -> Candidate {
    let key = |domain: u128, n: u8| Uuid::from_u128(domain << 8 | u128::from(n));
    Candidate {
        organisation: "acme".parse().unwrap(),
        definition: definition.clone(),
        id: Uuid::now_v7(),
        identifier: String::new(),
        poll: String::new(),
        task: String::new(),
        media_type: String::new(),
        data: Bytes::new(),
        file: None,
        marker: sketch.chkpt.map(|n| key(1, n)),
        fingerprint: sketch.content,
        window: sketch.unique.map(|n| (key(2, n), UNIQUE_SECONDS)),
        throttle: sketch.throttled.then(|| (key(3, 0), Throttle { count: 3, period_seconds: 10 })),
    }
}

/// The tables, with slots, as the statements treat them.
#[derive(Default)]
struct Store {
    current: usize,
    since: u64,
    markers: [HashMap<Uuid, Marker>; 3],
    windows: [HashMap<Uuid, Window>; 3],
    counters: HashMap<Uuid, Counter>,
}

impl Store {
    fn roll_over(&mut self, now: u64) {
        if now >= self.since + RETENTION_SECONDS / 2 {
            self.current = (self.current + 1) % 3;
            self.since = now;
            self.markers[self.current].clear();
            self.windows[self.current].clear();
        }
    }

    fn found<T: Copy>(
        &self,
        slots: &[HashMap<Uuid, T>; 3],
        key: Uuid,
        newer: fn(&T, &T) -> bool,
    ) -> Option<Found<T>> {
        let mut rows = slots.iter().filter_map(|slot| slot.get(&key).copied());
        let first = rows.next()?;
        let row = rows.fold(first, |best, row| if newer(&row, &best) { row } else { best });
        Some(Found { row, in_current_slot: slots[self.current].contains_key(&key) })
    }

    fn publish(&mut self, now: u64, batch: &[&Candidate]) -> Vec<Decision> {
        let presumed = Presumed::of(batch);
        let markers = presumed.markers.iter();
        let windows = presumed.windows.iter();
        let seen = Seen {
            now: at(now),
            markers: markers
                .filter_map(|row| Some((row.0, self.found(&self.markers, row.0, |_, _| false)?)))
                .collect(),
            windows: windows
                .filter_map(|row| {
                    Some((row.0, self.found(&self.windows, row.0, |a, b| a.accepted_at > b.accepted_at)?))
                })
                .collect(),
            counters: presumed
                .counters
                .iter()
                .map(|key| {
                    let zero = Counter { window_start: UNIX_EPOCH, used: 0 };
                    (*key, self.counters.get(key).copied().unwrap_or(zero))
                })
                .collect(),
            uploads: HashSet::new(),
        };
        let verdict = decide(batch, &presumed, &seen).unwrap();
        if seen.markers.is_empty()
            && seen.windows.is_empty()
            && let Some(guessed) = unless_known(batch, &presumed)
        {
            assert_eq!(guessed.decisions, verdict.decisions);
            assert!(verdict.markers.is_empty() && verdict.windows.is_empty() && verdict.counters.is_empty());
        }
        for &(key, id, fingerprint) in &presumed.markers {
            let marker = Marker { outcome: Final::Success, ingest_id: Some(id), fingerprint };
            self.markers[self.current].entry(key).or_insert(marker);
        }
        for &(key, ingest_id) in &presumed.windows {
            let window = Window { ingest_id, accepted_at: at(now) };
            self.windows[self.current].entry(key).or_insert(window);
        }
        self.markers[self.current].extend(verdict.markers.iter().copied());
        self.windows[self.current].extend(verdict.windows.iter().copied());
        self.counters.extend(verdict.counters.iter().copied());
        verdict.decisions
    }
}

/// The contract's rules, told as simply as they can be.
#[derive(Default)]
struct Model {
    /// chkpt → (how it ended, id told, content).
    processed: BTreeMap<u8, (Final, Option<Uuid>, i64)>,
    /// unique key → every acceptance.
    accepted: BTreeMap<u8, Vec<(u64, Uuid)>>,
    /// Acceptances of the throttled definition.
    throttled: Vec<u64>,
}

impl Model {
    fn publish(&mut self, now: u64, sketch: &Sketch, id: Uuid) -> Decision {
        if let Some((original, ingest_id, content)) = sketch.chkpt.and_then(|n| self.processed.get(&n)) {
            return Decision::Duplicate {
                original: *original,
                ingest_id: *ingest_id,
                content_differs: *content != sketch.content,
            };
        }
        let (decision, ended, told) = self.judge(now, sketch, id);
        if let Some(chkpt) = sketch.chkpt {
            self.processed.insert(chkpt, (ended, told, sketch.content));
        }
        decision
    }

    fn judge(&mut self, now: u64, sketch: &Sketch, id: Uuid) -> (Decision, Final, Option<Uuid>) {
        let lately = sketch.unique.and_then(|n| {
            let acceptances = self.accepted.get(&n)?;
            acceptances.iter().find(|(when, _)| now - when < UNIQUE_SECONDS as u64).map(|(_, id)| *id)
        });
        if let Some(ingest_id) = lately {
            return (Decision::Suppressed { ingest_id }, Final::Suppressed, Some(ingest_id));
        }
        if sketch.throttled {
            let window = |when: u64| (1_700_000_000 + when) / 10;
            let used = self.throttled.iter().filter(|when| window(**when) == window(now)).count();
            if used >= 3 {
                let ends = UNIX_EPOCH + Duration::from_secs((window(now) + 1) * 10);
                return (Decision::Throttled { window_ends: ends }, Final::Throttled, None);
            }
            self.throttled.push(now);
        }
        if let Some(n) = sketch.unique {
            self.accepted.entry(n).or_default().push((now, id));
        }
        (Decision::Success, Final::Success, Some(id))
    }
}

fn any_sketch() -> impl Strategy<Value = Sketch> {
    let unique = prop::option::of(0..5_u8);
    (prop::option::of(0..40_u8), unique, any::<bool>(), 1..3_i64)
        .prop_map(|(chkpt, unique, throttled, content)| Sketch { chkpt, unique, throttled, content })
}

proptest! {
    #[test]
    fn agrees_with_the_model_within_the_retention(
        batches in prop::collection::vec((0..12_u64, prop::collection::vec(any_sketch(), 1..8)), 1..9)
    ) {
        // At most 8 pauses below 12 s: all within the retention of 100 s, over
        // which slots roll once.
        let definition = definition();
        let (mut store, mut model, mut now) = (Store::default(), Model::default(), 0);
        for (pause, sketches) in batches {
            now += pause;
            store.roll_over(now);
            let candidates: Vec<_> = sketches.iter().map(|sketch| candidate(sketch, &definition)).collect();
            let borrowed: Vec<&Candidate> = candidates.iter().collect();
            let decided = store.publish(now, &borrowed);
            let expected: Vec<_> =
                sketches.iter().zip(&candidates).map(|(sketch, c)| model.publish(now, sketch, c.id)).collect();
            prop_assert_eq!(decided, expected);
        }
    }

    #[test]
    fn no_window_is_ever_shortened_by_the_clean_up(
        pauses in prop::collection::vec(0..60_u64, 1..40)
    ) {
        let definition = definition();
        let sketch = Sketch { chkpt: None, unique: Some(1), throttled: false, content: 0 };
        let (mut store, mut now, mut last) = (Store::default(), 0, None);
        for pause in pauses {
            now += pause;
            store.roll_over(now);
            let candidate = candidate(&sketch, &definition);
            let decided = store.publish(now, &[&candidate]);
            let open = last.is_some_and(|when| now - when < UNIQUE_SECONDS as u64);
            prop_assert_eq!(decided[0] == Decision::Success, !open);
            if !open {
                last = Some(now);
            }
        }
    }
}

#[test]
fn the_first_in_request_order_is_presumed() {
    let definition = definition();
    let sketch = Sketch { chkpt: Some(1), unique: Some(1), throttled: true, content: 0 };
    let (first, second) = (candidate(&sketch, &definition), candidate(&sketch, &definition));
    let presumed = Presumed::of(&[&first, &second]);
    assert_eq!(presumed.markers, [(first.marker.unwrap(), first.id, 0)]);
    assert_eq!(presumed.windows, [(first.window.unwrap().0, first.id)]);
    assert_eq!(presumed.counters.len(), 1);
}

#[test]
fn without_having_seen_anything_is_decided_what_needs_no_correction_and_no_counter() {
    let definition = definition();
    let decided = |sketches: &[(Option<u8>, Option<u8>, bool)]| {
        let candidates: Vec<_> = sketches
            .iter()
            .map(|&(chkpt, unique, throttled)| Sketch { chkpt, unique, throttled, content: 0 })
            .map(|sketch| candidate(&sketch, &definition))
            .collect();
        let candidates: Vec<_> = candidates.iter().collect();
        let verdict = unless_known(&candidates, &Presumed::of(&candidates))?;
        Some(verdict.decisions.iter().map(|decision| *decision == Decision::Success).collect::<Vec<_>>())
    };
    assert_eq!(decided(&[(None, None, false)]), Some(vec![true]));
    assert_eq!(decided(&[(Some(1), Some(1), false), (Some(2), Some(2), false)]), Some(vec![true, true]));
    assert_eq!(decided(&[(Some(1), None, false), (Some(1), None, false)]), Some(vec![true, false]));
    assert_eq!(decided(&[(None, Some(1), false), (None, Some(1), false)]), Some(vec![true, false]));
    let suppressed_with_a_mark = [(None, Some(1), false), (Some(1), Some(1), false)];
    assert_eq!(decided(&suppressed_with_a_mark), None, "its marker says that it was suppressed");
    assert_eq!(decided(&[(None, None, false), (None, None, true)]), None, "a counter");
    let mut file =
        candidate(&Sketch { chkpt: None, unique: None, throttled: false, content: 0 }, &definition);
    file.file = Some(FileStage::Stored { bytes: 1 });
    assert!(unless_known(&[&file], &Presumed::of(&[&file])).is_none(), "an upload");
}

fn nothing() -> Seen {
    Seen::at(at(0))
}

#[test]
fn the_common_case_needs_no_correction() {
    let definition = definition();
    let sketch = Sketch { chkpt: Some(1), unique: Some(1), throttled: false, content: 0 };
    let candidate = candidate(&sketch, &definition);
    let verdict = decide(&[&candidate], &Presumed::of(&[&candidate]), &nothing()).unwrap();
    assert_eq!(verdict.decisions, [Decision::Success]);
    assert!(verdict.markers.is_empty() && verdict.windows.is_empty() && verdict.counters.is_empty());
}

/// Rows are inserted before the moment of the decision: what follows it may be waited for.
#[test]
fn a_window_opened_after_one_that_has_ended_begins_with_the_decision() {
    let candidate = candidate(&Sketch { unique: Some(1), ..PLAIN }, &definition());
    let (key, _) = candidate.window.unwrap();
    let now = at(UNIQUE_SECONDS as u64);
    let row = Window { ingest_id: Uuid::now_v7(), accepted_at: at(0) };
    let before = Found { row, in_current_slot: false };
    let seen = Seen { windows: [(key, before)].into(), ..Seen::at(now) };
    let verdict = decide(&[&candidate], &Presumed::of(&[&candidate]), &seen).unwrap();
    assert_eq!(verdict.decisions, [Decision::Success]);
    assert_eq!(verdict.windows, [(key, Window { ingest_id: candidate.id, accepted_at: now })]);
}

/// An observation as a file at some stage.
fn file(sketch: &Sketch, stage: FileStage) -> Candidate {
    Candidate { file: Some(stage), ..candidate(sketch, &definition()) }
}

const PLAIN: Sketch = Sketch { chkpt: None, unique: None, throttled: false, content: 1 };
const STORED: FileStage = FileStage::Stored { bytes: 7 };

#[test]
fn a_file_is_decided_like_an_observation_unless_its_upload_was_given_up() {
    let (first, other, second) =
        (file(&PLAIN, STORED), candidate(&PLAIN, &definition()), file(&PLAIN, STORED));
    let batch = [&first, &other, &second];
    let presumed = Presumed::of(&batch);
    let mut sorted = vec![first.id, second.id];
    sorted.sort_unstable();
    assert_eq!(presumed.uploads, sorted);
    let seen = |ids: &[Uuid]| Seen { uploads: ids.iter().copied().collect(), ..nothing() };
    assert_eq!(decide(&batch, &presumed, &seen(&[first.id])).unwrap_err(), Unfit(vec![2]));
    assert_eq!(decide(&batch, &presumed, &seen(&[])).unwrap_err(), Unfit(vec![0, 2]));
    let verdict = decide(&batch, &presumed, &seen(&sorted)).unwrap();
    assert_eq!(verdict.decisions, [Decision::Success, Decision::Success, Decision::Success]);
}

#[test]
fn a_clock_that_stepped_back_opens_no_throttle_window_anew() {
    let definition = definition();
    let throttled = candidate(&Sketch { throttled: true, ..PLAIN }, &definition);
    let decided = |now: SystemTime, used: i64| {
        let counters = throttled.throttle.map(|(key, _)| (key, Counter { window_start: at(0), used }));
        let seen = Seen { now, counters: counters.into_iter().collect(), ..nothing() };
        decide(&[&throttled], &Presumed::of(&[&throttled]), &seen).unwrap()
    };
    let before = at(0) - Duration::from_secs(1);
    // The window of 10 seconds that the slots were taken of, filled to its last.
    let last = decided(before, 2);
    assert_eq!(last.decisions, [Decision::Success]);
    assert_eq!(last.counters[0].1, Counter { window_start: at(0), used: 3 });
    assert_eq!(decided(before, 3).decisions, [Decision::Throttled { window_ends: at(10) }]);
    assert_eq!(decided(at(10), 3).decisions, [Decision::Success], "the next one");
}

/// What is decided of one unread file when so many slots are taken.
fn unread(sketch: &Sketch, used: i64, definition: RawDraft) -> Result<Verdict, Unfit> {
    let draft = definition.check(Duration::from_secs(60)).unwrap();
    let definition = Arc::new(Definition::of("", draft));
    let unread = Candidate { definition, fingerprint: 0, ..file(sketch, FileStage::Unread) };
    let mut seen = nothing();
    let counter = Counter { window_start: at(0), used };
    seen.counters.extend(unread.throttle.map(|(key, _)| (key, counter)));
    decide(&[&unread], &Presumed::of(&[&unread]), &seen)
}

#[test]
fn of_an_unread_file_only_what_is_certain_is_decided() {
    let plain = || RawDraft { path: "p".into(), ..RawDraft::default() };
    let throttled = Sketch { chkpt: Some(1), throttled: true, ..PLAIN };
    assert_eq!(unread(&PLAIN, 0, plain()).unwrap_err(), Unfit(vec![0]), "it is never accepted");
    assert_eq!(unread(&throttled, 2, plain()).unwrap_err(), Unfit(vec![0]), "a slot is free");
    let verdict = unread(&throttled, 3, plain()).unwrap();
    assert!(matches!(verdict.decisions[..], [Decision::Throttled { .. }]), "{verdict:?}");
    let [(_, marker)] = verdict.markers[..] else { panic!("{verdict:?}") };
    assert_eq!((marker.outcome, marker.fingerprint), (Final::Throttled, FINGERPRINT_UNKNOWN));
    assert!(verdict.counters.is_empty(), "it takes no slot");
    let unique = RawDraft { unique: Some(Ok(1)), ..plain() };
    assert_eq!(unread(&throttled, 3, unique).unwrap_err(), Unfit(vec![0]), "suppressed would come first");
}

#[test]
fn content_that_nobody_read_never_differs() {
    let marked = |content| candidate(&Sketch { chkpt: Some(1), content, ..PLAIN }, &definition());
    for (known, given, differs) in [(1, 2, true), (1, 1, false), (0, 2, false), (1, 0, false)] {
        let candidate = marked(given);
        let row = Marker { outcome: Final::Throttled, ingest_id: None, fingerprint: known };
        let mut seen = nothing();
        seen.markers.insert(candidate.marker.unwrap(), Found { row, in_current_slot: true });
        let verdict = decide(&[&candidate], &Presumed::of(&[&candidate]), &seen).unwrap();
        let [Decision::Duplicate { content_differs, .. }] = verdict.decisions[..] else { panic!() };
        assert_eq!(content_differs, differs, "{known} {given}");
    }
}
