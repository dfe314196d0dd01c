//! What breaks things while others work: processes are killed and paused, the
//! database crashes, connections are cut where it hurts most. The seed decides
//! what, in which order, and for how long.

use std::time::{Duration, Instant};

use sluice::connection::Clients;
use sluice_tests::{Cut, Link, Pair, Paused, Proxy, Replica, Tenant, eventually};

use super::{random::Random, recorder::Recorder};

/// What callers of publications send, and what every id has: what comes after
/// the milliseconds begins with a 7.
const NONCE: &[u8] = b"nonce-";
const ID: &[u8] = b"-7";
/// What ingest hands over holds nonces too; the answer is a list of small numbers
/// that are all 1.
const RECORDED: &[u8] = b"\x01\x01";
/// For how long a cut waits for somebody to run into it.
const ARMED_MAX: Duration = Duration::from_secs(2);

/// An armed cut that was made.
pub const CUT: &str = "cut";

/// Ways of callers to each replica, each by a proxy.
pub struct Ways {
    ingest: [Proxy; 2],
    results: [Proxy; 2],
    /// For acknowledgements alone.
    signing: [Proxy; 2],
}

impl Ways {
    pub async fn to(pair: &Pair) -> Self {
        let (ingest, results) = (&pair.ingest, &pair.results);
        let proxy = |replicas: &'static str, at: usize| {
            let replica = if replicas == "ingest" { &ingest[at] } else { &results[at] };
            Proxy::start(replica.address())
        };
        Self {
            ingest: [proxy("ingest", 0).await, proxy("ingest", 1).await],
            results: [proxy("results", 0).await, proxy("results", 1).await],
            signing: [proxy("results", 0).await, proxy("results", 1).await],
        }
    }

    /// Clients of each replica.
    pub fn clients(&self, token: &str) -> [Clients; 2] {
        Self::over(&self.ingest, &self.results, token)
    }

    /// The same on the ways for acknowledgements.
    pub fn signing(&self, token: &str) -> [Clients; 2] {
        Self::over(&self.ingest, &self.signing, token)
    }

    fn over(ingest: &[Proxy; 2], results: &[Proxy; 2], token: &str) -> [Clients; 2] {
        let url = |proxy: &Proxy| format!("http://{}", proxy.address());
        [0, 1].map(|at| Clients::new(&url(&ingest[at]), &url(&results[at]), token).unwrap())
    }

    fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.ingest.iter().chain(&self.results).chain(&self.signing)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    KillIngest,
    KillResults,
    CrashDatabase,
    PauseIngest,
    PauseResults,
    PauseDatabase,
    CutAfterGate,
    CutBeforeGate,
    CutAfterCommit,
    CutBeforeCommit,
    CutRecording,
    CutEmission,
    CutSigning,
    CutAcknowledgement,
    CutPublication,
    CutEverything,
    StallLinks,
    RefuseLinks,
    PowerCut,
}

const STEPS: [Step; 19] = [
    Step::KillIngest,
    Step::KillResults,
    Step::CrashDatabase,
    Step::PauseIngest,
    Step::PauseResults,
    Step::PauseDatabase,
    Step::CutAfterGate,
    Step::CutBeforeGate,
    Step::CutAfterCommit,
    Step::CutBeforeCommit,
    Step::CutRecording,
    Step::CutEmission,
    Step::CutSigning,
    Step::CutAcknowledgement,
    Step::CutPublication,
    Step::CutEverything,
    Step::StallLinks,
    Step::RefuseLinks,
    Step::PowerCut,
];

pub struct Nemesis<'a> {
    pub pair: &'a mut Pair,
    pub ways: &'a Ways,
    pub random: Random,
    pub recorder: Recorder,
    /// How long it goes on; but each step is made once.
    pub until: Instant,
}

impl Nemesis<'_> {
    /// Breaks things until its time is up. Then all is whole again.
    pub async fn rage(mut self) {
        for round in 0.. {
            let mut steps = STEPS;
            self.random.shuffle(&mut steps);
            for step in steps {
                if round > 0 && Instant::now() > self.until {
                    break;
                }
                self.goes_on(3).await;
                let a_while = self.a_while(round == 0);
                self.step(step, a_while).await;
            }
            if Instant::now() > self.until {
                break;
            }
        }
        self.heal();
        for replica in self.pair.results.iter().chain(&self.pair.ingest) {
            replica.serving().await;
        }
        self.recorder.fault("all is whole again");
    }

    /// Waits until that many more publications were answered.
    async fn goes_on(&self, more: usize) {
        let aim = self.recorder.answered() + more;
        let goes_on = || async { (self.recorder.answered() >= aim).then_some(()) };
        eventually("the publishers to go on", goes_on).await;
    }

    fn links(&self) -> impl Iterator<Item = &Proxy> {
        [Link::IngestDatabase, Link::ResultsDatabase, Link::Intake]
            .into_iter()
            .flat_map(|link| self.pair.proxies(link))
    }

    fn heal(&self) {
        for proxy in self.links().chain(self.ways.all()) {
            proxy.disarm();
            proxy.pass();
        }
    }

    /// Long enough to be noticed; in a long run sometimes so long that others take
    /// over.
    fn a_while(&mut self, is_first: bool) -> Duration {
        if !is_first && self.random.percent(10) {
            Duration::from_secs(6) + self.random.millis(1500)
        } else {
            self.random.millis(if is_first { 400 } else { 1200 })
        }
    }

    async fn step(&mut self, step: Step, a_while: Duration) {
        let which = self.random.below(2);
        self.recorder.fault(format!("{step:?} {which} for {a_while:?}"));
        match step {
            Step::KillIngest | Step::KillResults => self.kill(step, which, a_while).await,
            Step::CrashDatabase => {
                let with = if self.random.percent(50) { "-QUIT" } else { "-KILL" };
                self.pair.server().crash(with).await;
                tokio::time::sleep(self.random.millis(500)).await;
                self.pair.server().restart().await;
            }
            Step::PauseIngest => self.stand(self.pair.ingest[which].pause(), a_while).await,
            Step::PauseResults => self.stand(self.pair.results[which].pause(), a_while).await,
            Step::PauseDatabase => {
                let paused = self.pair.server().pause();
                self.stand(paused, a_while).await;
            }
            Step::CutAfterGate => self.cut_gate(Cut::AFTER_GATE).await,
            Step::CutBeforeGate => self.cut_gate(Cut::BEFORE_GATE).await,
            Step::CutAfterCommit => self.cut_gate(Cut::AFTER_COMMIT).await,
            Step::CutBeforeCommit => self.cut_gate(Cut::BEFORE_COMMIT).await,
            Step::CutRecording | Step::CutSigning => {
                let cut = match (step, which) {
                    (Step::CutSigning, 0) => Cut::AFTER_ACKNOWLEDGING,
                    (Step::CutSigning, _) => Cut::BEFORE_ACKNOWLEDGING,
                    (_, 0) => Cut::AFTER_RECORDING,
                    _ => Cut::BEFORE_RECORDING,
                };
                self.cut(&[self.pair.proxy(Link::ResultsDatabase)], cut).await;
            }
            Step::CutEmission => {
                let proxies: Vec<_> = self.pair.proxies(Link::Intake).collect();
                self.cut(&proxies, Cut::BeforeAnswer(NONCE, &[RECORDED])).await;
            }
            Step::CutAcknowledgement => {
                self.cut(&[&self.ways.signing[which]], Cut::BeforeAnswer(ID, &[ID])).await
            }
            Step::CutPublication => {
                self.cut(&[&self.ways.ingest[which]], Cut::BeforeAnswer(NONCE, &[ID])).await
            }
            Step::PowerCut => self.power_cut().await,
            Step::CutEverything => self.links().chain(self.ways.all()).for_each(Proxy::cut_all),
            Step::StallLinks | Step::RefuseLinks => self.links_away(step, which, a_while).await,
        }
    }

    async fn kill(&mut self, step: Step, which: usize, a_while: Duration) {
        let ingest = matches!(step, Step::KillIngest);
        let replicas = if ingest { &mut self.pair.ingest } else { &mut self.pair.results };
        replicas[which].kill();
        tokio::time::sleep(a_while).await;
        replicas[which].restart(true).await;
    }

    /// All processes die at once.
    async fn power_cut(&mut self) {
        let pair = &mut *self.pair;
        pair.ingest.iter_mut().chain(&mut pair.results).for_each(Replica::kill);
        pair.server().crash("-KILL").await;
        pair.server().restart().await;
        for replica in pair.results.iter_mut().chain(&mut pair.ingest) {
            replica.restart(true).await;
        }
    }

    async fn stand(&self, paused: Paused, a_while: Duration) {
        tokio::time::sleep(a_while).await;
        drop(paused);
    }

    async fn cut_gate(&self, cut: Cut) {
        self.cut(&[self.pair.proxy(Link::IngestDatabase)], cut).await;
    }

    /// Arms a cut on some ways and waits a while for somebody to run into it.
    async fn cut(&self, proxies: &[&Proxy], cut: Cut) {
        let cuts = || proxies.iter().map(|proxy| proxy.cuts()).sum::<usize>();
        let (before, armed) = (cuts(), Instant::now());
        proxies.iter().for_each(|proxy| proxy.arm(cut));
        while cuts() == before && armed.elapsed() < ARMED_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxies.iter().for_each(|proxy| proxy.disarm());
        self.recorder.fault(if cuts() > before { CUT } else { "nobody came to be cut" });
    }

    async fn links_away(&mut self, step: Step, which: usize, a_while: Duration) {
        let link = [Link::IngestDatabase, Link::ResultsDatabase, Link::Intake][self.random.below(3)];
        let proxies: Vec<_> = self.pair.proxies(link).collect();
        let proxy = proxies[which % proxies.len()];
        match step {
            Step::StallLinks => proxy.stall(),
            _ => proxy.refuse(),
        }
        tokio::time::sleep(a_while).await;
        proxy.pass();
    }
}

/// The token's text of each organisation.
pub fn token<'a>(pair: &'a Pair, organisation: &str) -> &'a str {
    pair.token(if organisation == "acme" { Tenant::Acme } else { Tenant::Globex })
}
