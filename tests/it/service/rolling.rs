//! Several replicas of each service: what is accepted goes to all of results', and
//! nobody notices when each is replaced in turn, the way Kubernetes does it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sluice::connection::{Clients, is_serving};
use sluice_proto::{
    ingest::v1::{Outcome, PutDefinitionRequest},
    results::v1::{AcknowledgeResultRequest, ListResultsRequest},
};
use sluice_tests::{Pair, Service, Tenant, eventually};
use tokio::task::JoinSet;

use crate::{ingest::streams::Stream, support::*, telemetry::exposition::scrape};

#[tokio::test]
async fn every_replica_of_results_takes_its_share_and_the_others_that_of_one_that_dies() {
    let mut pair = builder().processes().admin().results_replicas(2).start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let mut all = Contents::new();
    let recorded = async |pair: &Pair, replica: usize| {
        scrape(pair.results[replica].admin()).await.sum("sluice_recordings_total", &[])
    };
    let mut batch = 0..;
    let mut publish_some = async |all: &mut Contents| {
        let batch = batch.next().unwrap();
        let observations: Vec<_> = (0..10).map(|n| json("plain", &format!("[{batch},{n}]"))).collect();
        let said = publish(&acme, observations.clone()).await;
        all.extend(accepted(&observations, &said));
    };
    for replica in 0..2 {
        while recorded(&pair, replica).await == 0.0 {
            publish_some(&mut all).await;
        }
    }
    for killed in 0..2 {
        pair.results[killed].kill();
        for _ in 0..10 {
            publish_some(&mut all).await;
        }
        drained(&pair).await;
        pair.results[killed].restart(true).await;
    }
    drained(&pair).await;
    are_the_results(&acme, &all).await;
}

/// Sessions have prepared what a later build's migration changes under them.
#[tokio::test]
async fn replicas_go_on_when_a_migration_adds_columns() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("before")).await;
    let mut all = Contents::new();
    let mut arrives = async |path: &str| {
        let observation = json(path, &format!("{path:?}"));
        let let_in = || async {
            let said = publish_one(&acme, observation.clone()).await;
            (said.outcome() == Outcome::Success).then_some(said)
        };
        let said = eventually("a publish that is let in", let_in).await;
        all.extend(accepted(&[observation], &[said]));
        adds_up(&pair, &acme, &all).await;
    };
    arrives("before").await;
    let add = |table: &str| format!("ALTER TABLE {table} ADD COLUMN later int");
    pair.ingest_database.sql().await.batch_execute(&add("definition")).await.unwrap();
    pair.results_database.sql().await.batch_execute(&add("storage_config")).await.unwrap();
    eventually("a definition", || async {
        let put = PutDefinitionRequest { definition: Some(definition("after")) };
        acme.definitions.clone().put_definition(put).await.ok()
    })
    .await;
    arrives("after").await;
}

/// The replicas of one service that callers may use now, as a Service of Kubernetes
/// has them: those that said they are ready when they were last asked.
#[derive(Clone)]
pub struct Ready(pub Arc<Mutex<Vec<Clients>>>);

impl Ready {
    /// Follows the readiness of replicas by their URLs.
    fn follow(replicas: Vec<(String, Clients)>) -> (Self, JoinSet<()>) {
        let ready = Self(Arc::new(Mutex::new(replicas.iter().map(|(_, clients)| clients.clone()).collect())));
        let mut probes = JoinSet::new();
        let following = ready.clone();
        probes.spawn(async move {
            loop {
                let mut now = Vec::new();
                for (url, clients) in &replicas {
                    if is_serving(url).await {
                        now.push(clients.clone());
                    }
                }
                *following.0.lock().unwrap() = now;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        (ready, probes)
    }

    pub fn pick(&self, n: usize) -> Clients {
        let ready = self.0.lock().unwrap();
        assert!(!ready.is_empty(), "at least one replica is ready at any time");
        ready[n % ready.len()].clone()
    }
}

/// What callers do all the time, and how often it was done.
#[derive(Clone, Default)]
pub struct Load {
    ending: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    accepted: Arc<Mutex<Contents>>,
    /// Between a caller's calls.
    pause: Duration,
}

impl Load {
    /// One whose callers rest between their calls.
    pub fn with_pauses(pause: Duration) -> Self {
        Self { pause, ..Self::default() }
    }

    pub async fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Relaxed);
        tokio::time::sleep(self.pause).await;
        !self.ending.load(Relaxed)
    }

    /// Lets the callers end. All that was accepted.
    pub async fn end(&self, callers: JoinSet<()>) -> Contents {
        self.ending.store(true, Relaxed);
        callers.join_all().await;
        self.accepted.lock().unwrap().clone()
    }

    pub fn keep(&self, accepted: Contents) {
        self.accepted.lock().unwrap().extend(accepted);
    }

    pub async fn more(&self, calls: usize) {
        let aim = self.done.load(Relaxed) + calls;
        eventually("the callers to go on", || async { (self.done.load(Relaxed) >= aim).then_some(()) }).await;
    }
}

pub async fn publisher(load: Load, ready: Ready, name: usize) {
    for n in 0.. {
        let clients = ready.pick(n);
        let observations: Vec<_> = (0..5)
            .map(|m| marked("plain", &format!("{name}/{n}/{m}"), &format!(r#"["{name}",{n},{m}]"#)))
            .collect();
        let said = publish(&clients, observations.clone()).await;
        assert_eq!(kinds(&said), [Outcome::Success; 5], "{said:?}");
        load.keep(accepted(&observations, &said));
        if !load.goes_on().await {
            return;
        }
    }
}

/// Publishes by streams. One that ends is told so, after all answers, and is no
/// failure: another is opened.
pub async fn streamer(load: Load, ready: Ready) {
    for n in 0.. {
        let mut stream = Stream::open(&ready.pick(n)).await;
        for m in 0.. {
            let observation = json("plain", &format!(r#"["stream",{n},{m}]"#));
            let sent = stream.requests.send(request(vec![observation.clone()])).await;
            let answer = stream.answer().await;
            match answer {
                Ok(answer) => {
                    let said = answer.observations;
                    assert_eq!(kinds(&said), [Outcome::Success], "{said:?}");
                    load.keep(accepted(&[observation], &said));
                }
                Err(end) => {
                    assert!(end.message().contains("open another stream"), "{end:?} {sent:?}");
                    break;
                }
            }
            if !load.goes_on().await {
                return;
            }
        }
    }
}

/// Lists, gets and acknowledges what globex has, which nobody else looks at.
pub async fn consumer(load: Load, ready: Ready) {
    for n in 0.. {
        let mut results = ready.pick(n).results;
        let request = ListResultsRequest { page_size: 3, ..ListResultsRequest::default() };
        let page = results.list_results(request).await.unwrap().into_inner();
        for result in page.results {
            let request = AcknowledgeResultRequest { id: result.id, ..AcknowledgeResultRequest::default() };
            results.acknowledge_result(request).await.unwrap();
        }
        if !load.goes_on().await {
            return;
        }
    }
}

#[tokio::test]
async fn replacing_every_replica_in_turn_fails_no_request() {
    let mut pair = builder()
        .processes()
        .ingest_replicas(2)
        .results_replicas(2)
        .flag(Service::Ingest, "shutdown-wait-seconds", "2")
        .flag(Service::Results, "shutdown-wait-seconds", "2")
        .start()
        .await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    put(&acme, definition("plain")).await;
    let theirs =
        sluice_proto::ingest::v1::Definition { organisation: "globex".into(), ..definition("theirs") };
    put(&globex, theirs).await;
    for n in 0..20 {
        publish(&globex, (0..50).map(|m| json("theirs", &format!("[{n},{m}]"))).collect()).await;
    }
    drained(&pair).await;

    let of_ingest = |n: usize| (pair.ingest[n].url(), pair.clients_of(Tenant::Acme, n, 0));
    let of_results = |n: usize| (pair.results[n].url(), pair.clients_of(Tenant::Globex, 0, n));
    let (ingest, _probing) = Ready::follow((0..2).map(of_ingest).collect());
    let (results, _probing_too) = Ready::follow((0..2).map(of_results).collect());
    let load = Load::default();
    let mut callers = JoinSet::new();
    for name in 0..2 {
        callers.spawn(publisher(load.clone(), ingest.clone(), name));
    }
    callers.spawn(streamer(load.clone(), ingest.clone()));
    callers.spawn(consumer(load.clone(), results.clone()));

    load.more(50).await;
    for n in 0..2 {
        pair.ingest[n].stop().await;
        pair.ingest[n].restart(true).await;
        load.more(50).await;
        pair.results[n].stop().await;
        pair.results[n].restart(true).await;
        load.more(50).await;
    }
    let all = load.end(callers).await;
    adds_up(&pair, &acme, &all).await;
}
