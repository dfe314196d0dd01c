//! Histories that are right: a gate and a shelf as simple as can be, driven by a
//! list of steps, on a clock of their own. Calls overlap and answers get lost as
//! the steps say.

use std::collections::{BTreeMap, HashMap};

use crate::history::{
    Answer, Call, Data, Did, Event, GateRow, History, KeptRow, Kind, Labels, Micros, Outcome, Record, Rules,
    SECOND, Sent, State, Told, Via,
};

pub const ORGANISATIONS: [&str; 2] = ["acme", "globex"];
/// The definitions; what is published under the last one is an error.
pub const KINDS: [&str; 5] = ["plain", "once", "few", "both", "bad"];
/// How many polls there are.
pub const POLLS: u64 = 3;
const MILLISECOND: Micros = 1000;

/// What becomes of a call on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Told,
    /// It is done and the answer is lost.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// It is told that nothing was kept.
    NotKept,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub kind: usize,
    pub chkpt: Option<u8>,
    pub key: u8,
}

/// What one caller does. `pick` chooses among all results there are.
#[derive(Clone, Debug)]
pub enum Step {
    Publish { organisation: usize, request: Option<u8>, items: Vec<Item>, fate: Fate },
    Resend { pick: usize, fate: Fate },
    List { organisation: usize, all: bool, poll: Option<u8> },
    Look { organisation: usize, pick: usize, download: bool },
    Acknowledge { organisation: usize, picks: Vec<usize>, fate: Fate },
}

#[derive(Clone)]
struct Result {
    owner: usize,
    record: Record,
}

/// The services.
#[derive(Default)]
pub struct Model {
    events: Vec<Event>,
    now: Micros,
    sent: u64,
    requests: Vec<(usize, String, Vec<Sent>)>,
    markers: HashMap<(usize, String), (Outcome, String, Data)>,
    windows: HashMap<(usize, String, String), (String, Micros)>,
    counters: HashMap<(usize, String), (Micros, u64)>,
    results: Vec<Result>,
}

impl Model {
    /// What comes of these steps; each takes place so many milliseconds after the
    /// one before, in a call that begins and ends that many earlier and later.
    pub fn run(steps: &[(Step, i64, i64)]) -> History {
        let mut model = Self { now: 1_000_000 * SECOND, ..Self::default() };
        for organisation in ORGANISATIONS {
            model.events.extend(rules(organisation).into_iter().map(Event::Rules));
        }
        for (number, (step, after, around)) in steps.iter().enumerate() {
            model.now += after * MILLISECOND;
            let (organisation, did) = model.step(step, number);
            let around = around * MILLISECOND;
            model.events.push(Event::Call(Call {
                process: number.to_string(),
                organisation: ORGANISATIONS[organisation].into(),
                began: model.now - around,
                ended: model.now + around,
                did,
            }));
        }
        model.end()
    }

    fn step(&mut self, step: &Step, number: usize) -> (usize, Did) {
        match step {
            Step::Publish { organisation, request, items, fate } => {
                let sent: Vec<_> = items.iter().map(|item| self.sent(*organisation, item)).collect();
                let request = request.map(|id| format!("request-{id}")).unwrap_or_default();
                self.requests.push((*organisation, request.clone(), sent.clone()));
                (*organisation, self.publish(*organisation, request, sent, *fate, number))
            }
            Step::Resend { pick, fate } => {
                let earlier = self.requests.get(pick % self.requests.len().max(1)).cloned();
                let (organisation, request, mut sent) = earlier.unwrap_or_default();
                // Without a mark, a resend would be another observation.
                sent.retain(|sent| !request.is_empty() || !sent.chkpt.is_empty());
                (organisation, self.publish(organisation, request, sent, *fate, number))
            }
            Step::List { organisation, all, poll } => {
                let states =
                    if *all { vec![State::Available, State::Consumed] } else { vec![State::Available] };
                let poll = poll.map(|number| format!("poll-{number}"));
                let own = self.results.iter().filter(|r| r.owner == *organisation).map(|r| &r.record);
                let of_poll = own.filter(|r| poll.as_ref().is_none_or(|poll| r.labels.poll == *poll));
                let found = of_poll.filter(|r| states.contains(&r.state)).cloned().collect();
                let found = Answer::Said(found);
                (*organisation, Did::List { states: states.clone(), poll, whole: true, found })
            }
            Step::Look { organisation, pick, download } => {
                let result = self.results.get(pick % self.results.len().max(1)).cloned();
                let id = result.as_ref().map_or("unknown".into(), |r| r.record.id.clone());
                let own = result.filter(|r| r.owner == *organisation).map(|r| r.record);
                let did = if *download {
                    Did::Download { id, found: Answer::Said(own.map(|record| record.data)) }
                } else {
                    Did::Get { id, found: Answer::Said(own) }
                };
                (*organisation, did)
            }
            Step::Acknowledge { organisation, picks, fate } => {
                (*organisation, self.acknowledge(*organisation, picks, *fate))
            }
        }
    }

    fn sent(&mut self, organisation: usize, item: &Item) -> Sent {
        self.sent += 1;
        let is_unique = matches!(KINDS[item.kind], "once" | "both");
        Sent {
            definition: KINDS[item.kind].into(),
            chkpt: item.chkpt.map(|chkpt| format!("chkpt-{chkpt}")).unwrap_or_default(),
            nonce: format!("{}-{}", ORGANISATIONS[organisation], self.sent),
            key: is_unique.then(|| format!("key-{}", item.key)),
            labels: Labels {
                poll: format!("poll-{}", self.sent % POLLS),
                task: format!("task-{}", self.sent),
                r#type: "application/json".into(),
            },
            data: Data { md5: format!("md5-{}", self.sent), size: self.sent },
        }
    }

    fn publish(
        &mut self,
        organisation: usize,
        request_id: String,
        sent: Vec<Sent>,
        fate: Fate,
        number: usize,
    ) -> Did {
        let lost = || Answer::Unknown("lost".into());
        let told = match fate {
            Fate::RequestLost => lost(),
            Fate::NotKept => Answer::Said(sent.iter().map(|_| told(Outcome::NotKept, "")).collect()),
            Fate::Told | Fate::AnswerLost => {
                let mut rows = BTreeMap::new();
                let decide = |sent| self.decide(organisation, &request_id, sent, &mut rows);
                let all: Vec<_> = sent.iter().map(decide).collect();
                let accepted = all.iter().filter(|told| told.outcome == Outcome::Success).count() as u64;
                let organisation = ORGANISATIONS[organisation].to_owned();
                rows.insert("outbox".into(), Kind::Outbox { organisation, results: accepted });
                for row in rows.into_values() {
                    let (transaction, now) = (number.to_string(), self.now);
                    let row = GateRow { transaction, began: now, at: now, row };
                    self.events.push(Event::Gate(row));
                }
                if fate == Fate::Told { Answer::Said(all) } else { lost() }
            }
        };
        Did::Publish { via: Via::Batch, request_id, sent, told }
    }

    fn decide(
        &mut self,
        organisation: usize,
        request_id: &str,
        sent: &Sent,
        rows: &mut BTreeMap<String, Kind>,
    ) -> Told {
        if sent.definition == "bad" {
            return told(Outcome::Error, "");
        }
        let mark = match (sent.chkpt.as_str(), request_id) {
            ("", "") => None,
            ("", id) => Some(format!("{} {id} {}", sent.definition, sent.nonce)),
            (chkpt, _) => Some(format!("{} {chkpt}", sent.definition)),
        };
        let mark = mark.map(|mark| (organisation, mark));
        if let Some((original, id, data)) = mark.as_ref().and_then(|mark| self.markers.get(mark)) {
            let reason = if *data == sent.data { "CHKPT" } else { "CONTENT_DIFFERS" };
            let original = Some(*original);
            return Told { reason: reason.into(), original, ..told(Outcome::Duplicate, id) };
        }
        let told = self.decide_new(organisation, sent, rows);
        // All that a throttle counts has a marker.
        let is_counted = matches!(sent.definition.as_str(), "few" | "both");
        let key = match &mark {
            Some(mark) => Some(format!("marker {mark:?}")),
            None => is_counted.then(|| format!("marker {}", sent.nonce)),
        };
        if let Some(key) = key {
            let row = Kind::Marker { key: key.clone(), outcome: told.outcome, id: told.id.clone() };
            rows.insert(key, row);
        }
        if let Some(mark) = mark {
            self.markers.insert(mark, (told.outcome, told.id.clone(), sent.data.clone()));
        }
        told
    }

    fn decide_new(&mut self, organisation: usize, sent: &Sent, rows: &mut BTreeMap<String, Kind>) -> Told {
        let rules = rules(ORGANISATIONS[organisation]);
        let rules = rules.into_iter().find(|rules| rules.definition == sent.definition);
        let (unique, throttle) = rules.map_or((None, None), |rules| (rules.unique, rules.throttle));
        let definition = || sent.definition.clone();
        let window = sent.key.clone().map(|key| (organisation, definition(), key));
        if let (Some(window), Some(unique)) = (&window, unique)
            && let Some((id, at)) = self.windows.get(window)
            && self.now - at < unique
        {
            return told(Outcome::Suppressed, id);
        }
        if let Some((count, period)) = throttle {
            let start = self.now / period * period;
            let counter = self.counters.entry((organisation, definition())).or_default();
            if counter.0 != start {
                *counter = (start, 0);
            }
            if counter.1 == count {
                return Told { window_ends: Some(start + period), ..told(Outcome::Throttled, "") };
            }
            counter.1 += 1;
            let key = counter_key(ORGANISATIONS[organisation], &sent.definition);
            let row = Kind::Counter { key: key.clone(), window_start: start, used: counter.1 };
            rows.insert(key, row);
        }
        let id = format!("id-{:04}", self.results.len());
        if let Some(window) = window {
            let key = format!("{window:?}");
            let row = Kind::Window { key: key.clone(), id: id.clone(), accepted_at: self.now };
            rows.insert(key, row);
            self.windows.insert(window, (id.clone(), self.now));
        }
        let record = Record {
            id: id.clone(),
            organisation: ORGANISATIONS[organisation].into(),
            definition: definition(),
            nonce: sent.nonce.clone(),
            labels: sent.labels.clone(),
            data: sent.data.clone(),
            state: State::Available,
            date_created: self.now + MILLISECOND,
            date_consumed: None,
        };
        self.results.push(Result { owner: organisation, record });
        told(Outcome::Success, &id)
    }

    fn acknowledge(&mut self, organisation: usize, picks: &[usize], fate: Fate) -> Did {
        let (count, now) = (self.results.len().max(1), self.now);
        let mut picks: Vec<_> = picks.iter().map(|pick| pick % count).collect();
        picks.sort_unstable();
        picks.dedup();
        let mut ids = Vec::new();
        let mut changed = Vec::new();
        for pick in picks {
            let Some(result) = self.results.get_mut(pick) else { continue };
            let id = result.record.id.clone();
            ids.push(id.clone());
            let lost = matches!(fate, Fate::RequestLost | Fate::NotKept);
            if !lost && result.owner == organisation && result.record.state == State::Available {
                result.record.state = State::Consumed;
                result.record.date_consumed = Some(now);
                changed.push(id);
            }
        }
        if fate != Fate::Told {
            let changed = Answer::Unknown("lost".into());
            return Did::Acknowledge { ids, changed, record: None };
        }
        let [id] = &ids[..] else {
            return Did::Acknowledge { ids, changed: Answer::Said(Some(changed)), record: None };
        };
        // One alone is answered with its record.
        let own = self.results.iter().find(|r| r.owner == organisation && r.record.id == *id);
        let record = own.map(|result| result.record.clone());
        let changed = Answer::Said(record.is_some().then_some(changed));
        Did::Acknowledge { ids, changed, record }
    }

    fn end(mut self) -> History {
        for Result { record, .. } in self.results {
            let (organisation, id) = (record.organisation.clone(), record.id.clone());
            let available = record.state == State::Available;
            let row = KeptRow { organisation: organisation.clone(), id, available, consumed: !available };
            self.events.push(Event::Kept(row));
            self.events.push(Event::Last { organisation, data: record.data.clone(), record });
        }
        History { events: self.events }
    }
}

fn told(outcome: Outcome, id: &str) -> Told {
    Told { outcome, id: id.into(), reason: String::new(), original: None, window_ends: None }
}

fn counter_key(organisation: &str, definition: &str) -> String {
    format!("counter {organisation} {definition}")
}

fn rules(organisation: &str) -> [Rules; 4] {
    let rules = |definition: &str, unique: Option<i64>, throttle: Option<(u64, i64)>| Rules {
        organisation: organisation.into(),
        definition: definition.into(),
        unique: unique.map(|seconds| seconds * SECOND),
        throttle: throttle.map(|(count, seconds)| (count, seconds * SECOND)),
        counter: throttle.map(|_| counter_key(organisation, definition)),
    };
    [
        rules("plain", None, None),
        rules("once", Some(2), None),
        rules("few", None, Some((2, 3))),
        rules("both", Some(1), Some((2, 2))),
    ]
}
