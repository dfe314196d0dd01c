//! A property test: random sequences of requests go through the running service
//! (two replicas in turn) and through a small, obvious model of the contract's
//! rules. They agree on every outcome, reason, original outcome and id, and
//! afterwards the results are exactly what the model says was accepted.
//! Windows are so long that the clock plays no part.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Observation, Outcome, PublicationOutcome};
use sluice_tests::{Pair, Tenant};

use crate::support::*;

const CASES: u32 = 16;
/// The definitions of a case; the last one is never put.
const KINDS: [&str; 6] = ["plain", "unique", "throttled", "both", "disabled", "unknown"];

/// One observation, in small numbers so that much of it meets again.
#[derive(Clone, Debug)]
struct Item {
    kind: usize,
    chkpt: Option<u8>,
    key: u8,
    spelling: usize,
    /// 0: good; 1: `/keys` is missing; 2: no JSON.
    fault: u8,
}

#[derive(Clone, Debug)]
enum Step {
    /// Publish, under a request id or none.
    Publish { request_id: Option<u8>, items: Vec<Item> },
    /// Publish an earlier request again: all of it, or only every `nth`.
    Resend { earlier: usize, nth: usize },
    /// Change how many are let in under a throttle.
    Throttle { kind: usize, count: u32 },
    /// Move the gate's state on to the next slot.
    RollOver,
}

fn item() -> impl Strategy<Value = Item> {
    let fault = prop_oneof![8 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    // The kinds without rules of their own are less interesting.
    let kind = prop_oneof![10 => 0..4_usize, 1 => 4..6_usize];
    (kind, proptest::option::of(0..5_u8), 0..4_u8, 0..SPELLINGS.len(), fault)
        .prop_map(|(kind, chkpt, key, spelling, fault)| Item { kind, chkpt, key, spelling, fault })
}

fn step() -> impl Strategy<Value = Step> {
    let publish = (proptest::option::of(0..3_u8), proptest::collection::vec(item(), 1..8))
        .prop_map(|(request_id, items)| Step::Publish { request_id, items });
    prop_oneof![
        8 => publish,
        3 => (any::<usize>(), 1..4_usize).prop_map(|(earlier, nth)| Step::Resend { earlier, nth }),
        1 => (2..4_usize, 1..6_u32).prop_map(|(kind, count)| Step::Throttle { kind, count }),
        1 => Just(Step::RollOver),
    ]
}

/// The same value spelled in different ways: other bytes, one unique key.
const SPELLINGS: [fn(u8) -> String; 3] = [
    |key| format!(r#"{{"keys":[{key}],"n":1}}"#),
    |key| format!(r#"{{"n":1,"keys":[{key}.0]}}"#),
    |key| format!(r#"{{"n":2,"keys":[ {key} ]}}"#),
];

impl Item {
    fn content(&self) -> String {
        match self.fault {
            0 => SPELLINGS[self.spelling](self.key),
            1 => format!(r#"{{"n":{}}}"#, self.key),
            _ => format!("{{{}", self.key),
        }
    }

    fn chkpt(&self) -> String {
        self.chkpt.map(|mark| format!("mark-{mark}")).unwrap_or_default()
    }

    fn observation(&self, case: &str) -> Observation {
        marked(&format!("{case}/{}", KINDS[self.kind]), &self.chkpt(), &self.content())
    }
}

/// What the contract says of one observation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    outcome: Outcome,
    reason: &'static str,
    original: Outcome,
    /// `None`: a fresh one.
    id: Option<String>,
}

fn expect(outcome: Outcome, reason: &'static str, id: &str) -> Expected {
    Expected { outcome, reason, original: Outcome::Unspecified, id: Some(id.to_owned()) }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Own(u8),
    /// Request id, content, and its ordinal among equal ones.
    Request(u8, String, usize),
}

/// The gate of one case, as simple as can be.
struct Model {
    counts: HashMap<usize, u32>,
    used: HashMap<usize, u32>,
    windows: HashMap<(usize, u8), String>,
    markers: HashMap<(usize, Mark), (Outcome, String, String)>,
    accepted: Contents,
}

impl Model {
    fn new() -> Self {
        Self {
            counts: HashMap::from([(2, 3), (3, 2)]),
            used: HashMap::new(),
            windows: HashMap::new(),
            markers: HashMap::new(),
            accepted: Contents::new(),
        }
    }

    /// Decides one observation; `fresh` is the id it has if it is accepted.
    fn decide(&mut self, item: &Item, mark: Option<Mark>, fresh: &str) -> Expected {
        let is_unique = matches!(KINDS[item.kind], "unique" | "both");
        match (KINDS[item.kind], item.fault) {
            ("unknown", _) => return expect(Outcome::Error, "UNKNOWN_DEFINITION", ""),
            ("disabled", _) => return expect(Outcome::Error, "DISABLED_DEFINITION", ""),
            (_, 2) => return expect(Outcome::Error, "INVALID_JSON", ""),
            (_, 1) if is_unique => return expect(Outcome::Error, "MISSING_UNIQUE_FIELD", ""),
            _ => {}
        }
        let mark = mark.map(|mark| (item.kind, mark));
        if let Some((original, id, content)) = mark.as_ref().and_then(|mark| self.markers.get(mark)) {
            let reason = if *content == item.content() { "CHKPT" } else { "CONTENT_DIFFERS" };
            return Expected { original: *original, ..expect(Outcome::Duplicate, reason, id) };
        }
        let expected = self.decide_new(item, is_unique, fresh);
        if let Some(mark) = mark {
            let id = expected.id.clone().unwrap_or_else(|| fresh.to_owned());
            self.markers.insert(mark, (expected.outcome, id, item.content()));
        }
        expected
    }

    fn decide_new(&mut self, item: &Item, is_unique: bool, fresh: &str) -> Expected {
        if is_unique && let Some(earlier) = self.windows.get(&(item.kind, item.key)) {
            return expect(Outcome::Suppressed, "UNIQUE", earlier);
        }
        if let Some(count) = self.counts.get(&item.kind) {
            let used = self.used.entry(item.kind).or_default();
            if *used >= *count {
                return expect(Outcome::Throttled, "THROTTLE", "");
            }
            *used += 1;
        }
        if is_unique {
            self.windows.insert((item.kind, item.key), fresh.to_owned());
        }
        self.accepted.insert(fresh.to_owned(), item.content().into());
        Expected { outcome: Outcome::Success, reason: "", original: Outcome::Unspecified, id: None }
    }

    /// Decides a request in order and compares with what was said.
    fn compare(
        &mut self,
        request_id: Option<u8>,
        items: &[Item],
        said: &[PublicationOutcome],
    ) -> Result<(), TestCaseError> {
        let mut occurrences = HashMap::new();
        for (at, (item, said)) in items.iter().zip(said).enumerate() {
            let mark = item.chkpt.map(Mark::Own).or_else(|| {
                let occurrence = occurrences.entry((item.kind, item.content())).or_insert(0);
                *occurrence += 1;
                request_id.map(|id| Mark::Request(id, item.content(), *occurrence))
            });
            let known: HashSet<_> = self.accepted.keys().cloned().collect();
            let expected = self.decide(item, mark, &said.ingest_id);
            let id = match &expected.id {
                Some(id) => id.clone(),
                None => {
                    prop_assert!(
                        !said.ingest_id.is_empty() && !known.contains(&said.ingest_id),
                        "a fresh id"
                    );
                    said.ingest_id.clone()
                }
            };
            let got = (said.outcome(), said.reason.as_str(), said.original_outcome(), &said.ingest_id);
            let want = (expected.outcome, expected.reason, expected.original, &id);
            prop_assert_eq!(got, want, "item {}: {:?}, details {:?}", at, item, said.details);
            prop_assert_eq!(&said.chkpt, &item.chkpt());
        }
        Ok(())
    }
}

struct Service {
    pair: Pair,
    clients: [Clients; 2],
    cases: AtomicUsize,
}

impl Service {
    async fn put(&self, case: &str, kind: usize, count: Option<u32>) {
        let path = format!("{case}/{}", KINDS[kind]);
        let rules = match KINDS[kind] {
            "unique" => unique(&path),
            "throttled" => throttled(&path, count.unwrap_or(3)),
            "both" => Definition { unique: seconds(LONG), ..throttled(&path, count.unwrap_or(2)) },
            "disabled" => Definition { disabled: true, ..definition(&path) },
            _ => definition(&path),
        };
        put(&self.clients[kind % 2], rules).await;
    }

    async fn roll_over(&self) {
        let sql = self.pair.ingest_database.sql().await;
        sql.execute("UPDATE gate_slot SET since = 'epoch'", &[]).await.unwrap();
        let lock = i64::from_be_bytes(*b"\0\0\0\0gate");
        let retention = f64::from(u32::try_from(LONG).unwrap());
        let roll_over = "SELECT gate_roll_over($1, make_interval(secs => $2))";
        sql.query_one(roll_over, &[&lock, &retention]).await.unwrap();
    }

    /// One case; what was accepted in it.
    async fn run(&self, steps: &[Step]) -> Result<Contents, TestCaseError> {
        let case = format!("case-{}", self.cases.fetch_add(1, Relaxed));
        for kind in 0..5 {
            self.put(&case, kind, None).await;
        }
        let mut model = Model::new();
        let mut earlier: Vec<(Option<u8>, Vec<Item>)> = Vec::new();
        // State outlives two roll-overs, whenever in a slot's life it was made.
        let mut roll_overs = 2;
        for (turn, step) in steps.iter().enumerate() {
            let (request_id, items) = match step {
                Step::Publish { request_id, items } => (*request_id, items.clone()),
                Step::Resend { earlier: which, nth } => {
                    let Some((id, items)) = earlier.get(which % earlier.len().max(1)) else { continue };
                    (*id, items.iter().step_by(*nth).cloned().collect())
                }
                Step::Throttle { kind, count } => {
                    self.put(&case, *kind, Some(*count)).await;
                    model.counts.insert(*kind, *count);
                    continue;
                }
                Step::RollOver => {
                    if roll_overs > 0 {
                        self.roll_over().await;
                        roll_overs -= 1;
                    }
                    continue;
                }
            };
            let id = request_id.map(|id| format!("{case}-{id}")).unwrap_or_default();
            let observations = items.iter().map(|item| item.observation(&case)).collect();
            let answer = publish_as(&self.clients[turn % 2], &id, observations).await;
            model.compare(request_id, &items, &answer.observations)?;
            earlier.push((request_id, items));
        }
        Ok(model.accepted)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_and_a_model_of_the_contract_agree() {
    let pair = builder().ingest_replicas(2).start().await;
    let clients = [pair.clients_of(Tenant::Acme, 0, 0), pair.clients_of(Tenant::Acme, 1, 0)];
    let service = Service { pair, clients, cases: AtomicUsize::new(0) };
    let all = std::sync::Mutex::new(Contents::new());
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&proptest::collection::vec(step(), 5..25), |steps| {
            let accepted = runtime.block_on(service.run(&steps))?;
            all.lock().unwrap().extend(accepted);
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let all = all.into_inner().unwrap();
    assert!(all.len() > CASES as usize, "enough was let in to say something");
    adds_up(&service.pair, &service.clients[0], &all).await;
}
