//! Many publishers at once, over two replicas: whatever the order, the counts
//! are exact.

use std::collections::{BTreeMap, BTreeSet};

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Observation, Outcome, PublicationOutcome};
use sluice_tests::{Pair, Tenant};
use tokio::task::JoinSet;

use crate::support::*;

/// Two replicas of ingest, and connections of their own for each publisher, in
/// turn over the replicas.
async fn two_replicas(publishers: usize) -> (Pair, Vec<Clients>) {
    let pair = builder().ingest_replicas(2).start().await;
    let clients = (0..publishers).map(|n| pair.clients_of(Tenant::Acme, n % 2, 0)).collect();
    (pair, clients)
}

/// Publishes everything at the same time.
async fn at_once(work: Vec<(Clients, Vec<Observation>)>) -> Vec<(Vec<Observation>, Vec<PublicationOutcome>)> {
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(work.len()));
    let mut all = JoinSet::new();
    for (clients, observations) in work {
        let barrier = barrier.clone();
        all.spawn(async move {
            barrier.wait().await;
            let said = publish(&clients, observations.clone()).await;
            (observations, said)
        });
    }
    all.join_all().await
}

fn count(outcomes: &[PublicationOutcome], kind: Outcome) -> usize {
    kinds(outcomes).into_iter().filter(|outcome| *outcome == kind).count()
}

#[tokio::test]
async fn of_16_publishers_of_one_unique_key_exactly_one_succeeds() {
    let (pair, clients) = two_replicas(16).await;
    put(&clients[0], unique("once")).await;
    let mut accepted_all = Contents::new();
    for round in 0..10 {
        let keyed = |n: usize| vec![json("once", &format!(r#"{{"n":{n},"keys":{round}}}"#))];
        let answers =
            at_once(clients.iter().cloned().enumerate().map(|(n, c)| (c, keyed(n))).collect()).await;
        let said: Vec<_> = answers.iter().map(|(_, said)| said[0].clone()).collect();
        assert_eq!((count(&said, Outcome::Success), count(&said, Outcome::Suppressed)), (1, 15), "{said:?}");
        let named: BTreeSet<_> = ids(&said).into_iter().collect();
        assert_eq!(named.len(), 1, "all name the one that was let in: {said:?}");
        accepted_all.extend(answers.iter().flat_map(|(sent, said)| accepted(sent, said)));
    }
    adds_up(&pair, &clients[0], &accepted_all).await;
}

#[tokio::test]
async fn a_throttle_lets_exactly_its_count_in_over_two_replicas() {
    let (pair, clients) = two_replicas(12).await;
    for (definition, allowed) in [("seven", 7), ("hundred", 100)] {
        put(&clients[0], throttled(definition, allowed)).await;
        let mut work = Vec::new();
        for clients in &clients {
            for batch in 0..4 {
                let observations = (0..5).map(|n| json(definition, &format!("[{batch},{n}]"))).collect();
                work.push((clients.clone(), observations));
            }
        }
        let said: Vec<_> = at_once(work).await.into_iter().flat_map(|(_, said)| said).collect();
        let (success, throttled) = (count(&said, Outcome::Success), count(&said, Outcome::Throttled));
        assert_eq!((success, throttled), (allowed as usize, 240 - allowed as usize), "{definition}");
    }
    drained(&pair).await;
    assert_eq!(results(&clients[0]).await.len(), 107);
}

#[tokio::test]
async fn one_chkpt_sent_50_times_at_once_succeeds_once() {
    let (pair, clients) = two_replicas(10).await;
    put(&clients[0], definition("plain")).await;
    let sent = || vec![marked("plain", "mark", r#"{"a":1}"#)];
    let answers = at_once((0..50).map(|n| (clients[n % 10].clone(), sent())).collect()).await;
    let said: Vec<_> = answers.iter().map(|(_, said)| said[0].clone()).collect();
    assert_eq!((count(&said, Outcome::Success), count(&said, Outcome::Duplicate)), (1, 49), "{said:?}");
    assert_eq!(ids(&said).into_iter().collect::<BTreeSet<_>>().len(), 1);
    assert!(said.iter().all(|said| said.outcome() == Outcome::Success || said.reason == "CHKPT"));
    let accepted = answers.iter().flat_map(|(sent, said)| accepted(sent, said)).collect();
    adds_up(&pair, &clients[0], &accepted).await;
}

#[tokio::test]
async fn batches_that_share_keys_in_other_orders_never_get_in_each_others_way() {
    let (pair, clients) = two_replicas(8).await;
    let all_rules = Definition { throttle_count: 30, throttle_period: seconds(LONG), ..unique("all") };
    put(&clients[0], all_rules).await;
    put(&clients[0], unique("once")).await;
    // Each publisher sends the same 40 keys, rotated and every other one reversed.
    let batch = |publisher: usize| {
        let mut keys: Vec<usize> = (0..40).map(|n| (n * 7 + publisher * 5) % 40).collect();
        if publisher % 2 == 1 {
            keys.reverse();
        }
        let both = |key: &usize| {
            let content = format!(r#"{{"keys":{key},"from":{publisher}}}"#);
            ["all", "once"].map(|definition| marked(definition, &format!("{key}/{}", key % 3), &content))
        };
        keys.iter().flat_map(both).collect::<Vec<_>>()
    };
    let work = (0..16).map(|n| (clients[n % 8].clone(), batch(n))).collect();
    let answers = at_once(work).await;
    let said: Vec<_> = answers.iter().flat_map(|(_, said)| said.clone()).collect();
    assert_eq!((count(&said, Outcome::Retry), count(&said, Outcome::Error)), (0, 0), "nobody is in the way");
    // 40 keys under `once` and 30 of 40 under `all`.
    assert_eq!(count(&said, Outcome::Success), 70);
    // Every other one of a marker repeats the first one's id.
    let mut by_marker: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (observation, said) in answers.iter().flat_map(|(sent, said)| sent.iter().zip(said)) {
        let key = (observation.definition.clone(), observation.chkpt.clone());
        by_marker.entry(key).or_default().insert(said.ingest_id.clone());
    }
    assert!(by_marker.values().all(|ids| ids.len() == 1), "{by_marker:?}");
    let accepted = answers.iter().flat_map(|(sent, said)| accepted(sent, said)).collect();
    adds_up(&pair, &clients[0], &accepted).await;
}

#[tokio::test]
async fn equal_requests_at_once_under_one_request_id_are_kept_once() {
    let (pair, clients) = two_replicas(8).await;
    put(&clients[0], definition("plain")).await;
    let observations: Vec<_> = (0..20).map(|n| json("plain", &format!("{}", n / 2))).collect();
    let mut all = JoinSet::new();
    for clients in clients.clone() {
        let observations = observations.clone();
        all.spawn(async move { publish_as(&clients, "r", observations).await.observations });
    }
    let answers = all.join_all().await;
    let said: Vec<_> = answers.iter().flatten().cloned().collect();
    assert_eq!((count(&said, Outcome::Success), count(&said, Outcome::Duplicate)), (20, 140));
    assert!(answers.iter().all(|answer| ids(answer) == ids(&answers[0])), "each is told the same id");
    let accepted = answers.iter().flat_map(|said| accepted(&observations, said)).collect();
    adds_up(&pair, &clients[0], &accepted).await;
}
