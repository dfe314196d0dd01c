//! What the tests of the ingest side say often: definitions, observations,
//! publishing, and the results as a set to compare with.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost_types::Duration;
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::{
        Definition, Observation, Outcome, PublicationOutcome, PublishObservationsRequest,
        PublishObservationsResponse, PutDefinitionRequest, observation::Content,
    },
    results::v1::{DownloadResultRequest, ListResultsRequest, Result as ResultRecord, result::State},
};
use sluice_tests::{Pair, PairBuilder, Service, eventually};

/// A window so long that none ends while the tests run: the one that is aligned
/// to it lasts from 2001 to 2033.
pub const LONG: i64 = 1_000_000_000;

/// A pair that lets windows be as long as [`LONG`].
pub fn builder() -> PairBuilder {
    Pair::builder().flag(Service::Ingest, "gate-retention-seconds", &LONG.to_string())
}

pub fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// A definition of `acme` without rules.
pub fn definition(path: &str) -> Definition {
    Definition { organisation: "acme".into(), path: path.into(), ..Definition::default() }
}

/// One that lets equal `/keys` in once.
pub fn unique(path: &str) -> Definition {
    Definition { unique: seconds(LONG), ..definition(path) }
}

/// One that lets `count` in.
pub fn throttled(path: &str, count: u32) -> Definition {
    Definition { throttle_count: count, throttle_period: seconds(LONG), ..definition(path) }
}

pub async fn put(clients: &Clients, definition: Definition) -> Definition {
    let request = PutDefinitionRequest { definition: Some(definition) };
    clients.definitions.clone().put_definition(request).await.unwrap().into_inner().definition.unwrap()
}

pub fn json(definition: &str, text: &str) -> Observation {
    let content = Some(Content::Json(text.into()));
    Observation { definition: definition.into(), content, ..Observation::default() }
}

pub fn marked(definition: &str, chkpt: &str, text: &str) -> Observation {
    Observation { chkpt: chkpt.into(), ..json(definition, text) }
}

pub fn data(definition: &str, bytes: impl Into<Bytes>) -> Observation {
    Observation { content: Some(Content::Data(bytes.into())), ..json(definition, "") }
}

pub fn request(observations: Vec<Observation>) -> PublishObservationsRequest {
    PublishObservationsRequest { observations, ..PublishObservationsRequest::default() }
}

/// Publishes under a request id, which may be empty.
pub async fn publish_as(
    clients: &Clients,
    request_id: &str,
    observations: Vec<Observation>,
) -> PublishObservationsResponse {
    let request = PublishObservationsRequest { request_id: request_id.into(), ..request(observations) };
    let sent = request.observations.len();
    let answer = clients.ingest.clone().publish_observations(request).await.unwrap().into_inner();
    assert_eq!(answer.observations.len(), sent, "one outcome per observation");
    answer
}

pub async fn publish(clients: &Clients, observations: Vec<Observation>) -> Vec<PublicationOutcome> {
    publish_as(clients, "", observations).await.observations
}

pub async fn publish_one(clients: &Clients, observation: Observation) -> PublicationOutcome {
    publish(clients, vec![observation]).await.remove(0)
}

pub fn kinds(outcomes: &[PublicationOutcome]) -> Vec<Outcome> {
    outcomes.iter().map(PublicationOutcome::outcome).collect()
}

/// Outcome and reason of each, for comparing with literals.
pub fn told(outcomes: &[PublicationOutcome]) -> Vec<(Outcome, &str)> {
    outcomes.iter().map(|outcome| (outcome.outcome(), outcome.reason.as_str())).collect()
}

pub fn ids(outcomes: &[PublicationOutcome]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome.ingest_id.as_str()).collect()
}

/// The bytes of each id.
pub type Contents = BTreeMap<String, Bytes>;

/// What was accepted, by id.
pub fn accepted(observations: &[Observation], outcomes: &[PublicationOutcome]) -> Contents {
    let successes = observations.iter().zip(outcomes).filter(|(_, o)| o.outcome() == Outcome::Success);
    successes.map(|(observation, outcome)| (outcome.ingest_id.clone(), content(observation))).collect()
}

fn content(observation: &Observation) -> Bytes {
    match observation.content.as_ref().unwrap() {
        Content::Json(text) => Bytes::from(text.clone()),
        Content::Data(bytes) => bytes.clone(),
        Content::Body(_) => panic!("the bytes of a body are the service's to choose"),
    }
}

/// Every available result of the caller's organisation, over all pages, with
/// its data along.
pub async fn list(clients: &Clients) -> Vec<ResultRecord> {
    list_in(clients, &[]).await
}

async fn list_in(clients: &Clients, states: &[State]) -> Vec<ResultRecord> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListResultsRequest {
            page_size: 1000,
            page_token,
            states: states.iter().copied().map(i32::from).collect(),
            data_bytes_max: 16 * 1024 * 1024,
            ..ListResultsRequest::default()
        };
        let page = clients.results.clone().list_results(request).await.unwrap().into_inner();
        all.extend(page.results);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// The results as a set. No id is listed twice.
pub async fn results(clients: &Clients) -> Contents {
    contents(clients, list(clients).await).await
}

async fn contents(clients: &Clients, listed: Vec<ResultRecord>) -> Contents {
    let mut contents = Contents::new();
    for record in listed {
        let bytes = match record.data {
            Some(bytes) => bytes,
            None => download(clients, &record.id).await,
        };
        assert_eq!(record.size, bytes.len() as u64);
        assert!(contents.insert(record.id.clone(), bytes).is_none(), "{} is listed twice", record.id);
    }
    contents
}

pub async fn download(clients: &Clients, id: &str) -> Bytes {
    let request = DownloadResultRequest { id: id.into(), ..DownloadResultRequest::default() };
    let mut stream = clients.results.clone().download_result(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&chunk.data);
    }
    bytes.into()
}

/// How many batches are accepted and not yet recorded.
pub async fn backlog(sql: &tokio_postgres::Client) -> i64 {
    sql.query_one("SELECT count(*) FROM outbox", &[]).await.unwrap().get(0)
}

/// Waits until nothing is on its way any more.
pub async fn drained(pair: &Pair) {
    let sql = pair.ingest_database.sql().await;
    eventually("an empty outbox", || async { (backlog(&sql).await == 0).then_some(()) }).await;
}

/// Waits until all that was accepted is handed over, then compares: the very
/// ids and bytes, none missing, none more.
pub async fn adds_up(pair: &Pair, clients: &Clients, accepted: &Contents) {
    drained(pair).await;
    are_the_results(clients, accepted).await;
}

/// The results are exactly those accepted: as the default list tells them, which may be
/// from a replica's memory, and as they are in the database.
pub async fn are_the_results(clients: &Clients, accepted: &Contents) {
    are_these(accepted, &results(clients).await);
    let mut read = list_in(clients, &[State::Available, State::Expired]).await;
    read.retain(|record| record.state() == State::Available);
    are_these(accepted, &contents(clients, read).await);
}

fn are_these(accepted: &Contents, results: &Contents) {
    let missing: Vec<_> = accepted.keys().filter(|id| !results.contains_key(*id)).collect();
    let unknown: Vec<_> = results.keys().filter(|id| !accepted.contains_key(*id)).collect();
    assert!(missing.is_empty(), "told success and not there: {missing:?}");
    assert!(unknown.is_empty(), "there and never told: {unknown:?}");
    assert!(results == accepted, "the bytes of some result are not those published");
}

/// Keeps every gate waiting for as long as it is there: the lock that they share.
pub async fn gate_shut(pair: &Pair) -> tokio_postgres::Client {
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(x'67617465'::bigint)").await.unwrap();
    sql
}

/// Waits until a sealed batch stands before the shut gate.
pub async fn gate_waits(pair: &Pair) {
    let gates = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'sluice-ingest-gate' AND wait_event_type = 'Lock'";
    let sql = pair.ingest_database.sql().await;
    eventually("a gate that waits", || async {
        (sql.query_one(gates, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

/// Makes commits of accepted batches do this in the end, for each of their rows in the outbox
/// (NEW). No timeout of the session counts there.
pub fn hanging_commit(what: &str) -> String {
    format!(
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
         $$ BEGIN {what}; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION hang();"
    )
}
