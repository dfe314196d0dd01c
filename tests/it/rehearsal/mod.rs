//! What happens in a cluster, rehearsed with processes in the pods' place, by the
//! probes, the preStop and the grace period of the production manifests: a rolling
//! update, a lost pod, a lost database, a lost results service. TLS as there.

mod pods;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sluice_proto::ingest::v1::Definition;
use sluice_tests::{Link, Pair, PairBuilder, Service, Tenant, eventually_within};
use tokio::task::JoinSet;

use self::pods::{Manifest, Pods};
use crate::{
    service::outages::until_final_by,
    service::rolling::{Load, consumer, publisher, streamer},
    support::*,
};

/// Between the calls of a caller: enough to be in the middle of anything, and
/// little enough to leave the processors to others.
const PAUSE: Duration = Duration::from_millis(25);
/// Calls that show that callers go on.
const MANY: usize = 40;
/// How long a step may take that has to take seconds.
const STEP: Duration = Duration::from_secs(60);

/// Pods by their Deployments. A rolling update makes `more` new ones of each.
fn deployed(pods: u32, more: u32) -> PairBuilder {
    let mut builder = builder().processes().tls().ingest_replicas(pods + more).results_replicas(pods + more);
    for service in [Service::Ingest, Service::Results] {
        for (name, value) in Manifest::of(service).flags {
            builder = builder.flag(service, &name, &value);
        }
    }
    builder
}

/// The pods of both services; the last `spare` of each are not there yet.
fn pods(pair: &mut Pair, spare: usize) -> (Pods, Pods) {
    let (ingest, results) = (pair.ingest.len(), pair.results.len());
    let of_ingest = (0..ingest).map(|n| pair.clients_of(Tenant::Acme, n, 0)).collect();
    let of_results = (0..results).map(|n| pair.clients_of(Tenant::Globex, 0, n)).collect();
    (
        Pods::new(Service::Ingest, std::mem::take(&mut pair.ingest), of_ingest, spare),
        Pods::new(Service::Results, std::mem::take(&mut pair.results), of_results, spare),
    )
}

#[tokio::test]
async fn a_rolling_update_fails_no_request_and_loses_no_observation() {
    // Two of each in place of three: the rest is as the manifests say.
    let mut pair = deployed(2, 2).start().await;
    let (acme, globex) = (pair.clients_of(Tenant::Acme, 3, 3), pair.clients(Tenant::Globex));
    put(&acme, definition("plain")).await;
    put(&globex, Definition { organisation: "globex".into(), ..definition("theirs") }).await;
    for n in 0..10 {
        publish(&globex, (0..50).map(|m| json("theirs", &format!("[{n},{m}]"))).collect()).await;
    }
    drained(&pair).await;
    let (mut ingest, mut results) = pods(&mut pair, 2);
    ingest.all_ready().await;
    results.all_ready().await;

    let load = Load::with_pauses(PAUSE);
    let mut callers = JoinSet::new();
    for name in 0..2 {
        callers.spawn(publisher(load.clone(), ingest.ready(), name));
    }
    callers.spawn(streamer(load.clone(), ingest.ready()));
    callers.spawn(consumer(load.clone(), results.ready()));
    load.more(MANY).await;
    // In the order of deploy/kubernetes/apply.
    results.roll().await;
    load.more(MANY).await;
    ingest.roll().await;
    load.more(MANY).await;
    results.all_gone().await;
    ingest.all_gone().await;
    load.more(MANY).await;
    let all = load.end(callers).await;
    // The last of the new pods have the addresses of these clients.
    adds_up(&pair, &acme, &all).await;
}

/// Publishes until everything has its final outcome, by any pod that is said to be
/// ready, whatever happens.
async fn resender(load: Load, pods: crate::service::rolling::Ready, name: usize) {
    let turn = Arc::new(AtomicUsize::new(0));
    for n in 0.. {
        let mark = |m: usize| marked("plain", &format!("{name}/{n}/{m}"), &format!("[{name},{n},{m}]"));
        let pick = || {
            let ready = pods.0.lock().unwrap();
            (!ready.is_empty()).then(|| ready[turn.fetch_add(1, Relaxed) % ready.len()].clone())
        };
        load.keep(until_final_by(pick, |_| true, (0..5).map(mark).collect()).await);
        if !load.goes_on().await {
            return;
        }
    }
}

#[tokio::test]
async fn a_lost_pod_a_lost_database_and_lost_results_lose_no_observation() {
    let links = [Link::IngestDatabase, Link::ResultsDatabase];
    let mut pair = links.into_iter().fold(deployed(2, 0), PairBuilder::proxied).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let (mut ingest, mut results) = pods(&mut pair, 0);
    let load = Load::with_pauses(PAUSE);
    let mut callers = JoinSet::new();
    for name in 0..3 {
        callers.spawn(resender(load.clone(), ingest.ready(), name));
    }
    load.more(MANY).await;

    // Pods that are gone from one moment to the next; their containers come again.
    for pods in [&mut ingest, &mut results] {
        pods.kill(0);
        load.more(MANY).await;
        pods.start(0).await;
        pods.all_ready().await;
    }

    // Databases that are away: no pod is ready, every pod lives, and none is replaced.
    for (link, pods) in [(Link::IngestDatabase, &ingest), (Link::ResultsDatabase, &results)] {
        pair.proxy(link).refuse();
        pods.none_ready().await;
        pods.all_live().await;
        if link == Link::ResultsDatabase {
            // What is accepted waits for results.
            load.more(MANY).await;
        }
        pair.proxy(link).pass();
        pods.all_ready().await;
        load.more(MANY).await;
    }

    // All of results.
    results.kill(0);
    results.kill(1);
    load.more(MANY).await;
    let sql = pair.ingest_database.sql().await;
    let backlogged = || async { (backlog(&sql).await > 0).then_some(()) };
    eventually_within(STEP, "a backlog", backlogged).await;
    results.start(0).await;
    results.start(1).await;
    results.all_ready().await;
    load.more(MANY).await;

    let all = load.end(callers).await;
    adds_up(&pair, &acme, &all).await;
    ingest.all_live().await;
}
