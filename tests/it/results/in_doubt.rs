//! The connection to the database breaks around the commit of an acknowledgement: callers
//! are told that it can't be said now, and asking again tells what became of it.

use std::time::Duration;

use sluice_proto::results::v1::{
    GetResultRequest, ListResultsRequest, NewResult, Result as Record, result::State,
};
use sluice_tests::{Cut, Link, Pair, Tenant};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::{
    results::acknowledging::{acknowledge, try_acknowledge_many},
    results::shelf::{ACME, Shelf, new, walk},
};

/// Two replicas that reach their database by a proxy, and results of one batch that the
/// first of them remembers.
async fn behind_a_proxy() -> (Shelf, Vec<NewResult>) {
    let pair = Pair::builder().ingest_replicas(0).results_replicas(2).proxied(Link::ResultsDatabase);
    let shelf = Shelf(pair.start().await);
    let given: Vec<NewResult> = (0..5).map(|n| new(format!("{n}"))).collect();
    shelf.record(&given).await;
    (shelf, given)
}

fn ids(given: &[NewResult]) -> Vec<String> {
    given.iter().map(|result| result.id.clone()).collect()
}

/// What a caller may be told of what is in doubt, if it is no answer.
fn is_honest(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "says when to come again: {status:?}");
}

/// How often each of these was consumed, and how many of them are available.
async fn kept(shelf: &Shelf, given: &[NewResult]) -> (Vec<usize>, usize) {
    let sql = shelf.0.results_database.sql().await;
    let members = async |table| -> Vec<String> {
        let query = format!("SELECT unnest(ids)::text FROM {table} WHERE organisation = '{ACME}'");
        sql.query(&query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let (consumed, available) = (members("consumed").await, members("available").await);
    let times = |id: String| consumed.iter().filter(|consumed| **consumed == id).count();
    let waiting = ids(given).into_iter().filter(|id| available.contains(id)).count();
    (ids(given).into_iter().map(times).collect(), waiting)
}

async fn is_consumed(shelf: &Shelf, given: &[NewResult]) {
    assert_eq!(kept(shelf, given).await, (vec![1; given.len()], 0), "once, and available no more");
    for replica in [0, 1] {
        let listed = walk(&mut shelf.results_of(Tenant::Acme, replica), ListResultsRequest::default()).await;
        assert!(listed.iter().all(|record| !ids(given).contains(&record.id)), "{listed:?}");
    }
}

/// One is asked of a replica, and the connection is cut there; then it is asked of each.
/// Whether each answer said that it changed something; `None`: no answer.
async fn one_by_one(cut: Cut, replica: usize) -> Vec<Option<bool>> {
    let (shelf, given) = behind_a_proxy().await;
    let proxy = shelf.0.proxy(Link::ResultsDatabase);
    proxy.arm(cut);
    let mut records: Vec<Record> = vec![];
    let mut changed = vec![];
    for replica in [replica, 0, 1] {
        let mut results = shelf.results_of(Tenant::Acme, replica);
        match results.acknowledge_result(acknowledge(&given[0].id)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                records.extend(answer.result);
                changed.push(Some(answer.changed));
            }
            Err(status) => {
                is_honest(&status);
                changed.push(None);
            }
        }
        proxy.was_cut().await;
    }
    assert_eq!(proxy.cuts(), 1);
    assert!(records.iter().all(|record| record.state() == State::Consumed && *record == records[0]));
    is_consumed(&shelf, &given[..1]).await;
    assert_eq!(kept(&shelf, &given[1..]).await, (vec![0; 4], 4), "nobody asked for the others");
    changed
}

#[tokio::test]
async fn an_acknowledgement_whose_answer_was_lost_is_done_once_and_said_to_be() {
    // The first knows the batch, the other one reads of it.
    for replica in [0, 1] {
        let changed = one_by_one(Cut::AFTER_ACKNOWLEDGING, replica).await;
        // Nobody is told that it was the first.
        assert_eq!(changed, [None, Some(false), Some(false)]);
    }
}

#[tokio::test]
async fn an_acknowledgement_that_never_arrived_is_done_when_it_is_asked_for_again() {
    for replica in [0, 1] {
        let changed = one_by_one(Cut::BEFORE_ACKNOWLEDGING, replica).await;
        assert_eq!(changed, [None, Some(true), Some(false)]);
    }
}

/// The same of many at once: the ids that each call changed.
async fn many_at_once(cut: Cut, replica: usize) -> (Vec<String>, Vec<Option<Vec<String>>>) {
    let (shelf, given) = behind_a_proxy().await;
    let (asked, proxy) = (ids(&given[..4]), shelf.0.proxy(Link::ResultsDatabase));
    proxy.arm(cut);
    let mut changed = vec![];
    for replica in [replica, 0, 1] {
        let mut results = shelf.results_of(Tenant::Acme, replica);
        let answer = try_acknowledge_many(&mut results, asked.clone()).await;
        changed.push(answer.map_err(|status| is_honest(&status)).ok());
        proxy.was_cut().await;
    }
    assert_eq!(proxy.cuts(), 1);
    is_consumed(&shelf, &given[..4]).await;
    assert_eq!(kept(&shelf, &given[4..]).await, (vec![0], 1), "nobody asked for the other one");
    (asked, changed)
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_acknowledged_once() {
    for replica in [0, 1] {
        let (_, changed) = many_at_once(Cut::AFTER_ACKNOWLEDGING, replica).await;
        assert_eq!(changed, [None, Some(vec![]), Some(vec![])]);
    }
}

#[tokio::test]
async fn a_batch_that_never_arrived_is_acknowledged_when_it_is_asked_for_again() {
    for replica in [0, 1] {
        let (asked, changed) = many_at_once(Cut::BEFORE_ACKNOWLEDGING, replica).await;
        assert_eq!(changed, [None, Some(asked), Some(vec![])]);
    }
}

#[tokio::test]
async fn a_session_that_has_gone_silent_is_lent_to_nobody_else() {
    let (shelf, given) = behind_a_proxy().await;
    shelf.0.proxy(Link::ResultsDatabase).arm(Cut::SILENT_ACKNOWLEDGING);
    let mut results = shelf.results_of(Tenant::Acme, 0);
    let mut asked = Request::new(acknowledge(&given[0].id));
    asked.set_timeout(Duration::from_secs(1));
    results.acknowledge_result(asked).await.unwrap_err();
    // Whoever left it left it in use: there are others.
    let one = GetResultRequest { id: given[1].id.clone(), ..Default::default() };
    let found = results.get_result(one).await.unwrap().into_inner().result.unwrap();
    assert_eq!(found.state(), State::Available);
}
