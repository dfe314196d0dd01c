//! RecordResults: idempotent, bounded, and fair to the others of a batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_proto::results::v1::{
    GetResultRequest, ListResultsRequest, NewResult, record_results_response::Recording, result::State,
};
use sluice_tests::Tenant;
use tonic::Code;
use uuid::Uuid;

use crate::results::shelf::{ACME, Shelf, ids, new, record, walk};

#[tokio::test]
async fn a_record_says_what_was_handed_over() {
    let shelf = Shelf::start().await;
    let given = NewResult { task: "t".into(), r#type: "text/plain".into(), ..new("abc") };
    shelf.record(std::slice::from_ref(&given)).await;
    let request = GetResultRequest { organisation: String::new(), id: given.id.clone() };
    let kept = shelf.results(Tenant::Acme).get_result(request).await.unwrap().into_inner().result.unwrap();
    assert_eq!(kept.checksum, "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!((kept.size, kept.state()), (3, State::Available));
    assert_eq!(kept.url, format!("db://results/acme/{}", given.id));
    assert_eq!((kept.resource.as_str(), kept.organisation.as_str()), ("result", ACME));
    assert_eq!((kept.definition, kept.poll, kept.task), (given.definition, given.poll, given.task));
    assert_eq!((kept.identifier, kept.r#type), (given.identifier, given.r#type));
    assert!(kept.date_created.is_some() && kept.date_consumed.is_none() && kept.date_deleted.is_none());
}

#[tokio::test]
async fn recording_again_is_answered_alike_and_changes_nothing() {
    let shelf = Shelf::start().await;
    let first = new("first");
    shelf.record(&[first.clone(), first.clone()]).await;
    let request = GetResultRequest { organisation: String::new(), id: first.id.clone() };
    let mut results = shelf.results(Tenant::Acme);
    let before = results.get_result(request.clone()).await.unwrap().into_inner();
    let other = NewResult { data: "second".into(), poll: "other".into(), ..first };
    shelf.record(&[other]).await;
    assert_eq!(results.get_result(request).await.unwrap().into_inner(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_results_handed_over_at_once_to_two_replicas_are_recorded_once() {
    let shelf = Shelf::with_replicas(2).await;
    let given: Vec<NewResult> = (0..100).map(|n| new(format!("{n}"))).collect();
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let mut intake = shelf.intake(caller % 2);
            let mut mine = given.clone();
            // Each in another order.
            mine.rotate_left(caller * 6);
            tokio::spawn(async move { record(&mut intake, ACME, mine).await.unwrap() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), vec![Recording::Recorded; 100]);
    }
    assert_eq!(in_the_database(&shelf).await, contents(&given));
    let sql = shelf.0.results_database.sql().await;
    let apart = "SELECT count(*) FROM data_block AS b FULL JOIN result AS r ON r.block = b.id
                 WHERE b.id IS NULL OR r.id IS NULL";
    let apart: i64 = sql.query_one(apart, &[]).await.unwrap().get(0);
    assert_eq!(apart, 0, "blocks nobody points to, or results without one");
}

/// The data of each id.
fn contents(given: &[NewResult]) -> BTreeMap<String, Bytes> {
    given.iter().map(|result| (result.id.clone(), result.data.clone())).collect()
}

/// The same of what is AVAILABLE, and not as a replica remembers it.
async fn in_the_database(shelf: &Shelf) -> BTreeMap<String, Bytes> {
    let states = [State::Available, State::Expired].map(i32::from).to_vec();
    let all = ListResultsRequest { states, data_bytes_max: 1_000_000, page_size: 1000, ..Default::default() };
    let listed = walk(&mut shelf.results(Tenant::Acme), all).await;
    let count = listed.len();
    let contents: BTreeMap<_, _> =
        listed.into_iter().map(|record| (record.id, record.data.expect("its data"))).collect();
    assert_eq!(contents.len(), count, "one is listed twice");
    contents
}

#[tokio::test]
async fn what_can_never_be_recorded_is_refused_and_the_rest_is_not() {
    let shelf = Shelf::start().await;
    let bad = [
        NewResult { id: Uuid::new_v4().to_string(), ..new("x") },
        NewResult { id: "nonsense".into(), ..new("x") },
        NewResult { definition: String::new(), ..new("x") },
        NewResult { poll: String::new(), ..new("x") },
        NewResult { identifier: String::new(), ..new("x") },
        NewResult { r#type: String::new(), ..new("x") },
        NewResult { task: "a\0b".into(), ..new("x") },
        NewResult { poll: "p".repeat(513), ..new("x") },
    ];
    let good = [new("first"), new("last")];
    let mut given = vec![good[0].clone()];
    given.extend(bad.iter().cloned());
    given.push(good[1].clone());
    let told = record(&mut shelf.intake(0), ACME, given).await.unwrap();
    let mut expected = vec![Recording::Refused; bad.len() + 2];
    (expected[0], expected[bad.len() + 1]) = (Recording::Recorded, Recording::Recorded);
    assert_eq!(told, expected);
    let told = record(&mut shelf.intake(0), "not/valid", vec![new("x")]).await.unwrap();
    assert_eq!(told, [Recording::Refused]);
    let listed = walk(&mut shelf.results(Tenant::Acme), ListResultsRequest::default()).await;
    assert_eq!(ids(&listed), [&good[1].id, &good[0].id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_the_database_refuses_is_found_among_the_others_of_its_group() {
    let shelf = Shelf::start().await;
    let sql = shelf.0.results_database.sql().await;
    sql.batch_execute("ALTER TABLE result ADD CHECK (identifier <> 'poison')").await.unwrap();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let mut intake = shelf.intake(0);
            let mut given: Vec<NewResult> = (0..20).map(|n| new(format!("{n}"))).collect();
            if caller == 5 {
                given[13].identifier = "poison".into();
            }
            tokio::spawn(async move {
                let told = record(&mut intake, ACME, given.clone()).await.unwrap();
                (given, told)
            })
        })
        .collect();
    let mut recorded = Vec::new();
    for (caller, told) in callers.into_iter().enumerate() {
        let (mut given, told) = told.await.unwrap();
        let mut expected = vec![Recording::Recorded; 20];
        if caller == 5 {
            expected[13] = Recording::Refused;
            given.remove(13);
        }
        assert_eq!(told, expected, "caller {caller}");
        recorded.extend(given);
    }
    assert_eq!(in_the_database(&shelf).await, contents(&recorded));
}

#[tokio::test]
async fn a_request_is_bounded_in_results_and_in_bytes() {
    let shelf = Shelf::start().await;
    let mut intake = shelf.intake(0);
    let most: Vec<NewResult> = (0..1000).map(|_| new("x")).collect();
    assert_eq!(record(&mut intake, ACME, most.clone()).await.unwrap().len(), 1000);
    let mut more = most;
    more.push(new("x"));
    assert_eq!(record(&mut intake, ACME, more).await.unwrap_err().code(), Code::ResourceExhausted);
    let limit = 16 * 1024 * 1024;
    assert!(record(&mut intake, ACME, vec![new(vec![7; limit])]).await.is_ok());
    let over = record(&mut intake, ACME, vec![new(vec![7; limit]), new("x")]).await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn small_records_share_blocks() {
    let shelf = Shelf::start().await;
    let given: Vec<NewResult> = (0..300).map(|n| new(format!("{{\"n\":{n}}}"))).collect();
    shelf.record(&given).await;
    let sql = shelf.0.results_database.sql().await;
    let blocks = sql.query_one("SELECT count(*) FROM data_block", &[]).await.unwrap();
    assert_eq!(blocks.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_commit_is_a_batch_for_each_poll_and_two_hundred_results() {
    let shelf = Shelf::start().await;
    for polls in [vec!["a"; 200], vec!["b"; 201], vec!["c", "other"]] {
        let given = polls.into_iter().map(|poll| NewResult { poll: poll.into(), ..new("x") });
        shelf.record(&given.collect::<Vec<_>>()).await;
    }
    let sql = shelf.0.results_database.sql().await;
    for table in ["batch", "available"] {
        let rows = format!("SELECT poll, cardinality(ids) FROM {table} ORDER BY poll, first_id");
        let rows = sql.query(&rows, &[]).await.unwrap();
        let rows: Vec<(String, i32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let expected = [("a", 200), ("b", 200), ("b", 1), ("c", 1), ("other", 1)];
        assert_eq!(rows, expected.map(|(poll, ids)| (poll.to_owned(), ids)), "{table}");
    }
}

#[tokio::test]
async fn a_tenant_cannot_reach_the_intake() {
    let shelf = Shelf::start().await;
    for tenant in [Tenant::Acme, Tenant::Globex] {
        let authorised = shelf.0.authorised(tenant, &shelf.0.results[0]);
        let refused = record(&mut crate::results::shelf::Intake::new(authorised), ACME, vec![new("x")]).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
}
