//! One organisation's flood, and work past its deadline: neither is at anybody
//! else's cost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use http_body_util::Full;
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{Definition, Outcome};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::{http::support::send, support::*, telemetry::exposition::scrape};

/// How long a gate waits for a lock.
const GATE_PATIENCE: Duration = Duration::from_secs(1);

/// One lane, and definitions of both organisations.
async fn start() -> (Pair, Clients, Clients) {
    let pair = builder().admin().flag(Service::Ingest, "lanes", "1").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    put(&acme, definition("plain")).await;
    put(&globex, Definition { organisation: "globex".into(), ..definition("plain") }).await;
    (pair, acme, globex)
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
    eventually("all of the flood and the other one", || async {
        let seen = scrape(pair.ingest[0].admin()).await;
        (seen.sum("sluice_observations_total", &[]) == 6001.0).then_some(())
    })
    .await;
    shut.batch_execute("COMMIT").await.unwrap();
    // Its turn comes with the next batch: before the flood has been processed.
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

/// One request that the database refuses, among those that wait for a lane; or nothing, if
/// the gate was not opened again in time to see it. What was accepted goes to `all`.
async fn was_refused_alone(pair: &Pair, path: &str, all: &mut Contents) -> bool {
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let refused = async || {
        let seen = scrape(pair.ingest[0].admin()).await;
        seen.sum("sluice_commits_total", &[("result", "refused")])
    };
    let before = refused().await;
    let shut = gate_shut(pair).await;
    let call = |clients: &Clients| {
        let (mut client, sent) = (clients.ingest.clone(), request(vec![json(path, "1")]));
        tokio::spawn(async move {
            client.publish_observations(sent).await.map(|answer| answer.into_inner().observations.remove(0))
        })
    };
    let (since, mut others) = (Instant::now(), vec![call(&acme)]);
    gate_waits(pair).await;
    others.extend((0..5).map(|_| call(&acme)));
    let to_blame = call(&globex);
    eventually("all others", || async { (waiting(pair).await >= 6.0).then_some(()) }).await;
    shut.batch_execute("COMMIT").await.unwrap();
    let in_time = since.elapsed() < GATE_PATIENCE;
    for other in others {
        let said = other.await.unwrap().unwrap();
        assert!(said.outcome() == Outcome::Success || !in_time, "{said:?}");
        all.extend(accepted(&[json(path, "1")], &[said]));
    }
    let told = to_blame.await.unwrap();
    if in_time {
        assert_eq!(told.unwrap_err().code(), Code::Internal);
        // All six together, and that one alone.
        assert_eq!(refused().await - before, 2.0);
    }
    in_time
}

#[tokio::test]
async fn one_request_that_the_database_refuses_fails_alone() {
    let (pair, acme, globex) = start().await;
    put(&acme, throttled("few", u32::MAX >> 1)).await;
    put(&globex, Definition { organisation: "globex".into(), ..throttled("few", u32::MAX >> 1) }).await;
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("ALTER TABLE outbox ADD CHECK (organisation <> 'globex')").await.unwrap();
    let mut all = Contents::new();
    // In one trip, and in two.
    for path in ["plain", "few"] {
        // A gate waits for a second, and on a busy machine that may not do.
        let mut attempts = 0;
        while !was_refused_alone(&pair, path, &mut all).await {
            attempts += 1;
            assert!(attempts < 20, "never within a second");
        }
    }
    adds_up(&pair, &acme, &all).await;
}

/// Keeps acme's commits from ending: those of one result by lock 42, larger ones by 43.
const HANGING: &str = "IF NEW.organisation = 'acme' THEN
    PERFORM pg_advisory_xact_lock_shared(CASE NEW.results WHEN 1 THEN 42 ELSE 43 END); END IF";

/// Two lanes, and some definitions of both organisations. The session holds acme's commits
/// up, and tells how many it does by which lock.
async fn with_hanging_commits() -> (Pair, Client, Vec<String>) {
    let pair = builder().admin().flag(Service::Ingest, "lanes", "2").start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    let paths: Vec<_> = (0..9).map(|n| format!("kind/{n}")).collect();
    for path in &paths {
        put(&acme, definition(path)).await;
        put(&globex, Definition { organisation: "globex".into(), ..definition(path) }).await;
    }
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("SELECT pg_advisory_lock(42), pg_advisory_lock(43)").await.unwrap();
    sql.batch_execute(&hanging_commit(HANGING)).await.unwrap();
    (pair, sql, paths)
}

async fn hanging(sql: &Client, by: u32, commits: i64) {
    let waits = "SELECT count(*) = $2 FROM pg_locks
                 WHERE locktype = 'advisory' AND objid = $1 AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("commits that hang", || async {
        sql.query_one(waits, &[&by, &commits]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_hangs_is_not_waited_for_by_other_organisations() {
    let (pair, sql, paths) = with_hanging_commits().await;
    let mut calls = JoinSet::new();
    for (n, path) in paths.clone().into_iter().enumerate() {
        let acme = pair.clients(Tenant::Acme);
        calls.spawn(async move { publish_one(&acme, json(&path, "1")).await });
        // Each lane has one, the others wait for them.
        match n {
            0 => hanging(&sql, 42, 1).await,
            1 => hanging(&sql, 42, 2).await,
            _ => {
                eventually("one more", async || (waiting(&pair).await >= n as f64 - 1.0).then_some(())).await
            }
        }
    }
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    hanging(&sql, 43, 1).await;
    // Seven hang, and one waits: not for them.
    let globex = pair.clients(Tenant::Globex);
    let said = publish(&globex, paths.iter().map(|path| json(path, "1")).collect()).await;
    assert_eq!(kinds(&said), [Outcome::Success; 9]);
    hanging(&sql, 43, 1).await;
    sql.batch_execute("SELECT pg_advisory_unlock(43)").await.unwrap();
    for said in calls.join_all().await {
        assert_eq!(said.outcome(), Outcome::Success);
    }
}

#[tokio::test]
async fn a_lane_that_gets_no_session_leaves_what_waits_to_the_others() {
    let (pair, sql, paths) = with_hanging_commits().await;
    let mut calls = JoinSet::new();
    for (path, lanes) in paths[..2].iter().cloned().zip(1..) {
        let acme = pair.clients(Tenant::Acme);
        calls.spawn(async move { publish_one(&acme, json(&path, "1")).await });
        hanging(&sql, 42, lanes).await;
    }
    sql.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    calls.join_all().await;
    // Each lane has a session now. The first, which takes what comes alone, loses it.
    let refusing = format!("ALTER DATABASE {} CONNECTION LIMIT 0", pair.ingest_database.name());
    sql.batch_execute(&refusing).await.unwrap();
    let first = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'sluice-ingest-gate' ORDER BY backend_start LIMIT 1";
    assert!(sql.query_one(first, &[]).await.unwrap().get::<_, bool>(0));
    let globex = pair.clients(Tenant::Globex);
    let mut told = Vec::new();
    for n in 0..20 {
        told.push(publish_one(&globex, json(&paths[0], &n.to_string())).await.outcome());
    }
    // It tries again and again, later and later, each time at one call's cost.
    let successes = told.iter().filter(|outcome| **outcome == Outcome::Success).count();
    assert!(successes >= 10, "{told:?}");
}

#[tokio::test]
async fn work_past_its_deadline_is_dropped_before_it_is_sealed_and_never_after() {
    let (pair, acme, _) = start().await;
    // A gate waits for a second, and on a busy machine that may not do.
    for attempt in 0.. {
        assert!(attempt < 20, "never within a second");
        if was_dropped_before_it_was_sealed(&pair, &acme, attempt).await {
            return;
        }
    }
}

/// Whether the gate was opened again in time to see it.
async fn was_dropped_before_it_was_sealed(pair: &Pair, acme: &Clients, attempt: usize) -> bool {
    let named = |name: &str| marked("plain", &format!("{name}/{attempt}"), "1");
    let shut = gate_shut(pair).await;
    let call = |chkpt: &'static str, deadline: Option<Duration>| {
        let mut client = acme.ingest.clone();
        let mut sent = Request::new(request(vec![named(chkpt)]));
        if let Some(deadline) = deadline {
            sent.set_timeout(deadline);
        }
        tokio::spawn(async move {
            let answer = client.publish_observations(sent).await;
            answer.map(|answer| answer.into_inner().observations.remove(0))
        })
    };
    let kept_before = results(acme).await.len();
    let soon = Some(Duration::from_millis(300));
    // The first is sealed at once and waits in the gate; its caller gives up.
    let (since, sealed) = (Instant::now(), call("sealed", soon));
    gate_waits(pair).await;
    // The second waits for the lane until its deadline has passed, the third longer.
    let unsealed = call("unsealed", soon);
    eventually("one that waits", || async { (waiting(pair).await >= 1.0).then_some(()) }).await;
    for late in [sealed, unsealed] {
        // Told by the service, or by tonic's client, whichever clock is the first.
        let code = late.await.unwrap().unwrap_err().code();
        assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
    }
    let patient = call("patient", None);
    eventually("another one", || async { (waiting(pair).await >= 2.0).then_some(()) }).await;
    shut.batch_execute("COMMIT").await.unwrap();
    let in_time = since.elapsed() < GATE_PATIENCE;
    let patient = patient.await.unwrap().unwrap();
    drained(pair).await;
    if !in_time {
        return false;
    }
    assert_eq!(patient.outcome(), Outcome::Success);
    // A resend tells: what was sealed was kept, what was not left nothing.
    assert_eq!(results(acme).await.len() - kept_before, 2);
    let said = publish(acme, vec![named("sealed"), named("unsealed")]).await;
    assert_eq!(kinds(&said), [Outcome::Duplicate, Outcome::Success]);
    assert_eq!(said[0].original_outcome(), Outcome::Success);
    true
}

#[tokio::test]
async fn streams_and_http_callers_have_deadlines_too() {
    let (pair, acme, _) = start().await;
    // A gate waits for a second, and on a busy machine that may not do.
    for attempt in 0.. {
        assert!(attempt < 20, "never within a second");
        if late_callers_were_told(&pair, &acme, attempt).await {
            return;
        }
    }
}

/// Whether the gate was opened again in time to see it.
async fn late_callers_were_told(pair: &Pair, acme: &Clients, attempt: usize) -> bool {
    let chkpt = |name: &str| format!("{name}/{attempt}");
    let since = Instant::now();
    let shut = gate_shut(pair).await;
    // Sealed at once, and waits in the gate: what comes later waits for the lane.
    let (mut client, first) = (acme.ingest.clone(), marked("plain", &chkpt("sealed"), "1"));
    let sealed =
        tokio::spawn(async move { client.publish_observations(request(vec![first])).await.unwrap() });
    gate_waits(pair).await;

    let soon = Duration::from_millis(300);
    let requests = tokio_stream::once(request(vec![marked("plain", &chkpt("stream"), "2")]));
    let mut stream = Request::new(requests.chain(tokio_stream::pending()));
    stream.set_timeout(soon);
    let over_grpc = async {
        match acme.ingest.clone().stream_observations(stream).await {
            Ok(answers) => answers.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        }
    };
    let body = format!(r#"[{{"path":"plain","chkpt":"{}","n":3}}]"#, chkpt("http"));
    let over_http = http::Request::post("/aepublish/v1/acme/observation")
        .header("host", "ingest")
        .header("authorization", format!("Token {}", pair.token(Tenant::Acme)))
        .header("content-type", "application/json")
        .header("grpc-timeout", format!("{}m", soon.as_millis()))
        .body(Full::<Bytes>::from(body))
        .unwrap();
    // At the same time: a gate waits no longer than a second.
    let over_http = send(pair.ingest[0].address(), Version::HTTP_11, over_http);
    let (late, answer) = tokio::join!(over_grpc, over_http);
    shut.batch_execute("COMMIT").await.unwrap();
    let in_time = since.elapsed() < GATE_PATIENCE;
    sealed.await.unwrap();
    if !in_time {
        return false;
    }
    // Told by the service, or by tonic's client, whichever clock is the first.
    let late = late.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late:?}");
    assert_eq!(answer.error(), (503, "unavailable".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
    // A resend tells: of the two nothing was kept.
    let chkpts = ["sealed", "stream", "http"].map(|name| marked("plain", &chkpt(name), "1"));
    let said = publish(acme, chkpts.to_vec()).await;
    assert_eq!(kinds(&said), [Outcome::Duplicate, Outcome::Success, Outcome::Success]);
    true
}
