//! A Deployment as Kubernetes treats it: pods are probed, are ready or not, are
//! replaced one by one, and stop as their manifest says.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use sluice::connection::{Clients, says_serving};
use sluice_tests::{Replica, Service, eventually_within};
use tokio::{task::JoinSet, time::sleep};

use super::STEP;
use crate::service::rolling::Ready;

/// Made from the manifests by deploy/check.
const ROLLOUT: &str = include_str!("../../../deploy/kubernetes/rollout.json");

/// A probe of grpc.health.v1.
#[derive(Clone)]
pub struct Probe {
    service: String,
    period: Duration,
    timeout: Duration,
    failures: u64,
}

/// What a Deployment says of its pods.
#[derive(Clone)]
pub struct Manifest {
    /// The settings of the service.
    pub flags: Vec<(String, String)>,
    min_ready: Duration,
    pre_stop: Duration,
    grace: Duration,
    liveness: Probe,
    readiness: Probe,
}

impl Manifest {
    pub fn of(service: Service) -> Self {
        let all: Value = serde_json::from_str(ROLLOUT).unwrap();
        let given = &all[service.name()];
        // Pods are replaced as `roll` does it.
        assert_eq!((given["max_surge"].as_u64(), given["max_unavailable"].as_u64()), (Some(1), Some(0)));
        let seconds = |of: &Value, name: &str| Duration::from_secs(of[name].as_u64().expect(name));
        let probe = |name: &str| Probe {
            service: given[name]["service"].as_str().unwrap().to_owned(),
            period: seconds(&given[name], "period_seconds"),
            timeout: seconds(&given[name], "timeout_seconds"),
            failures: given[name]["failure_threshold"].as_u64().unwrap(),
        };
        let flag = |(name, value): (&String, &Value)| {
            let name = name.strip_prefix("SLUICE_").unwrap().to_lowercase().replace('_', "-");
            (name, value.as_str().unwrap().to_owned())
        };
        Self {
            flags: given["environment"].as_object().unwrap().iter().map(flag).collect(),
            min_ready: seconds(given, "min_ready_seconds"),
            pre_stop: seconds(given, "pre_stop_seconds"),
            grace: seconds(given, "grace_seconds"),
            liveness: probe("liveness"),
            readiness: probe("readiness"),
        }
    }
}

impl Probe {
    /// Asks once.
    async fn passes(&self, url: &str) -> bool {
        tokio::time::timeout(self.timeout, says_serving(url, &self.service)).await.unwrap_or(false)
    }
}

/// A pod: its process, and what the cluster knows of it.
struct Pod {
    process: Option<Replica>,
    known: Arc<Known>,
}

struct Known {
    clients: Clients,
    /// Where it is probed.
    health: String,
    exists: AtomicBool,
    /// By its readiness probe. A pod that is being deleted counts as ready for as
    /// long as its preStop takes: by then at the latest everybody has heard of it.
    ready: AtomicBool,
    /// Liveness probes that failed, one after the other, at most.
    failures: AtomicU64,
}

/// The pods of one Deployment.
pub struct Pods {
    manifest: Manifest,
    pods: Vec<Pod>,
    ready: Ready,
    probes: JoinSet<()>,
    ending: JoinSet<()>,
}

impl Pods {
    /// Of processes that run. The last `spare` of them don't exist yet.
    pub fn new(service: Service, processes: Vec<Replica>, clients: Vec<Clients>, spare: usize) -> Self {
        let manifest = Manifest::of(service);
        let existing = processes.len() - spare;
        let mut pods = Vec::new();
        for (n, (mut process, clients)) in processes.into_iter().zip(clients).enumerate() {
            let health = format!("http://{}", process.health());
            let exists = n < existing;
            if !exists {
                process.kill();
            }
            let known = Arc::new(Known {
                clients,
                health,
                exists: exists.into(),
                ready: exists.into(),
                failures: 0.into(),
            });
            pods.push(Pod { process: Some(process), known });
        }
        let ready = Ready(Arc::new(Mutex::new(vec![])));
        let mut all = Self { manifest, pods, ready, probes: JoinSet::new(), ending: JoinSet::new() };
        all.tell();
        for n in 0..all.pods.len() {
            all.probe(n);
        }
        all
    }

    /// Those that callers may use now.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// Who is ready goes to the callers.
    fn teller(&self) -> impl Fn() + Send + 'static {
        let (known, ready): (Vec<_>, _) =
            (self.pods.iter().map(|pod| pod.known.clone()).collect(), self.ready.clone());
        move || {
            let now = known.iter().filter(|known| known.ready.load(Relaxed));
            *ready.0.lock().unwrap() = now.map(|known| known.clients.clone()).collect();
        }
    }

    fn tell(&self) {
        self.teller()();
    }

    /// Probes a pod for as long as it exists, the way the kubelet does.
    fn probe(&mut self, n: usize) {
        let (known, tell) = (self.pods[n].known.clone(), self.teller());
        let probe = self.manifest.readiness.clone();
        self.probes.spawn(async move {
            let mut failures = 0;
            loop {
                if known.exists.load(Relaxed) {
                    let passes = probe.passes(&known.health).await;
                    failures = if passes { 0 } else { failures + 1 };
                    // Deleted meanwhile: its end is told by who deletes it.
                    if known.exists.load(Relaxed) && (passes || failures >= probe.failures) {
                        known.ready.store(passes, Relaxed);
                        tell();
                    }
                }
                sleep(probe.period).await;
            }
        });
        let (known, probe) = (self.pods[n].known.clone(), self.manifest.liveness.clone());
        self.probes.spawn(async move {
            let mut failures = 0;
            loop {
                if known.exists.load(Relaxed) {
                    failures = if probe.passes(&known.health).await { 0 } else { failures + 1 };
                    known.failures.fetch_max(failures, Relaxed);
                }
                sleep(probe.period).await;
            }
        });
    }

    fn existing(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.pods.iter().map(|pod| &pod.known).filter(|known| known.exists.load(Relaxed))
    }

    pub async fn all_ready(&self) {
        let ready = || async { self.existing().all(|known| known.ready.load(Relaxed)).then_some(()) };
        eventually_within(STEP, "pods that are ready", ready).await;
    }

    pub async fn none_ready(&self) {
        let ready = || async { (!self.existing().any(|known| known.ready.load(Relaxed))).then_some(()) };
        eventually_within(STEP, "pods that are not ready", ready).await;
    }

    /// No pod would have been restarted by its liveness probe, and all pass it now.
    pub async fn all_live(&self) {
        for known in self.existing() {
            assert!(known.failures.load(Relaxed) < self.manifest.liveness.failures, "it would be restarted");
            assert!(self.manifest.liveness.passes(&known.health).await, "it does not live");
        }
    }

    /// A pod's process is gone from one moment to the next. Nobody tells.
    pub fn kill(&mut self, n: usize) {
        self.pods[n].process.as_mut().expect("it exists").kill();
    }

    /// The process of a pod starts, at the pod's address.
    pub async fn start(&mut self, n: usize) {
        let pod = &mut self.pods[n];
        pod.process.as_mut().expect("it was not deleted").restart(true).await;
        pod.known.exists.store(true, Relaxed);
    }

    /// Replaces every pod that exists: a new one first, and when that has been ready
    /// for long enough the old one is deleted, as a Deployment does it. Those end by
    /// themselves meanwhile ([`Self::all_gone`]).
    pub async fn roll(&mut self) {
        let is_old = |n: &usize| self.pods[*n].known.exists.load(Relaxed);
        let (old, new): (Vec<_>, Vec<_>) = (0..self.pods.len()).partition(is_old);
        for (old, new) in old.into_iter().zip(new) {
            self.start(new).await;
            self.all_ready().await;
            sleep(self.manifest.min_ready).await;
            self.delete(old);
        }
    }

    fn delete(&mut self, n: usize) {
        let (known, tell, manifest) = (self.pods[n].known.clone(), self.teller(), self.manifest.clone());
        let mut process = self.pods[n].process.take().expect("it was not deleted before");
        known.exists.store(false, Relaxed);
        self.ending.spawn(async move {
            sleep(manifest.pre_stop).await;
            known.ready.store(false, Relaxed);
            tell();
            // Then it would be killed.
            let left = manifest.grace - manifest.pre_stop;
            tokio::time::timeout(left, process.stop()).await.expect("it ends within its grace period");
        });
    }

    /// Waits until every pod that was deleted has ended.
    pub async fn all_gone(&mut self) {
        while let Some(ended) = self.ending.join_next().await {
            ended.expect("a pod that ends well");
        }
    }
}
