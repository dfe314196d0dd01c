//! The whole way from the databases to the checker is checked: a right run is spoilt
//! in the databases, and what is gathered then has to prove it.

use sluice::connection::Clients;
use sluice_proto::results::v1::AcknowledgeResultRequest;
use sluice_tests::{
    Link, Pair, Tenant,
    history::{Answer, Did, Invariant, check},
};
use tokio_postgres::Client;

use super::{
    evidence,
    recorder::{Recorder, record},
};
use crate::support::{drained, json, list, publish};

/// What is in the history of a right run, and its services and databases.
struct Run {
    pair: Pair,
    recorder: Recorder,
    clients: [Clients; 2],
    ingest: Client,
    results: Client,
}

impl Run {
    /// One acceptance under each definition of each organisation; one of the results is
    /// consumed.
    async fn right() -> Self {
        let pair = Box::pin(Pair::builder().proxied(Link::Intake).start()).await;
        let recorder = Recorder::new();
        let clients = [Tenant::Acme, Tenant::Globex].map(|tenant| pair.clients(tenant));
        evidence::prepare(&pair, &recorder, &clients).await;
        drained(&pair).await;
        let (ingest, results) = (pair.ingest_database.sql().await, pair.results_database.sql().await);
        let run = Self { pair, recorder, clients, ingest, results };
        run.consume_one().await;
        assert_eq!(run.found().await, []);
        run
    }

    async fn consume_one(&self) {
        let id = list(&self.clients[0]).await[0].id.clone();
        let began = self.recorder.now();
        let request = AcknowledgeResultRequest { id: id.clone(), organisation: String::new() };
        let answer = self.clients[0].results.clone().acknowledge_result(request).await.unwrap().into_inner();
        let record = answer.result.as_ref().map(record);
        let (ids, changed) = (vec![id.clone()], Answer::Said(Some(vec![id])));
        self.recorder.call("consumer", "acme", began, Did::Acknowledge { ids, changed, record });
    }

    /// What is found when the evidence is gathered now.
    async fn found(&self) -> Vec<(Invariant, String)> {
        let recorder = Recorder::new();
        self.recorder.history().events.into_iter().for_each(|event| recorder.add(event));
        evidence::gather(&self.pair, &recorder, &self.clients).await;
        let found = check(&recorder.history());
        found.into_iter().map(|violation| (violation.invariant, violation.says)).collect()
    }

    async fn finds(&self, expected: &[(Invariant, &str)]) {
        let found = self.found().await;
        let found: Vec<_> = found.iter().map(|(invariant, says)| (*invariant, says.as_str())).collect();
        assert_eq!(found, expected);
    }
}

async fn spoil(sql: &Client, how: &str) {
    assert_eq!(sql.execute(how, &[]).await.unwrap(), 1, "{how}");
}

#[tokio::test]
async fn an_outbox_row_that_is_dropped() {
    let run = Run::right().await;
    run.pair.proxy(Link::Intake).refuse();
    // Without a mark, and nobody wrote it down.
    publish(&run.clients[0], vec![json("plain", r#"{"keys":"key"}"#)]).await;
    spoil(&run.ingest, "DELETE FROM outbox").await;
    run.finds(&[(Invariant::OneResult, "5 results were handed over, and 4 are there")]).await;
}

#[tokio::test]
async fn one_more_result() {
    let run = Run::right().await;
    let more = "
        WITH other AS (SELECT jsonb_build_object('id', id, 'first_id', id, 'ids', ARRAY[id]) AS ids
                       FROM (VALUES ('00000000-0000-7000-8000-000000000001'::uuid)) AS given(id)),
        doubled AS (SELECT a.* FROM available AS a JOIN result AS r ON r.id = a.first_id
                    WHERE a.organisation = 'acme' AND r.definition = 'plain'),
        recorded AS (
            INSERT INTO result SELECT (jsonb_populate_record(r, other.ids)).*
            FROM result AS r JOIN doubled ON doubled.first_id = r.id CROSS JOIN other
        ), listed AS (
            INSERT INTO batch SELECT (jsonb_populate_record(b, other.ids)).*
            FROM batch AS b JOIN doubled USING (organisation, date_created, poll, first_id) CROSS JOIN other
        )
        INSERT INTO available SELECT (jsonb_populate_record(a, other.ids)).*
        FROM available AS a JOIN doubled USING (organisation, date_created, poll, first_id) CROSS JOIN other";
    spoil(&run.results, more).await;
    run.finds(&[
        (Invariant::OneResult, "4 results were handed over, and 5 are there"),
        (Invariant::OneResult, "1 result(s) of nonce-acme-first-1 come from no accepted observation"),
        (Invariant::FinalOnce, "it has two results"),
    ])
    .await;
}

#[tokio::test]
async fn a_counter_that_is_set_back() {
    let run = Run::right().await;
    let back = "UPDATE throttle_counter SET used = used - 1
                WHERE key = (SELECT key FROM throttle_counter ORDER BY key LIMIT 1)";
    spoil(&run.ingest, back).await;
    run.finds(&[(Invariant::Throttle, "1 and 0 acceptances made it 0")]).await;
}

#[tokio::test]
async fn a_consumed_result_that_is_available_again() {
    let run = Run::right().await;
    let back = "WITH gone AS (DELETE FROM consumed RETURNING *)
                INSERT INTO available (date_created, first_id, organisation, poll, ids)
                SELECT date_created, ids[1], organisation, poll, ids FROM gone";
    spoil(&run.results, back).await;
    run.finds(&[(Invariant::Consumed, "it was consumed, and is AVAILABLE")]).await;
}

#[tokio::test]
async fn a_marker_that_is_decided_anew() {
    let run = Run::right().await;
    // 2 is suppressed.
    let anew = "UPDATE marker SET outcome = 2 WHERE key = (SELECT key FROM marker ORDER BY key LIMIT 1)";
    spoil(&run.ingest, anew).await;
    run.finds(&[(Invariant::FinalOnce, "two transactions decided it differently")]).await;
}

#[tokio::test]
async fn a_window_that_is_dated_back() {
    let run = Run::right().await;
    let back = "UPDATE unique_window SET accepted_at = accepted_at - interval '1 second'
                WHERE key = (SELECT key FROM unique_window ORDER BY key LIMIT 1)";
    spoil(&run.ingest, back).await;
    run.finds(&[(Invariant::Unique, "its acceptance opened 2 windows")]).await;
}
