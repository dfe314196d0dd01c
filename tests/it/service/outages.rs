//! Processes and servers die while publishers publish. These are told `retry`
//! or UNAVAILABLE and nothing else; afterwards all adds up.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use sluice::connection::{Clients, is_serving};
use sluice_proto::{
    ingest::v1::{Definition, Observation, Outcome, PutDefinitionRequest},
    results::v1::BatchAcknowledgeResultsRequest,
};
use sluice_tests::{Database, Link, Proxy, Service, Tenant, eventually};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::{service::rolling::Load, support::*};

/// Publishers that go on until they are told to end, and then until each of
/// their observations has its final outcome.
fn load_of(clients: &[Clients]) -> (Load, JoinSet<()>) {
    let (load, mut publishers) = (Load::default(), JoinSet::new());
    for (publisher, clients) in clients.iter().cloned().enumerate() {
        let load = load.clone();
        publishers.spawn(async move {
            for batch in 0.. {
                let mark =
                    |n| marked("plain", &format!("{publisher}/{batch}/{n}"), &format!("[{batch},{n}]"));
                load.keep(until_final(&clients, (0..10).map(mark).collect()).await);
                if !load.goes_on().await {
                    return;
                }
            }
        });
    }
    (load, publishers)
}

/// Sends again whatever has no final outcome yet. Only what may happen in an
/// outage is borne.
async fn until_final(clients: &Clients, observations: Vec<Observation>) -> Contents {
    let unavailable = |status: &Status| status.code() == Code::Unavailable;
    until_final_by(|| Some(clients.clone()), unavailable, observations).await
}

/// The same by whom `pick` says, if there is anybody; what is borne is the caller's
/// to say.
pub async fn until_final_by(
    mut pick: impl FnMut() -> Option<Clients>,
    is_borne: impl Fn(&Status) -> bool,
    observations: Vec<Observation>,
) -> Contents {
    let mut all = Contents::new();
    let mut left = observations;
    while !left.is_empty() {
        let Some(mut clients) = pick() else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let said = match clients.ingest.publish_observations(request(left.clone())).await {
            Ok(answer) => answer.into_inner().observations,
            Err(status) => {
                assert!(is_borne(&status), "{status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let mut again = Vec::new();
        for (observation, said) in left.into_iter().zip(said) {
            match said.outcome() {
                Outcome::Success => all.extend(accepted(&[observation], &[said])),
                // Told by a try whose answer was lost or unknown.
                Outcome::Duplicate if said.original_outcome() == Outcome::Success => {
                    let first = sluice_proto::ingest::v1::PublicationOutcome {
                        outcome: Outcome::Success as i32,
                        ..said
                    };
                    all.extend(accepted(&[observation], &[first]));
                }
                Outcome::Retry => again.push(observation),
                _ => panic!("{said:?}"),
            }
        }
        left = again;
    }
    all
}

#[tokio::test]
async fn killing_results_while_publishing_is_not_noticed_by_publishers() {
    let mut pair = builder().processes().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let (load, publishers) = load_of(&[acme.clone(), acme.clone()]);
    for _ in 0..2 {
        load.more(20).await;
        pair.results[0].kill();
        load.more(20).await;
        pair.results[0].restart(true).await;
    }
    let all = load.end(publishers).await;
    adds_up(&pair, &acme, &all).await;
}

#[tokio::test]
async fn killing_one_of_two_replicas_of_ingest_while_publishing_loses_nothing() {
    let mut pair = builder().processes().ingest_replicas(2).start().await;
    let (first, second) = (pair.clients_of(Tenant::Acme, 0, 0), pair.clients_of(Tenant::Acme, 1, 0));
    put(&first, definition("plain")).await;
    let (load, publishers) = load_of(&[second.clone(), second.clone()]);
    // Their answers are lost with the replica: nobody knows what was kept.
    let lost: JoinSet<_> = (0..8)
        .map(|n| {
            let mut client = first.ingest.clone();
            async move {
                let mark = |m: usize| marked("plain", &format!("lost/{n}/{m}"), &format!("[{n},{m}]"));
                let observations: Vec<_> = (0..100).map(mark).collect();
                let answer = client.publish_observations(request(observations.clone())).await;
                (observations, answer.map(|answer| answer.into_inner().observations))
            }
        })
        .collect();
    load.more(5).await;
    pair.ingest[0].kill();
    load.more(5).await;
    let mut all = load.end(publishers).await;
    for (observations, answer) in lost.join_all().await {
        let again = until_final(&second, observations.clone()).await;
        if let Ok(said) = answer {
            assert_eq!(accepted(&observations, &said), again, "what was told before the kill holds");
        }
        all.extend(again);
    }
    adds_up(&pair, &second, &all).await;
}

#[tokio::test]
async fn killing_postgresql_while_publishing_leads_to_retries_and_afterwards_all_adds_up() {
    let mut pair = builder().processes().own_server().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let (load, publishers) = load_of(&vec![acme.clone(); 4]);
    for signal in ["-KILL", "-QUIT"] {
        load.more(40).await;
        pair.server().crash(signal).await;
        let url = pair.ingest[0].url();
        eventually("a replica that knows it", || async { (!is_serving(&url).await).then_some(()) }).await;
        pair.server().restart().await;
    }
    load.more(40).await;
    let all = load.end(publishers).await;
    pair.ingest[0].serving().await;
    adds_up(&pair, &acme, &all).await;
    assert_eq!(all.keys().collect::<BTreeSet<_>>().len(), all.len());
    pair.ingest[0].stop().await;
}

#[tokio::test]
async fn health_is_not_serving_while_the_database_is_refused_and_serving_again_after() {
    let pair = builder().proxied(Link::IngestDatabase).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    pair.proxy(Link::IngestDatabase).refuse();
    let url = pair.ingest[0].url();
    eventually("NOT_SERVING", || async { (!is_serving(&url).await).then_some(()) }).await;
    let said = publish(&acme, vec![json("plain", "1"), json("nobody/knows", "1")]).await;
    assert_eq!(told(&said), [(Outcome::Retry, "NOT_KEPT"); 2], "unknown is only said after a look");
    pair.proxy(Link::IngestDatabase).pass();
    pair.ingest[0].serving().await;
    let let_in = || async {
        let said = publish_one(&acme, marked("plain", "m", "1")).await;
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    let id = eventually("success again", let_in).await;
    adds_up(&pair, &acme, &[(id, "1".into())].into()).await;
}

#[tokio::test]
async fn of_several_servers_one_that_is_silent_keeps_nobody_from_the_others() {
    let mut databases = Vec::new();
    let mut silent = Vec::new();
    for service in [Service::Ingest, Service::Results] {
        let database = Database::create(service).await;
        let direct = format!("127.0.0.1:{}/", database.port());
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], database.port()))).await;
        proxy.stall();
        let both = format!("{},{direct}", proxy.address());
        databases.push(Database::at(database.url(), database.service_url().replace(&direct, &both)));
        silent.push(proxy);
    }
    let [ingest, results] = databases.try_into().unwrap();
    let pair = builder().on(ingest, results).start().await;
    let acme = pair.clients(Tenant::Acme);
    let put = || async {
        let request = PutDefinitionRequest { definition: Some(definition("plain")) };
        acme.definitions.clone().put_definition(request).await.ok()
    };
    eventually("a definition", put).await;
    let all = until_final(&acme, vec![marked("plain", "m", "1")]).await;
    assert_eq!(all.len(), 1);
    adds_up(&pair, &acme, &all).await;
}

/// A reader that went by the oldest transaction still open, or a queue that
/// needs vacuum to stay short, would stand still here.
#[tokio::test]
async fn a_transaction_that_somebody_holds_open_holds_nobody_up() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let mut held = Vec::new();
    for database in [&pair.ingest_database, &pair.results_database] {
        let sql = database.sql().await;
        // With a snapshot, and an id of its own.
        let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()";
        sql.batch_execute(open).await.unwrap();
        held.push(sql);
    }
    for round in 0..3 {
        let batch: Vec<_> =
            (0..50).map(|n| marked("plain", &format!("{round}/{n}"), &format!("[{round},{n}]"))).collect();
        let said = publish(&acme, batch.clone()).await;
        let accepted = accepted(&batch, &said);
        assert_eq!(accepted.len(), batch.len());
        adds_up(&pair, &acme, &accepted).await;
        let ids: Vec<_> = accepted.into_keys().collect();
        let request = BatchAcknowledgeResultsRequest { ids: ids.clone(), ..Default::default() };
        let signed_off = acme.results.clone().batch_acknowledge_results(request).await.unwrap().into_inner();
        assert_eq!(signed_off.ids.len(), ids.len());
    }
    for sql in held {
        sql.batch_execute("COMMIT").await.expect("it was open all the time");
    }
}

/// What it was about to let in is locked, and by nobody who could let go.
#[tokio::test]
async fn a_replica_that_stands_still_within_a_gate_holds_nobody_up() {
    let pair = builder().processes().ingest_replicas(2).start().await;
    let (first, second) = (pair.clients_of(Tenant::Acme, 0, 0), pair.clients_of(Tenant::Acme, 1, 0));
    // With a counter, which takes two trips.
    put(&first, Definition { unique: seconds(LONG), ..throttled("once", 1000) }).await;
    let before = publish_one(&first, marked("once", "before", "{\"keys\":0}")).await;
    let observation = marked("once", "m", "{\"keys\":1}");
    let (sql, held) = (pair.ingest_database.sql().await, pair.ingest_database.sql().await);
    // The one session that there is, since nothing went another way.
    let gate = "SELECT state, coalesce(wait_event_type, '') FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'sluice-ingest-gate'";
    let state = async || -> (String, String) {
        let row = sql.query_one(gate, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let (publishing, still) = loop {
        held.batch_execute("BEGIN; LOCK TABLE unique_window IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let publishing = tokio::spawn({
            let (first, observation) = (first.clone(), observation.clone());
            async move { publish_one(&first, observation).await }
        });
        // Its marker is in; it waits for its window, and stands still before it has it.
        eventually("a gate that waits", || async { (state().await.1 == "Lock").then_some(()) }).await;
        let still = pair.ingest[0].pause().await;
        held.batch_execute("COMMIT").await.unwrap();
        let waited = || async { Some(state().await.0).filter(|state| state != "active") };
        if eventually("the end of its wait", waited).await == "idle in transaction" {
            break (publishing, still);
        }
        // It had waited for too long before.
        drop(still);
        assert_eq!(publishing.await.unwrap().outcome(), Outcome::Retry);
    };

    let let_in = || async {
        let said = publish_one(&second, observation.clone()).await;
        assert!([Outcome::Success, Outcome::Retry].contains(&said.outcome()), "{said:?}");
        (said.outcome() == Outcome::Success).then_some(said.ingest_id)
    };
    let id = eventually("success through the other replica", let_in).await;
    drop(still);
    let said = publishing.await.unwrap();
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Retry, "NOT_KEPT"), "{said:?}");
    assert_eq!(publish_one(&first, observation).await.outcome(), Outcome::Duplicate);
    let all = [(before.ingest_id, "{\"keys\":0}".into()), (id, "{\"keys\":1}".into())].into();
    adds_up(&pair, &second, &all).await;
}
