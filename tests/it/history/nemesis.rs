//! What breaks things while others work: processes are killed and paused, either
//! database crashes, connections are cut where it hurts most. The seed decides
//! what, in which order, and for how long.

use std::time::{Duration, Instant, SystemTime};

use sluice_tests::{Link, Pair, Paused, Proxy, Replica, Service, eventually, eventually_within};

use super::{
    points::Point,
    progress::{Progress, until_nothing},
    random::Random,
    recorder::Recorder,
    ways::Ways,
};

/// For how long a cut waits for somebody to run into it, and when it is armed anew: who ran
/// into it may not have got the answer that it waits for.
const CUT_WITHIN: Duration = Duration::from_secs(120);
const ARMED_MAX: Duration = Duration::from_secs(2);
/// Longer than an owner of batches may be silent, and than anybody waits for a commit.
const SILENCE: Duration = Duration::from_millis(6500);
/// Longer than a session may wait for a lock, and hold one while it does nothing.
const IDLENESS: Duration = Duration::from_secs(3);
/// How long taking over may take.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Step {
    KillIngest,
    KillResults,
    /// Of one service: what the other one knows is not lost.
    CrashDatabase(Service),
    PauseIngest,
    PauseResults,
    PauseDatabase(Service),
    CutEverything,
    StallLinks,
    RefuseLinks,
    PowerCut,
    Cut(Point),
}

fn steps() -> Vec<Step> {
    let others = [
        Step::KillIngest,
        Step::KillResults,
        Step::CrashDatabase(Service::Ingest),
        Step::CrashDatabase(Service::Results),
        Step::PauseIngest,
        Step::PauseResults,
        Step::PauseDatabase(Service::Ingest),
        Step::PauseDatabase(Service::Results),
        Step::CutEverything,
        Step::StallLinks,
        Step::RefuseLinks,
        Step::PowerCut,
    ];
    others.into_iter().chain(Point::ALL.map(Step::Cut)).collect()
}

pub struct Nemesis<'a> {
    pub pair: &'a mut Pair,
    pub ways: &'a Ways,
    pub random: Random,
    pub recorder: Recorder,
    pub progress: &'a Progress,
    /// How long it goes on; but each step is made once.
    pub until: Instant,
}

impl Nemesis<'_> {
    /// Breaks things until its time is up. Then all is whole again.
    pub async fn rage(mut self) {
        let sql = self.pair.ingest_database.sql().await;
        sql.batch_execute(include_str!("takeovers.sql")).await.unwrap();
        for round in 0.. {
            let mut steps = steps();
            self.random.shuffle(&mut steps);
            for step in steps {
                if round > 0 && Instant::now() > self.until {
                    break;
                }
                self.goes_on().await;
                self.step(step, round == 0).await;
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

    /// Waits until publishers and consumers have got on, at each replica of ingest.
    async fn goes_on(&self) {
        let before = self.progress.moment();
        until_nothing(|| self.progress.missing_since(&before)).await;
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

    async fn step(&mut self, step: Step, is_first: bool) {
        let which = self.random.below(2);
        let a_while = match step {
            Step::PauseIngest | Step::PauseDatabase(_) if is_first => SILENCE,
            Step::PauseResults if is_first => IDLENESS,
            _ => self.a_while(is_first),
        };
        self.recorder.fault(format!("{step:?} {which} for {a_while:?}"));
        match step {
            Step::KillIngest | Step::KillResults => self.kill(step, which, a_while).await,
            Step::CrashDatabase(of) => {
                let with = if self.random.percent(50) { "-QUIT" } else { "-KILL" };
                self.pair.server_of(of).crash(with).await;
                tokio::time::sleep(self.random.millis(500)).await;
                self.pair.server_of(of).restart().await;
            }
            Step::PauseIngest if is_first => self.silence(which, a_while).await,
            Step::PauseIngest => self.stand(self.pair.ingest[which].pause().await, a_while).await,
            Step::PauseResults => self.stand(self.pair.results[which].pause().await, a_while).await,
            Step::PauseDatabase(of) => {
                let paused = self.pair.server_of(of).pause().await;
                self.stand(paused, a_while).await;
            }
            Step::Cut(point) => self.cut(point, which).await,
            Step::PowerCut => self.power_cut().await,
            Step::CutEverything => self.links().chain(self.ways.all()).for_each(Proxy::cut_all),
            Step::StallLinks | Step::RefuseLinks => self.links_away(step, which, a_while).await,
        }
    }

    /// A replica of ingest stands still while batches wait that it owns, until the other one
    /// has taken some over.
    async fn silence(&self, which: usize, a_while: Duration) {
        let sql = self.pair.ingest_database.sql().await;
        let began = SystemTime::now();
        self.pair.proxies(Link::Intake).for_each(Proxy::stall);
        // Both have some: whichever it is, it has.
        let owners = eventually("batches of each replica that wait", || async {
            let rows = sql.query(include_str!("living_owners.sql"), &[&began]).await.unwrap();
            let owners: Vec<uuid::Uuid> = rows.iter().map(|row| row.get("id")).collect();
            (owners.len() == self.pair.ingest.len()).then_some(owners)
        })
        .await;
        let (paused, since) = (self.pair.ingest[which].pause().await, Instant::now());
        self.pair.proxies(Link::Intake).for_each(Proxy::pass);
        let taken =
            eventually_within(TAKEN_OVER_WITHIN, "batches taken over from a silent ingest", || async {
                let rows =
                    sql.query_one(include_str!("takeovers_since.sql"), &[&began, &owners]).await.unwrap();
                let count: i64 = rows.get(0);
                (count > 0).then_some(count)
            })
            .await;
        self.recorder.fault(format!("batches were taken over from it: {taken}"));
        self.stand(paused, a_while.saturating_sub(since.elapsed())).await;
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
        for of in [Service::Ingest, Service::Results] {
            pair.server_of(of).crash("-KILL").await;
        }
        for of in [Service::Ingest, Service::Results] {
            pair.server_of(of).restart().await;
        }
        for replica in pair.results.iter_mut().chain(&mut pair.ingest) {
            replica.restart(true).await;
        }
    }

    async fn stand(&self, paused: Paused, a_while: Duration) {
        tokio::time::sleep(a_while).await;
        drop(paused);
    }

    /// Arms a cut, and waits for somebody to run into it.
    async fn cut(&self, point: Point, which: usize) {
        let proxies = point.proxies(self.pair, self.ways, which);
        let cuts = || proxies.iter().map(|proxy| proxy.cuts()).sum::<usize>();
        let (before, began) = (cuts(), Instant::now());
        let mut arm_at = began;
        while cuts() == before {
            assert!(began.elapsed() < CUT_WITHIN, "nobody came to be cut: {point:?}");
            if Instant::now() >= arm_at {
                proxies.iter().for_each(|proxy| proxy.arm(point.cut()));
                arm_at += ARMED_MAX;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxies.iter().for_each(|proxy| proxy.disarm());
        self.recorder.fault(point.made());
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
