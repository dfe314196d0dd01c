//! One organisation's flood, and work past its deadline: neither is at anybody
//! else's cost.

use std::time::Duration;

use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tonic::{Code, Request};

use crate::{support::*, telemetry::exposition::scrape};

/// One lane, and definitions of both organisations.
async fn start() -> (Pair, Clients, Clients) {
    let pair = builder().admin().flag(Service::Ingest, "lanes", "1").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    put(&acme, definition("plain")).await;
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    (pair, acme, globex)
}

/// Keeps every gate waiting for as long as it is there: the lock that they share.
async fn gate_shut(pair: &Pair) -> Client {
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(x'67617465'::bigint)").await.unwrap();
    sql
}

async fn waiting(pair: &Pair) -> f64 {
    scrape(pair.ingest[0].admin()).await.sum("sluice_lane_waiting_requests", &[])
}

#[tokio::test]
async fn one_organisations_flood_does_not_starve_anothers() {
    let (pair, acme, globex) = start().await;
    let shut = gate_shut(&pair).await;
    // More than a batch holds is before the lane, and one batch in it.
    let mut flood = JoinSet::new();
    for call in 0..60 {
        let acme = acme.clone();
        flood.spawn(async move {
            let batch = (0..100).map(|n| json("plain", &format!("[{call},{n}]"))).collect();
            publish(&acme, batch).await
        });
    }
    eventually("a flood before the lane", || async { (waiting(&pair).await >= 40.0).then_some(()) }).await;
    let mut other = tokio::spawn(async move { publish_one(&globex, json("plain", "1")).await });
    let before = waiting(&pair).await;
    eventually("the other one", || async { (waiting(&pair).await > before).then_some(()) }).await;
    shut.batch_execute("COMMIT").await.unwrap();
    // Its turn comes with the next batch: before the flood has been worked off.
    let mut done_before = 0;
    let said = loop {
        tokio::select! {
            biased;
            said = &mut other => break said.unwrap(),
            Some(_) = flood.join_next() => done_before += 1,
        }
    };
    assert_eq!(said.outcome(), Outcome::Success);
    assert!(done_before <= 30, "{done_before} of 60 calls of the flood came first");
    for said in flood.join_all().await {
        assert!(kinds(&said).iter().all(|outcome| [Outcome::Success, Outcome::Retry].contains(outcome)));
    }
}

#[tokio::test]
async fn work_past_its_deadline_is_dropped_before_it_is_sealed_and_never_after() {
    let (pair, acme, _) = start().await;
    let shut = gate_shut(&pair).await;
    let call = |chkpt: &'static str, deadline: Option<Duration>| {
        let mut client = acme.ingest.clone();
        let mut sent = Request::new(request(vec![marked("plain", chkpt, "1")]));
        if let Some(deadline) = deadline {
            sent.set_timeout(deadline);
        }
        tokio::spawn(async move {
            let answer = client.publish_observations(sent).await;
            answer.map(|answer| answer.into_inner().observations.remove(0))
        })
    };
    let soon = Some(Duration::from_millis(300));
    // The first is sealed at once and waits in the gate; its caller gives up.
    let sealed = call("sealed", soon);
    let gates = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'sluice-ingest-gate' AND wait_event_type = 'Lock'";
    let sql = pair.ingest_database.sql().await;
    eventually("a gate that waits", || async {
        (sql.query_one(gates, &[]).await.unwrap().get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    // The second waits for the lane until its deadline has passed, the third longer.
    let unsealed = call("unsealed", soon);
    eventually("one that waits", || async { (waiting(&pair).await >= 1.0).then_some(()) }).await;
    for late in [sealed, unsealed] {
        // Told by the service, or by tonic's client, whichever clock is the first.
        let code = late.await.unwrap().unwrap_err().code();
        assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
    }
    let patient = call("patient", None);
    eventually("another one", || async { (waiting(&pair).await >= 2.0).then_some(()) }).await;
    shut.batch_execute("COMMIT").await.unwrap();
    assert_eq!(patient.await.unwrap().unwrap().outcome(), Outcome::Success);
    drained(&pair).await;
    // A resend tells: what was sealed was kept, what was not left nothing.
    assert_eq!(results(&acme).await.len(), 2);
    let said = publish(&acme, vec![marked("plain", "sealed", "1"), marked("plain", "unsealed", "1")]).await;
    assert_eq!(kinds(&said), [Outcome::Duplicate, Outcome::Success]);
    assert_eq!(said[0].original_outcome(), Outcome::Success);
}
