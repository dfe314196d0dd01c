//! What is there in the end: by the API, in the databases, and in the log that
//! triggers of the test keep of the gate's transactions.

use std::collections::BTreeSet;

use sluice::connection::Clients;
use sluice_proto::results::v1::{ListResultsRequest, result::State as WireState};
use sluice_tests::{
    Pair, eventually, eventually_within,
    history::{Answer, Did, Event, GateRow, KeptRow, Kind, Leftover, Outcome, Rules, Via},
};

use super::{
    observations::{Maker, ORGANISATIONS, definitions, rules},
    random::Random,
    recorder::{Recorder, data, record, told},
};
use crate::support::{download, put, request};

/// How long the last of it may take to reach the results.
const DRAINED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Puts the definitions, and finds out which counter belongs to which: by letting
/// one observation in under each.
pub async fn prepare(pair: &Pair, recorder: &Recorder, clients: &[Clients; 2]) {
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute(include_str!("triggers.sql")).await.unwrap();
    let mut known = BTreeSet::new();
    for (organisation, clients) in ORGANISATIONS.into_iter().zip(clients) {
        for definition in definitions(organisation) {
            put(clients, definition).await;
        }
        let mut maker = Maker::new(organisation, "first");
        for rules in rules(organisation) {
            let chkpt = format!("first/{}", rules.definition);
            let observation = maker.of(&mut Random::new(0), &rules.definition, chkpt, true);
            publish_one(recorder, organisation, clients, observation).await;
            let keys = sql.query("SELECT key::text FROM throttle_counter", &[]).await.unwrap();
            let counter =
                keys.iter().map(|row| row.get::<_, String>(0)).find(|key| known.insert(key.clone()));
            recorder.add(Event::Rules(Rules { counter, ..rules }));
        }
    }
}

async fn publish_one(
    recorder: &Recorder,
    organisation: &'static str,
    clients: &Clients,
    (sent, observation): (sluice_tests::history::Sent, sluice_proto::ingest::v1::Observation),
) {
    let began = recorder.now();
    let said = clients.ingest.clone().publish_observations(request(vec![observation])).await.unwrap();
    let told: Vec<_> = said.into_inner().observations.iter().map(told).collect();
    assert_eq!(told[0].outcome, Outcome::Success, "nothing is in its way");
    let (via, request_id, sent) = (Via::Batch, String::new(), vec![sent]);
    recorder.call(
        "first",
        organisation,
        began,
        Did::Publish { via, request_id, sent, told: Answer::Said(told) },
    );
}

/// Sends something under every mark there was: what was decided is a duplicate
/// now, and what was not is decided anew.
pub async fn ask_again(recorder: &Recorder, clients: &[Clients; 2]) {
    let history = recorder.history();
    let mut marks = BTreeSet::new();
    for event in &history.events {
        let Event::Call(call) = event else { continue };
        let Did::Publish { sent, .. } = &call.did else { continue };
        let marked = sent.iter().filter(|sent| !sent.chkpt.is_empty());
        marks.extend(marked.map(|sent| (&call.organisation, &sent.definition, &sent.chkpt)));
    }
    let marks: Vec<_> = marks.into_iter().collect();
    for (organisation, clients) in ORGANISATIONS.into_iter().zip(clients) {
        let own: Vec<_> = marks.iter().filter(|(of, ..)| *of == organisation).collect();
        let mut maker = Maker::new(organisation, "last");
        for marks in own.chunks(200) {
            let make = |(_, definition, chkpt): &&(&String, &String, &String)| {
                maker.of(&mut Random::new(1), definition, chkpt.to_string(), true)
            };
            let (sent, observations): (Vec<_>, Vec<_>) = marks.iter().map(make).unzip();
            // A lane that met a database that was away rests for a while.
            let decided = || async {
                let began = recorder.now();
                let mut ingest = clients.ingest.clone();
                let answer = recorder.answer(ingest.publish_observations(request(observations.clone())));
                let Answer::Said(said) = answer.await else { panic!("all is whole, and no answer comes") };
                let told: Vec<_> = said.into_inner().observations.iter().map(told).collect();
                let of = |outcome| told.iter().filter(|t| t.outcome == outcome).count();
                assert_eq!(of(Outcome::OutcomeUnknown), 0, "all is whole, and it does not know");
                let all = of(Outcome::NotKept) == 0;
                let (request_id, sent) = (String::new(), sent.clone());
                let did = Did::Publish { via: Via::Batch, request_id, sent, told: Answer::Said(told) };
                recorder.call("last", organisation, began, did);
                all.then_some(())
            };
            eventually("a decision on each, now that all is whole", decided).await;
        }
    }
}

/// Waits until nothing is under way, and adds what is there.
pub async fn gather(pair: &Pair, recorder: &Recorder, clients: &[Clients; 2]) {
    let ingest = pair.ingest_database.sql().await;
    let results = pair.results_database.sql().await;
    let under_way =
        "SELECT (SELECT count(*) FROM outbox WHERE set_aside IS NULL) + (SELECT count(*) FROM file_upload)";
    eventually_within(DRAINED_WITHIN, "nothing under way", || async {
        let left: i64 = ingest.query_one(under_way, &[]).await.unwrap().get(0);
        (left == 0).then_some(())
    })
    .await;
    for row in ingest.query(include_str!("gate_rows.sql"), &[]).await.unwrap() {
        add_gate_row(recorder, &row);
    }
    for row in results.query(include_str!("kept_rows.sql"), &[]).await.unwrap() {
        recorder.add(Event::Kept(KeptRow {
            organisation: row.get("organisation"),
            id: row.get("id"),
            available: row.get("available"),
            consumed: row.get("consumed"),
        }));
    }
    for (sql, left) in
        [(&ingest, include_str!("leftovers_ingest.sql")), (&results, include_str!("leftovers_results.sql"))]
    {
        for row in sql.query(left, &[]).await.unwrap() {
            recorder.add(Event::Leftover(Leftover { table: row.get("kind"), id: row.get("id") }));
        }
    }
    for (organisation, clients) in ORGANISATIONS.into_iter().zip(clients) {
        add_results(recorder, organisation, clients).await;
    }
}

fn add_gate_row(recorder: &Recorder, row: &tokio_postgres::Row) {
    let key: String = row.get("key");
    let id = || row.get::<_, Option<String>>("ingest_id").unwrap_or_default();
    let written = match row.get("kind") {
        "marker" => Kind::Marker { key, outcome: outcome_of(row.get("outcome")), id: id() },
        "window" => Kind::Window { key, id: id(), accepted_at: row.get("accepted_at") },
        "counter" => {
            let used: i64 = row.get("used");
            Kind::Counter { key, window_start: row.get("window_start"), used: used.try_into().unwrap() }
        }
        "outbox" => {
            let results: i32 = row.get("results");
            Kind::Outbox { organisation: row.get("organisation"), results: results.try_into().unwrap() }
        }
        other => panic!("{other}"),
    };
    let (transaction, began, at) = (row.get("xid"), row.get("began"), row.get("at"));
    recorder.add(Event::Gate(GateRow { transaction, began, at, row: written }));
}

/// An outcome as markers keep it.
fn outcome_of(code: i16) -> Outcome {
    match code {
        1 => Outcome::Success,
        2 => Outcome::Suppressed,
        3 => Outcome::Throttled,
        other => panic!("{other} is no outcome of a marker"),
    }
}

/// All results of an organisation, in any state, with their bytes.
async fn add_results(recorder: &Recorder, organisation: &str, clients: &Clients) {
    let mut request = ListResultsRequest {
        states: vec![WireState::Available as i32, WireState::Consumed as i32, WireState::Expired as i32],
        page_size: 500,
        data_bytes_max: 16 * 1024 * 1024,
        ..ListResultsRequest::default()
    };
    loop {
        let page = clients.results.clone().list_results(request.clone()).await.unwrap().into_inner();
        for result in &page.results {
            let bytes = match &result.data {
                Some(bytes) => bytes.clone(),
                None => download(clients, &result.id).await,
            };
            let (organisation, data) = (organisation.to_owned(), data(&bytes));
            recorder.add(Event::Last { organisation, record: record(result), data });
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return;
        }
    }
}
