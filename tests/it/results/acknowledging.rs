//! Acknowledging: once, by whoever is first, and never somebody else's.

use std::collections::HashSet;

use sluice_proto::results::v1::{
    AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, DownloadResultRequest, GetResultRequest,
    ListResultsRequest, NewResult, result::State,
};
use sluice_tests::{Tenant, eventually};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::results::shelf::{ACME, Results, Shelf, face, new, record, walk};

pub fn acknowledge(id: &str) -> AcknowledgeResultRequest {
    AcknowledgeResultRequest { organisation: String::new(), id: id.into() }
}

pub async fn try_acknowledge_many(results: &mut Results, ids: Vec<String>) -> Result<Vec<String>, Status> {
    let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids };
    Ok(results.batch_acknowledge_results(request).await?.into_inner().ids)
}

async fn acknowledge_many(results: &mut Results, ids: Vec<String>) -> Vec<String> {
    try_acknowledge_many(results, ids).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_acknowledgements_at_once_exactly_one_changes_something() {
    let shelf = Shelf::with_replicas(2).await;
    for _ in 0..10 {
        let given = new("x");
        shelf.record(std::slice::from_ref(&given)).await;
        let callers: Vec<_> = (0..16)
            .map(|caller| {
                let mut results = shelf.results_of(Tenant::Acme, caller % 2);
                let request = acknowledge(&given.id);
                tokio::spawn(async move { results.acknowledge_result(request).await.unwrap().into_inner() })
            })
            .collect();
        let mut answers = vec![];
        for caller in callers {
            answers.push(caller.await.unwrap());
        }
        assert_eq!(answers.iter().filter(|answer| answer.changed).count(), 1);
        let record = answers[0].result.clone().unwrap();
        assert_eq!(record.state(), State::Consumed);
        assert!(record.date_consumed.is_some());
        assert!(answers.iter().all(|answer| answer.result.as_ref() == Some(&record)));
    }
    assert!(walk(&mut shelf.results(Tenant::Acme), ListResultsRequest::default()).await.is_empty());
}

#[tokio::test]
async fn a_batch_tells_what_it_changed_in_request_order_and_passes_the_rest_over() {
    let shelf = Shelf::start().await;
    let given: Vec<NewResult> = (0..5).map(|n| new(format!("{n}"))).collect();
    shelf.record(&given).await;
    record(&mut shelf.intake(0), "globex", vec![new("theirs")]).await.unwrap();
    let theirs = walk(&mut shelf.results(Tenant::Globex), ListResultsRequest::default()).await;
    shelf.expire(&given[3].id).await;
    let mut results = shelf.results(Tenant::Acme);
    results.acknowledge_result(acknowledge(&given[4].id)).await.unwrap();

    let id = |n: usize| given[n].id.clone();
    let asked = vec![
        id(2),
        "nonsense".into(),
        id(0).to_uppercase(),
        String::new(),
        id(3),
        id(2),
        id(4),
        Uuid::now_v7().to_string(),
        theirs[0].id.clone(),
        id(0),
        id(1),
    ];
    assert_eq!(acknowledge_many(&mut results, asked.clone()).await, [id(2), id(0), id(1)]);
    assert!(acknowledge_many(&mut results, asked).await.is_empty(), "nothing is changed twice");
    assert!(acknowledge_many(&mut results, vec![]).await.is_empty());
    let theirs_now = walk(&mut shelf.results(Tenant::Globex), ListResultsRequest::default()).await;
    assert_eq!(theirs_now, theirs);
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let shelf = Shelf::start().await;
    let mut results = shelf.results(Tenant::Acme);
    let ids = |count| vec![Uuid::now_v7().to_string(); count];
    assert!(acknowledge_many(&mut results, ids(10_000)).await.is_empty());
    let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids: ids(10_001) };
    let refused = results.batch_acknowledge_results(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("ids:"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_overlap_change_each_id_once() {
    let shelf = Shelf::with_replicas(2).await;
    let given: Vec<NewResult> = (0..1500).map(|_| new("x")).collect();
    shelf.record(&given).await;
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let mut results = shelf.results_of(Tenant::Acme, caller % 2);
            let mut ids: Vec<String> = given.iter().map(|result| result.id.clone()).collect();
            ids.rotate_left(caller * 180);
            if caller % 2 == 1 {
                ids.reverse();
            }
            tokio::spawn(async move { acknowledge_many(&mut results, ids).await })
        })
        .collect();
    let mut changed = vec![];
    for caller in callers {
        changed.extend(caller.await.unwrap());
    }
    assert_eq!(changed.len(), given.len());
    assert_eq!(changed.into_iter().collect::<HashSet<_>>().len(), given.len());
}

/// As many batches as results: each was published by itself.
#[tokio::test]
async fn as_many_as_may_be_asked_for_are_acknowledged_at_once_whatever_batches_they_are_of() {
    let shelf = Shelf::start().await;
    let of_its_own = |n| NewResult { poll: format!("poll-{n}"), ..new("x") };
    let given: Vec<NewResult> = (0..10_000).map(of_its_own).collect();
    shelf.record(&given).await;
    let ids: Vec<String> = given.into_iter().map(|result| result.id).collect();
    assert_eq!(acknowledge_many(&mut shelf.results(Tenant::Acme), ids.clone()).await, ids);
}

/// Each takes its own from the same batch, whose row the others are at.
#[tokio::test(flavor = "multi_thread")]
async fn of_one_batch_many_at_once_acknowledge_theirs() {
    let shelf = Shelf::with_replicas(2).await;
    let given: Vec<NewResult> = (0..120).map(|_| new("x")).collect();
    shelf.record(&given).await;
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let mut results = shelf.results_of(Tenant::Acme, caller % 2);
            // Two callers for each.
            let own: Vec<String> =
                given.iter().skip(caller / 2).step_by(8).map(|result| result.id.clone()).collect();
            tokio::spawn(async move {
                let mut changed = vec![];
                for id in own {
                    let answer = results.acknowledge_result(acknowledge(&id)).await.unwrap().into_inner();
                    assert_eq!(answer.result.unwrap().state(), State::Consumed);
                    changed.extend(answer.changed.then_some(id));
                }
                changed
            })
        })
        .collect();
    let mut changed = vec![];
    for caller in callers {
        changed.extend(caller.await.unwrap());
    }
    assert_eq!(changed.len(), given.len());
    assert_eq!(changed.into_iter().collect::<HashSet<_>>().len(), given.len());
    assert!(walk(&mut shelf.results(Tenant::Acme), ListResultsRequest::default()).await.is_empty());
    let sql = shelf.0.results_database.sql().await;
    let left = sql.query_one("SELECT count(*) FROM available", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0, "a batch of which nothing is left has no row");
}

#[tokio::test]
async fn what_expired_unconsumed_can_no_longer_be_acknowledged() {
    let shelf = Shelf::start().await;
    let (unconsumed, consumed) = (new("x"), new("y"));
    shelf.record(&[unconsumed.clone(), consumed.clone()]).await;
    let mut results = shelf.results(Tenant::Acme);
    let before = results.acknowledge_result(acknowledge(&consumed.id)).await.unwrap().into_inner();
    shelf.expire(&unconsumed.id).await;
    shelf.expire(&consumed.id).await;

    let refused = results.acknowledge_result(acknowledge(&unconsumed.id)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let again = results.acknowledge_result(acknowledge(&consumed.id)).await.unwrap().into_inner();
    assert!(before.changed && !again.changed);
    let (before, again) = (before.result.unwrap(), again.result.unwrap());
    assert_eq!(again.state(), State::Expired);
    assert_eq!(again.date_consumed, before.date_consumed);
    assert!(again.date_deleted.is_some());
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_look_the_same() {
    let shelf = Shelf::start().await;
    let mine = new("mine");
    shelf.record(std::slice::from_ref(&mine)).await;
    let mut stranger = shelf.results(Tenant::Globex);
    let mut faces = HashSet::new();
    for id in [mine.id.clone(), Uuid::now_v7().to_string(), "nonsense".into(), String::new()] {
        let organisation = String::new();
        let get = GetResultRequest { organisation: organisation.clone(), id: id.clone() };
        faces.insert(face(stranger.get_result(get).await));
        faces.insert(face(stranger.acknowledge_result(acknowledge(&id)).await));
        faces.insert(face(stranger.download_result(DownloadResultRequest { organisation, id }).await));
    }
    assert_eq!(faces.len(), 1, "{faces:?}");
    assert!(faces.iter().all(|(code, ..)| *code == Code::NotFound));
    assert!(acknowledge_many(&mut stranger, vec![mine.id.clone()]).await.is_empty());
    let named = GetResultRequest { organisation: ACME.into(), id: mine.id };
    assert_eq!(stranger.get_result(named).await.unwrap_err().code(), Code::PermissionDenied);
    let open = walk(&mut shelf.results(Tenant::Acme), ListResultsRequest::default()).await;
    assert_eq!(open.len(), 1, "nothing was acknowledged");
}

#[tokio::test]
async fn what_is_recorded_while_it_is_asked_for_is_consumed_too() {
    let shelf = Shelf::with_replicas(2).await;
    let given = new("x");
    let sql = shelf.0.results_database.sql().await;
    // What reads the record waits for this, and what finds its batch before that does not;
    // nor does what records it.
    sql.batch_execute("BEGIN; LOCK TABLE expired IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let (mut results, request) = (shelf.results_of(Tenant::Acme, 1), acknowledge(&given.id));
    let asked = tokio::spawn(async move { results.acknowledge_result(request).await });
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'expired'::regclass)";
    let is_waiting = async || sql.query_one(waits, &[]).await.unwrap().get::<_, bool>(0).then_some(());
    eventually("the record to be read", is_waiting).await;
    shelf.record(std::slice::from_ref(&given)).await;
    sql.batch_execute("COMMIT").await.unwrap();
    let answer = asked.await.unwrap().unwrap().into_inner();
    assert!(answer.changed);
    assert_eq!(answer.result.unwrap().state(), State::Consumed);
}

#[tokio::test]
async fn that_an_acknowledgement_changed_something_is_told_whatever_else_can_not_be() {
    let shelf = Shelf::start().await;
    let given = new("x");
    shelf.record(std::slice::from_ref(&given)).await;
    let sql = shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE result SET storage_config = gen_random_uuid()").await.unwrap();
    let mut results = shelf.results(Tenant::Acme);
    let told = results.acknowledge_result(acknowledge(&given.id)).await.unwrap().into_inner();
    let result = told.result.unwrap();
    assert!(told.changed && result.state() == State::Consumed && result.url.is_empty());
    // Whoever asks again loses nothing by an error.
    let told = results.acknowledge_result(acknowledge(&given.id)).await.unwrap_err();
    assert_eq!(told.code(), Code::Internal);
}
