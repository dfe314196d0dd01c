//! The results service without its database: it says so, loses nothing it
//! answered for, and serves again on its own.

use sluice::connection::is_serving;
use sluice_proto::results::v1::{GetResultRequest, ListResultsRequest, record_results_response::Recording};
use sluice_tests::{Cut, Database, Link, Pair, Service, Tenant, eventually};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    results::shelf::{ACME, Shelf, ids, new, record, walk},
    telemetry::exposition::scrape,
};

async fn proxied() -> Shelf {
    Shelf(Pair::builder().ingest_replicas(0).proxied(Link::ResultsDatabase).start().await)
}

#[tokio::test]
async fn an_outage_is_told_and_outlived() {
    let shelf = proxied().await;
    let before = new("before");
    shelf.record(std::slice::from_ref(&before)).await;
    let (proxy, url) = (shelf.0.proxy(Link::ResultsDatabase), shelf.0.results[0].url());

    proxy.refuse();
    eventually("NOT_SERVING", || async { (!is_serving(&url).await).then_some(()) }).await;
    let mut results = shelf.results(Tenant::Acme);
    let get = GetResultRequest { organisation: String::new(), id: before.id.clone() };
    let during = new("during");
    for status in [
        results.get_result(get.clone()).await.unwrap_err(),
        record(&mut shelf.intake(0), ACME, vec![during.clone()]).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some(), "says when to come again");
    }

    proxy.pass();
    shelf.0.results[0].serving().await;
    results.get_result(get).await.unwrap();
    shelf.record(std::slice::from_ref(&during)).await;
    let listed = walk(&mut results, ListResultsRequest::default()).await;
    assert_eq!(ids(&listed), [&during.id, &before.id]);
}

#[tokio::test]
async fn what_finds_no_database_is_counted_as_failed() {
    let shelf =
        Shelf(Pair::builder().ingest_replicas(0).proxied(Link::ResultsDatabase).admin().start().await);
    shelf.record(&[new("before")]).await;
    shelf.0.proxy(Link::ResultsDatabase).refuse();
    record(&mut shelf.intake(0), ACME, vec![new("during"), new("it")]).await.unwrap_err();
    let told = scrape(shelf.0.results[0].admin()).await;
    let counted =
        ["recorded", "failed"].map(|how| told.sum("sluice_recordings_total", &[("recording", how)]));
    assert_eq!(counted, [1.0, 2.0]);
}

#[tokio::test]
async fn a_recording_whose_answer_was_lost_is_recorded_once_and_said_to_be() {
    let shelf = proxied().await;
    // The lane's session is open already: what is cut is the recording itself.
    shelf.record(&[new("first")]).await;
    let mut doubtful = new("second");
    doubtful.identifier = "cut behind this".into();
    shelf.0.proxy(Link::ResultsDatabase).arm(Cut::BeforeAnswer(b"cut behind this", &[b"INSERT 0 1\0"]));
    let told = record(&mut shelf.intake(0), ACME, vec![doubtful.clone()]).await.unwrap();
    assert_eq!(told, [Recording::Recorded]);
    assert_eq!(shelf.0.proxy(Link::ResultsDatabase).cuts(), 1);
    let listed = walk(&mut shelf.results(Tenant::Acme), ListResultsRequest::default()).await;
    assert_eq!(listed.iter().filter(|record| record.id == doubtful.id).count(), 1);
}

#[tokio::test]
async fn without_its_schema_it_is_not_serving() {
    let shelf = Shelf::start().await;
    let (sql, url) = (shelf.0.results_database.sql().await, shelf.0.results[0].url());
    sql.batch_execute("ALTER TABLE refinery_schema_history RENAME TO elsewhere").await.unwrap();
    eventually("NOT_SERVING", || async { (!is_serving(&url).await).then_some(()) }).await;
    sql.batch_execute("ALTER TABLE elsewhere RENAME TO refinery_schema_history").await.unwrap();
    shelf.0.results[0].serving().await;
}

#[tokio::test]
async fn a_week_is_made_once_and_not_around_rows_that_are_there() {
    let sql = Database::create(Service::Results).await.sql().await;
    let week = "SELECT partition, state FROM make_week('2031-03-05 12:00Z')";
    let states = async || -> Vec<(String, String)> {
        sql.query(week, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let stray = "INSERT INTO consumed VALUES ('2031-03-06 00:00Z', now(), 'acme', 'poll', '{}')";
    sql.batch_execute(stray).await.unwrap();
    let of = |table: &str, state: &str| (format!("{table}_20310303"), state.to_owned());
    let made = ["result", "data_block", "consumed", "expired"];
    let expected =
        |state: &str| made.map(|table| of(table, if table == "consumed" { "occupied" } else { state }));
    assert_eq!(states().await, expected("created"));
    assert_eq!(states().await, expected("exists"));
    let rows = "SELECT count(*) FROM consumed_default";
    assert_eq!(sql.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 1, "the row stays where it is");
}
