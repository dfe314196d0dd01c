//! The history, looked at from the sides that the invariants need.

use std::collections::{BTreeMap, HashMap};

use crate::history::{
    Answer, Call, Data, Did, Event, GateRow, History, KeptRow, Kind, Leftover, Micros, Outcome, Place,
    Record, Rules, Sent, State, Told, Via,
};

/// How far a caller's clock and a database's may differ: they are of one machine,
/// but one of them may be slewed.
pub(super) const SKEW: Micros = 100_000;

/// One try at publishing one observation.
pub(super) struct Attempt<'a> {
    pub place: Place,
    pub call: &'a Call,
    pub sent: &'a Sent,
    /// `None`: nobody knows what became of it.
    pub told: Option<&'a Told>,
    /// By which later tries are recognised.
    pub mark: Option<Mark<'a>>,
}

/// What makes a resend a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark<'a> {
    pub organisation: &'a str,
    pub definition: &'a str,
    /// The chkpt; or the request's id, and then the nonce.
    pub chkpt: &'a str,
    pub nonce: &'a str,
}

impl Mark<'_> {
    pub fn name(&self) -> String {
        let Self { organisation, definition, chkpt, nonce } = self;
        match *nonce {
            "" => format!("{organisation} {definition} chkpt {chkpt}"),
            nonce => format!("{organisation} {definition} request {chkpt} {nonce}"),
        }
    }
}

impl Attempt<'_> {
    pub fn organisation(&self) -> &str {
        &self.call.organisation
    }

    fn outcome(&self) -> Option<Outcome> {
        self.told.map(|told| told.outcome)
    }

    /// The final outcome that this very try was told to have.
    pub fn final_outcome(&self) -> Option<(Outcome, &Told)> {
        let told = self.told?;
        matches!(told.outcome, Outcome::Success | Outcome::Suppressed | Outcome::Throttled)
            .then_some((told.outcome, told))
    }

    /// Nobody knows whether it was decided.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome(), None | Some(Outcome::OutcomeUnknown))
    }

    /// It was told that nothing was kept.
    pub fn left_nothing(&self) -> bool {
        matches!(self.outcome(), Some(Outcome::Error | Outcome::NotKept))
    }

    /// It may be the one that this mark was decided by.
    pub fn may_be_final(&self) -> bool {
        self.is_unknown() || self.final_outcome().is_some()
    }

    pub fn is_file(&self) -> bool {
        matches!(self.call.did, Did::Publish { via: Via::File, .. })
    }

    pub fn is(&self, outcome: Outcome) -> bool {
        self.outcome() == Some(outcome)
    }
}

/// A result as somebody saw it.
pub(super) struct Sighting<'a> {
    pub place: Place,
    /// `None`: in the end, when nobody called any more.
    pub call: Option<&'a Call>,
    /// For whom.
    pub organisation: &'a str,
    pub record: &'a Record,
}

/// A try at acknowledging one result.
pub(super) struct Signing<'a> {
    pub place: Place,
    pub call: &'a Call,
    /// `None`: nobody knows.
    pub changed: Option<bool>,
    /// What was answered for it.
    pub record: Option<&'a Record>,
}

/// A list that was answered.
pub(super) struct Walk<'a> {
    pub place: Place,
    pub call: &'a Call,
    pub states: &'a [State],
    pub poll: Option<&'a str>,
    /// It came to its end: nothing is missing.
    pub whole: bool,
    pub found: &'a [Record],
}

/// A result in the end.
pub(super) struct Last<'a> {
    pub place: Place,
    pub organisation: &'a str,
    pub record: &'a Record,
    pub data: &'a Data,
}

/// A result of an organisation.
pub(super) type ResultKey<'a> = (&'a str, &'a str);

#[derive(Default)]
pub(super) struct Index<'a> {
    pub rules: Vec<(Place, &'a Rules)>,
    pub attempts: Vec<Attempt<'a>>,
    pub calls: Vec<(Place, &'a Call)>,
    /// Tries by mark.
    pub marks: BTreeMap<Mark<'a>, Vec<usize>>,
    /// Tries by organisation and nonce.
    pub nonces: BTreeMap<(&'a str, &'a str), Vec<usize>>,
    pub last: Vec<Last<'a>>,
    /// Places in `last`, by organisation and nonce.
    pub by_nonce: BTreeMap<(&'a str, &'a str), Vec<usize>>,
    /// Places in `last`.
    pub results: BTreeMap<ResultKey<'a>, Vec<usize>>,
    pub kept: BTreeMap<ResultKey<'a>, (Place, &'a KeptRow)>,
    pub sightings: BTreeMap<ResultKey<'a>, Vec<Sighting<'a>>>,
    pub signings: BTreeMap<ResultKey<'a>, Vec<Signing<'a>>>,
    pub walks: Vec<Walk<'a>>,
    pub leftovers: Vec<(Place, &'a Leftover)>,
    /// Whether the rows that the gate wrote are known.
    pub knows_gate: bool,
    /// By the id that opened them.
    pub windows: HashMap<&'a str, Vec<Window<'a>>>,
    /// What transactions made of markers, by their key.
    pub markers: BTreeMap<&'a str, Vec<Marker<'a>>>,
    /// Which transaction accepted an id.
    pub accepted: HashMap<&'a str, (Place, &'a GateRow)>,
    /// How many results were handed over, by organisation.
    pub handed_over: BTreeMap<&'a str, (u64, Place)>,
    /// Counter's rows by its key, in order of time.
    pub counters: HashMap<&'a str, Vec<Counter<'a>>>,
}

/// What a transaction made of a marker.
pub(super) struct Marker<'a> {
    pub place: Place,
    pub row: &'a GateRow,
    pub outcome: Outcome,
    pub id: &'a str,
}

/// A unique window that a transaction opened.
pub(super) struct Window<'a> {
    pub place: Place,
    pub row: &'a GateRow,
    pub key: &'a str,
    pub accepted_at: Micros,
}

/// What a transaction made of a throttle counter.
pub(super) struct Counter<'a> {
    pub place: Place,
    pub transaction: &'a str,
    pub at: Micros,
    pub window_start: Micros,
    pub used: u64,
}

impl<'a> Index<'a> {
    pub fn of(history: &'a History) -> Self {
        let mut index = Self::default();
        for (at, event) in history.events.iter().enumerate() {
            index.add(at.into(), event);
        }
        for rows in index.counters.values_mut() {
            rows.sort_by_key(|row| (row.at, row.window_start, row.used));
        }
        for (at, attempt) in index.attempts.iter().enumerate() {
            if let Some(mark) = attempt.mark {
                index.marks.entry(mark).or_default().push(at);
            }
            let nonce = (attempt.call.organisation.as_str(), attempt.sent.nonce.as_str());
            index.nonces.entry(nonce).or_default().push(at);
        }
        index
    }

    fn add(&mut self, place: Place, event: &'a Event) {
        match event {
            Event::Rules(rules) => self.rules.push((place, rules)),
            Event::Call(call) => {
                self.calls.push((place, call));
                self.add_call(place, call);
            }
            Event::Fault { .. } => {}
            Event::Gate(row) => self.add_row(place, row),
            Event::Last { organisation, record, data } => {
                self.results.entry((organisation, &record.id)).or_default().push(self.last.len());
                self.by_nonce.entry((organisation, &record.nonce)).or_default().push(self.last.len());
                self.last.push(Last { place, organisation, record, data });
                self.see(place, None, organisation, record);
            }
            Event::Kept(row) => drop(self.kept.insert((&row.organisation, &row.id), (place, row))),
            Event::Leftover(row) => self.leftovers.push((place, row)),
        }
    }

    fn add_row(&mut self, place: Place, row: &'a GateRow) {
        self.knows_gate = true;
        match &row.row {
            Kind::Marker { key, outcome, id } => {
                if *outcome == Outcome::Success {
                    self.accepted.insert(id, (place, row));
                }
                self.markers.entry(key).or_default().push(Marker { place, row, outcome: *outcome, id });
            }
            // Dated to the epoch: presumed, and not opened.
            Kind::Window { accepted_at: 0, .. } => {}
            Kind::Window { key, id, accepted_at } => {
                let window = Window { place, row, key, accepted_at: *accepted_at };
                self.windows.entry(id).or_default().push(window);
            }
            Kind::Counter { key, window_start, used } => {
                let (at, transaction) = (row.at, row.transaction.as_str());
                let counter = Counter { place, transaction, at, window_start: *window_start, used: *used };
                self.counters.entry(key).or_default().push(counter);
            }
            Kind::Outbox { organisation, results } => {
                let sum = self.handed_over.entry(organisation).or_insert((0, place));
                *sum = (sum.0 + results, place);
            }
        }
    }

    fn add_call(&mut self, place: Place, call: &'a Call) {
        match &call.did {
            Did::Publish { request_id, sent, told, .. } => {
                self.add_attempts(place, call, request_id, sent, told)
            }
            Did::List { states, poll, whole, found } => {
                let Some(found) = found.said() else { return };
                let poll = poll.as_deref();
                self.walks.push(Walk { place, call, states, poll, whole: *whole, found });
                for (item, record) in found.iter().enumerate() {
                    let place = Place { item: Some(item), ..place };
                    self.see(place, Some(call), &call.organisation, record);
                }
            }
            Did::Get { found, .. } => {
                if let Some(Some(record)) = found.said() {
                    self.see(place, Some(call), &call.organisation, record);
                }
            }
            Did::Download { .. } => {}
            Did::Acknowledge { ids, changed, record } => {
                if let Some(record) = record {
                    self.see(place, Some(call), &call.organisation, record);
                }
                for (item, id) in ids.iter().enumerate() {
                    if ids[..item].contains(id) {
                        continue;
                    }
                    let place = Place { item: Some(item), ..place };
                    let changed = match changed {
                        Answer::Said(Some(changed)) => Some(changed.contains(id)),
                        Answer::Said(None) => Some(false),
                        Answer::Unknown(_) => None,
                    };
                    let record = record.as_ref();
                    let signing = Signing { place, call, changed, record };
                    self.signings.entry((&call.organisation, id)).or_default().push(signing);
                }
            }
        }
    }

    fn add_attempts(
        &mut self,
        place: Place,
        call: &'a Call,
        request_id: &'a str,
        sent: &'a [Sent],
        told: &'a Answer<Vec<Told>>,
    ) {
        let told = told.said();
        assert!(told.is_none_or(|told| told.len() == sent.len()), "one outcome for each: {call:?}");
        for (item, sent) in sent.iter().enumerate() {
            let (organisation, definition) = (call.organisation.as_str(), sent.definition.as_str());
            let mark = match (sent.chkpt.as_str(), request_id) {
                ("", "") => None,
                ("", id) => Some(Mark { organisation, definition, chkpt: id, nonce: &sent.nonce }),
                (chkpt, _) => Some(Mark { organisation, definition, chkpt, nonce: "" }),
            };
            let place = Place { item: Some(item), ..place };
            self.attempts.push(Attempt { place, call, sent, told: told.map(|told| &told[item]), mark });
        }
    }

    fn see(&mut self, place: Place, call: Option<&'a Call>, organisation: &'a str, record: &'a Record) {
        let sighting = Sighting { place, call, organisation, record };
        self.sightings.entry((organisation, &record.id)).or_default().push(sighting);
    }

    /// The tries with this nonce.
    pub fn of_nonce<'b>(
        &'b self,
        organisation: &'b str,
        nonce: &'b str,
    ) -> impl Iterator<Item = &'b Attempt<'a>> {
        self.nonces.get(&(organisation, nonce)).into_iter().flatten().map(|at| &self.attempts[*at])
    }

    /// It was sent, and not for this organisation.
    pub fn is_foreign(&self, organisation: &str, nonce: &str) -> bool {
        let own = self.nonces.contains_key(&(organisation, nonce));
        !own && self.nonces.keys().any(|(_, sent)| *sent == nonce)
    }

    /// The results of this nonce.
    pub fn results_of<'b>(
        &'b self,
        organisation: &'b str,
        nonce: &'b str,
    ) -> impl Iterator<Item = &'b Last<'a>> {
        let results = self.by_nonce.get(&(organisation, nonce));
        results.into_iter().flatten().map(|at| &self.last[*at])
    }
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Available => "AVAILABLE",
            Self::Consumed => "CONSUMED",
            Self::Expired => "EXPIRED",
        }
    }
}
