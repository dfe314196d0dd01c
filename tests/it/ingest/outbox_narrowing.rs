//! Calls to the results service that fail because of something in them: whose doing it
//! is is found out, and all others go on. The results service's part is played by one
//! that is told what to fail at.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use prost::Message as _;
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::{Definition, Outcome},
    results::v1::{
        NewResult, RecordResultsRequest, RecordResultsResponse, ResultBatch, StoreFileRequest,
        StoreFileResponse,
        record_results_response::Recording,
        results_intake_service_server::{ResultsIntakeService, ResultsIntakeServiceServer},
    },
};
use sluice_service::{Error, Kind, compress::compress};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::support::*;

/// What it answers a result, and with it the whole call.
type Answer = fn(organisation: &str, data: &str) -> Result<Recording, Status>;

struct Shared {
    answer: Mutex<Answer>,
    /// What was recorded: whose, and what.
    recorded: Mutex<BTreeMap<(String, String), usize>>,
    calls: Mutex<Vec<Code>>,
}

struct Handlers(Arc<Shared>);

#[tonic::async_trait]
impl ResultsIntakeService for Handlers {
    async fn record_results(
        &self,
        request: Request<RecordResultsRequest>,
    ) -> Result<Response<RecordResultsResponse>, Status> {
        let answer = *self.0.answer.lock().unwrap();
        let batches = request.into_inner().batches;
        let results = batches.iter().flat_map(|batch| {
            batch
                .results
                .iter()
                .map(|result| (batch.organisation.clone(), String::from_utf8(result.data.to_vec()).unwrap()))
        });
        let results: Vec<_> = results.collect();
        let answers: Result<Vec<Recording>, Status> =
            results.iter().map(|(organisation, data)| answer(organisation, data)).collect();
        let code = answers.as_ref().err().map_or(Code::Ok, Status::code);
        self.0.calls.lock().unwrap().push(code);
        let answers = answers?;
        let mut recorded = self.0.recorded.lock().unwrap();
        for (result, answer) in results.into_iter().zip(&answers) {
            *recorded.entry(result).or_default() += usize::from(*answer == Recording::Recorded);
        }
        let recordings = answers.into_iter().map(|answer| answer as i32).collect();
        Ok(Response::new(RecordResultsResponse { recordings, discards: vec![] }))
    }

    async fn store_file(
        &self,
        _: Request<Streaming<StoreFileRequest>>,
    ) -> Result<Response<StoreFileResponse>, Status> {
        Err(Status::unimplemented("no files here"))
    }
}

/// The stand-in, and an ingest that hands over to it.
struct Setting {
    shared: Arc<Shared>,
    pair: Pair,
    acme: Clients,
    globex: Clients,
    serving: JoinHandle<()>,
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn away(_: &str, _: &str) -> Result<Recording, Status> {
    Err(Error::unavailable("away").into())
}

fn works(_: &str, _: &str) -> Result<Recording, Status> {
    Ok(Recording::Recorded)
}

impl Setting {
    /// The results service is away at first, so that what is accepted gathers.
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            answer: Mutex::new(away),
            recorded: Mutex::default(),
            calls: Mutex::default(),
        });
        let service = ResultsIntakeServiceServer::new(Handlers(shared.clone()))
            .max_decoding_message_size(32 * 1024 * 1024);
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        let pair = builder().flag(Service::Ingest, "results-url", &url).start().await;
        let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
        put(&acme, definition("plain")).await;
        put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
        Self { shared, pair, acme, globex, serving }
    }

    fn answers(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Accepts each in a commit, and so a row, of its own.
    async fn accept(&self, clients: &Clients, contents: &[&str]) {
        for content in contents {
            assert_eq!(publish_one(clients, json("plain", content)).await.outcome(), Outcome::Success);
        }
    }

    async fn until_recorded(&self, organisation: &str, contents: &[&str]) {
        let all = || async {
            let recorded = self.shared.recorded.lock().unwrap();
            let is_there = |content: &&str| {
                recorded
                    .get(&(organisation.to_owned(), (*content).to_owned()))
                    .is_some_and(|times| *times > 0)
            };
            contents.iter().all(is_there).then_some(())
        };
        eventually(&format!("{contents:?} of {organisation}"), all).await;
    }

    async fn drained(&self) {
        drained(&self.pair).await;
    }
}

#[tokio::test]
async fn who_makes_calls_late_holds_up_nobody_else() {
    let it = Setting::start().await;
    it.accept(&it.globex, &["1", "2"]).await;
    it.accept(&it.acme, &["1", "2"]).await;
    it.answers(|organisation, _| match organisation {
        "globex" => Err(Error::new(Kind::DeadlineExceeded, "DEADLINE_EXCEEDED", "late").into()),
        _ => Ok(Recording::Recorded),
    });
    it.until_recorded("acme", &["1", "2"]).await;
    it.accept(&it.acme, &["3"]).await;
    it.until_recorded("acme", &["3"]).await;
    it.answers(works);
    it.until_recorded("globex", &["1", "2"]).await;
    it.drained().await;
}

#[tokio::test]
async fn a_row_that_results_fails_at_holds_up_nothing_but_itself() {
    let it = Setting::start().await;
    it.accept(&it.globex, &["1"]).await;
    it.accept(&it.acme, &["1", "2", "\"bad\"", "3", "4"]).await;
    it.answers(|_, data| match data {
        "\"bad\"" => Err(Error::internal("a fault of results").into()),
        _ => Ok(Recording::Recorded),
    });
    it.until_recorded("globex", &["1"]).await;
    it.until_recorded("acme", &["1", "2", "3", "4"]).await;
    it.accept(&it.acme, &["5"]).await;
    it.until_recorded("acme", &["5"]).await;
    it.answers(works);
    it.until_recorded("acme", &["\"bad\""]).await;
    it.drained().await;
}

#[tokio::test]
async fn a_row_that_results_refuses_for_good_is_set_aside_with_the_reason() {
    let it = Setting::start().await;
    it.accept(&it.globex, &["1"]).await;
    it.accept(&it.acme, &["1", "\"large\"", "2"]).await;
    it.answers(|_, data| match data {
        "\"large\"" => {
            Err(Error::new(Kind::ResourceExhausted, "REQUEST_TOO_LARGE", "at most 7 bytes").into())
        }
        _ => Ok(Recording::Recorded),
    });
    it.until_recorded("globex", &["1"]).await;
    it.until_recorded("acme", &["1", "2"]).await;
    let sql = it.pair.ingest_database.sql().await;
    let why = eventually("the row set aside", || async {
        let why = sql.query_opt("SELECT set_aside FROM outbox WHERE set_aside IS NOT NULL", &[]).await;
        why.unwrap().map(|row| row.get::<_, String>(0))
    });
    assert_eq!(why.await, "the results service refused it: at most 7 bytes");
    eventually("the others gone", || async { (backlog(&sql).await == 1).then_some(()) }).await;
}

/// No room is no refusal, whatever the call was of.
#[tokio::test]
async fn what_results_has_no_room_for_is_handed_over_again() {
    let it = Setting::start().await;
    it.accept(&it.acme, &["1"]).await;
    it.answers(|_, _| {
        let full = Error::new(Kind::ResourceExhausted, "OVERLOADED", "come again");
        Err(full.retry_after(std::time::Duration::from_secs(1)).into())
    });
    let refused = || async {
        let calls = it.shared.calls.lock().unwrap();
        (calls.iter().filter(|code| **code == Code::ResourceExhausted).count() > 1).then_some(())
    };
    eventually("calls without room", refused).await;
    it.answers(works);
    it.until_recorded("acme", &["1"]).await;
    it.drained().await;
}

#[tokio::test]
async fn results_that_wait_for_a_storage_are_not_in_the_way_of_others_of_the_organisation() {
    let it = Setting::start().await;
    it.accept(&it.acme, &["\"waits 1\"", "\"waits 2\"", "1"]).await;
    it.answers(|_, data| match data.starts_with("\"waits") {
        true => Ok(Recording::Deferred),
        false => Ok(Recording::Recorded),
    });
    it.until_recorded("acme", &["1"]).await;
    it.accept(&it.acme, &["\"waits 3\"", "2"]).await;
    it.until_recorded("acme", &["2"]).await;
    it.answers(works);
    it.until_recorded("acme", &["\"waits 1\"", "\"waits 2\"", "\"waits 3\""]).await;
    it.drained().await;
}

/// Rows of nobody, each with so many results of the same content.
async fn release(sql: &tokio_postgres::Client, rows: usize, results_each: usize) {
    let (mut ids, mut payloads) = (Vec::new(), Vec::new());
    for n in 0..rows {
        let id = || Uuid::now_v7().to_string();
        let result = || NewResult { id: id(), data: n.to_string().into(), ..NewResult::default() };
        let batch = ResultBatch {
            organisation: "acme".into(),
            results: (0..results_each).map(|_| result()).collect(),
            ..ResultBatch::default()
        };
        ids.push(Uuid::now_v7());
        payloads.push(compress(&batch.encode_to_vec()).unwrap());
    }
    let released = "INSERT INTO outbox (id, organisation, format, results, traceparent, payload)
        SELECT id, 'acme', 1, $2, '', payload FROM unnest($1::uuid[], $3::bytea[]) AS r(id, payload)";
    sql.execute(released, &[&ids, &(results_each as i32), &payloads]).await.unwrap();
}

#[tokio::test]
async fn rows_that_are_taken_over_go_in_calls_of_many() {
    const ROWS: usize = 3000;
    let it = Setting::start().await;
    it.answers(works);
    // Two at a time, so that what counts is what a row says it holds.
    release(&it.pair.ingest_database.sql().await, ROWS, 2).await;
    it.drained().await;
    let recorded = it.shared.recorded.lock().unwrap();
    assert_eq!((recorded.len(), recorded.values().sum::<usize>()), (ROWS, 2 * ROWS), "each once");
    let calls = it.shared.calls.lock().unwrap().len();
    assert!(calls < ROWS / 10, "{calls} calls for {ROWS} rows");
}

/// A statement that takes too long is cut off, and would be tried again for ever.
#[tokio::test]
async fn recorded_rows_are_deleted_so_many_at_a_time() {
    let it = Setting::start().await;
    it.answers(works);
    let sql = it.pair.ingest_database.sql().await;
    let no_more = "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN ASSERT (SELECT count(*) FROM gone) <= 512; RETURN NULL; END';
        CREATE TRIGGER no_more AFTER DELETE ON outbox REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION no_more()";
    sql.batch_execute(no_more).await.unwrap();
    release(&sql, 3000, 1).await;
    it.drained().await;
}
