//! Emission without a database and a results service.

use std::{net::SocketAddr, sync::atomic::AtomicUsize};

use sluice_proto::results::v1::ResultBatch;
use sluice_service::{
    client::TokenInterceptor,
    metrics::Registry,
    peer::{ClientTls, Peer},
    postgres::Database,
};
use tokio::net::TcpListener;

use super::*;
use crate::{metrics::Metrics, warnings::at_warnings};

/// An emitter whose database is there.
fn emitter(database: SocketAddr) -> Emitter {
    let database = Database::parse(&format!("postgres://nobody@{database}/none")).unwrap();
    let pool = database.pool(crate::sessions::OUTBOX, 1).unwrap();
    let results = Peer::new(vec![], ClientTls::default()).unwrap();
    let metrics = Metrics::register(&mut Registry::new("test", "0"), 0).emission;
    let token = TokenInterceptor::new("token").unwrap();
    let caller = Caller::new(results, token, pool, Uuid::nil(), metrics);
    let (_, incoming) = mpsc::unbounded_channel();
    let (_, found) = mpsc::channel(1);
    let (done, _) = mpsc::unbounded_channel();
    Emitter::new(incoming, found, caller, done, Arc::default())
}

/// They are still in the outbox, and nobody here knows of them any more.
#[tokio::test]
async fn a_hand_over_that_panics_lets_go_of_all_rows() {
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut emitter = emitter(database.local_addr().unwrap());
    emitter.queue.push_back(Row::found(Uuid::nil(), "acme".parse().unwrap(), 1, 1));
    emitter.calls.spawn(async { panic!("a hand-over that panics") });
    emitter.calls.spawn(std::future::pending());
    let handed = emitter.calls.join_next().await.unwrap();
    assert!(handed.is_err());
    // All that it asks the database for is to release them; here it hangs up.
    let asked = tokio::spawn(async move { drop(database.accept().await.unwrap()) });
    emitter.finish(handed).await;
    assert!(asked.is_finished(), "the database is asked");
    assert!(emitter.queue.is_empty());
    assert!(emitter.calls.is_empty(), "what was under way is others'");
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_together_are_one_failure() {
    // It reaches nobody.
    let mut emitter = emitter(([127, 0, 0, 1], 1).into());
    let mut row = Row::found(Uuid::now_v7(), "acme".parse().unwrap(), 1, 1);
    row.message = Some(Arc::new(ResultBatch::default()));
    emitter.queue.push_back(row);
    for _ in 0..CALLS_MAX {
        emitter.note(Err("away".into())).await;
    }
    emitter.dispatch(false);
    assert_eq!(emitter.calls.len(), 0, "no pause");
    tokio::time::advance(PAUSE_MIN).await;
    emitter.dispatch(false);
    assert_eq!(emitter.calls.len(), 1, "the first pause is over");
}

/// Its row was another's, so nothing was sent.
#[tokio::test]
async fn a_hand_over_without_a_call_does_not_tell_that_calls_work() {
    let mut emitter = emitter(([127, 0, 0, 1], 1).into());
    emitter.queue.push_back(Row::found(Uuid::nil(), "acme".parse().unwrap(), 1, 1));
    emitter.note(Err("away".into())).await;
    emitter.wake();
    let call = emitter.queue.next_call(Instant::now());
    let rows = call.rows.into_iter().map(|row| (row, Some(Handover::NotOurs))).collect();
    emitter.finish(Ok(Handed { rows, apart: call.apart, trouble: None, works: None })).await;
    assert!(emitter.queue.is_empty());
    assert!(emitter.emission_fails.load(Relaxed) && emitter.failing_since.is_some());
    assert!(emitter.paused_until.is_some(), "nothing would be taken over any more");
    emitter.wake();
    assert!(!emitter.emission_fails.load(Relaxed) && emitter.failing_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_results_service_is_told_once() {
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let _counting = at_warnings(move || _ = counted.fetch_add(1, Relaxed));
    // It reaches nobody.
    let mut emitter = emitter(([127, 0, 0, 1], 1).into());
    let mut row = Row::found(Uuid::now_v7(), "acme".parse().unwrap(), 1, 1);
    row.message = Some(Arc::new(ResultBatch::default()));
    emitter.queue.push_back(row);
    for _ in 0..3 {
        emitter.dispatch(false);
        let handed = emitter.calls.join_next().await.unwrap();
        emitter.finish(handed).await;
        tokio::time::advance(PAUSE_MAX).await;
    }
    assert_eq!(told.load(Relaxed), 1);
}
