//! The scenarios: what each runs, and what its figures have to be.

use super::{
    fill, machine, memory,
    outcome::{Bound, Figure, Outcome, Side},
    shelf,
    stage::Stage,
    stats::Spread,
};
use crate::{
    bench::{BenchArgs, Scenario, floor::pgmq, report::Report},
    failure::{Context, Failure},
    text::{say, to_proto},
};

/// At so much of S2's rate S6 publishes.
const S6_SHARE: f64 = 0.5;
/// S11's data is kept for so long.
const S11_RETENTION_SECONDS: u64 = 60;

/// Runs scenarios one after the other, and keeps what later ones need.
pub(super) struct Runner<'a> {
    args: &'a BenchArgs,
    machine: String,
    /// Observations a second of S2, once known.
    s2: Option<f64>,
    /// With results from before, once there are.
    filled: Option<Stage>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(args: &'a BenchArgs) -> Self {
        Self { args, machine: String::new(), s2: None, filled: None }
    }

    /// On what it was measured.
    pub(super) fn machine(&self) -> &str {
        &self.machine
    }

    /// Stops what was kept.
    pub(super) async fn end(&mut self) {
        if let Some(stage) = self.filled.take() {
            stage.stop().await;
        }
    }

    /// Runs a scenario; some have several parts.
    pub(super) async fn run(&mut self, scenario: Scenario) -> Result<Vec<Outcome>, Failure> {
        match scenario {
            Scenario::S4 => {
                let [some, gate_of_some] = self.s4(32).await?;
                let [more, gate_of_more] = self.s4(64).await?;
                Ok(vec![some, more, gate_of_some, gate_of_more])
            }
            Scenario::S7 => self.s7().await.map(|outcome| vec![outcome]),
            Scenario::S8 => self.s8().await.map(|outcome| vec![outcome]),
            Scenario::S10 => self.s10().await.map(|outcome| vec![outcome]),
            Scenario::S11 => self.s11().await.map(|outcome| vec![outcome]),
            _ => {
                let mut stage = self.stage(scenario == Scenario::S3).await?;
                let outcome = match scenario {
                    Scenario::S1 => self.s1(&mut stage).await,
                    Scenario::S2 => self.s2(&mut stage).await,
                    Scenario::S3 => self.s3(&mut stage).await,
                    Scenario::S5 => self.s5(&mut stage).await,
                    Scenario::S6 => self.s6(&mut stage).await,
                    _ => self.s9(&mut stage).await,
                };
                stage.stop().await;
                outcome.map(|outcome| vec![outcome])
            }
        }
    }

    async fn stage(&mut self, plain: bool) -> Result<Stage, Failure> {
        let stage = Stage::start(self.args, plain).await?;
        if self.machine.is_empty() {
            self.machine = machine::describe(&stage.results).await?;
        }
        Ok(stage)
    }

    /// Rounds in turn, Sluice first.
    async fn alternate(
        &self,
        scenario: &str,
        stage: &mut Stage,
        names: [&'static str; 2],
        mut sluice: impl AsyncFnMut(&mut Stage) -> Result<Report, Failure>,
        mut floor: impl AsyncFnMut(&mut Stage) -> Result<Report, Failure>,
    ) -> Result<(Side, Side), Failure> {
        let (mut ours, mut theirs) = (Side::named(names[0]), Side::named(names[1]));
        for round in 1..=self.args.rounds.rounds {
            ours.rounds.push(sluice(stage).await?);
            theirs.rounds.push(floor(stage).await?);
            self.progress(scenario, round, &[&ours, &theirs]);
        }
        Ok((ours, theirs))
    }

    fn progress(&self, scenario: &str, round: usize, sides: &[&Side]) {
        // A side may begin later.
        let last = |side: &&Side| {
            let rate = Report::per_second(side.rounds.last()?);
            Some(format!("{} {rate:.0}/s", side.name))
        };
        let shown: Vec<String> = sides.iter().filter_map(last).collect();
        say!("{scenario}, round {round} of {}: {}", self.args.rounds.rounds, shown.join(", "));
    }

    async fn s1(&self, stage: &mut Stage) -> Result<Outcome, Failure> {
        stage.floor.prepare(None).await?;
        stage.stop_results().await;
        let names = ["Sluice", "raw SQL"];
        let (sluice, floor) =
            self.alternate("S1", stage, names, Stage::publish, Stage::floor_publish).await?;
        let what = "publish only, results stopped, batches of 100, 4 callers".into();
        Ok(compared("S1", what, sluice, floor, 1.0))
    }

    async fn s2(&mut self, stage: &mut Stage) -> Result<Outcome, Failure> {
        stage.floor.prepare(None).await?;
        let names = ["Sluice", "raw SQL"];
        let (sluice, floor) =
            self.alternate("S2", stage, names, Stage::end_to_end, Stage::floor_end_to_end).await?;
        self.s2 = Spread::of(sluice.rates()).map(|spread| spread.median);
        Ok(compared("S2", "publish to acknowledged, batches of 100, 4 callers".into(), sluice, floor, 1.3))
    }

    async fn s3(&self, stage: &mut Stage) -> Result<Outcome, Failure> {
        let sql = pgmq::sql(self.args.rounds.pgmq_sql.as_deref(), !self.args.no_install)?;
        stage.floor.prepare(Some(&sql)).await?;
        let names = ["Sluice", "pgmq"];
        let (sluice, floor) =
            self.alternate("S3", stage, names, Stage::end_to_end, Stage::floor_end_to_end).await?;
        let what = "publish to acknowledged without gates, batches of 100, 4 callers".into();
        Ok(compared("S3", what, sluice, floor, 1.5))
    }

    /// As callers have it, with what is accepted recorded meanwhile; and then with results
    /// stopped, which is what plain SQL does here.
    async fn s4(&mut self, callers: usize) -> Result<[Outcome; 2], Failure> {
        let mut stage = self.stage(false).await?;
        let outcomes = self.single_commits(&mut stage, callers).await;
        stage.stop().await;
        outcomes
    }

    async fn single_commits(&self, stage: &mut Stage, callers: usize) -> Result<[Outcome; 2], Failure> {
        stage.floor.prepare(None).await?;
        stage.calling(callers, 1);
        let what = format!("one observation per call, {callers} callers");
        let whole = self.single_commits_side_by_side(stage, what.clone()).await?;
        stage.stop_results().await;
        let gate = self.single_commits_side_by_side(stage, format!("{what}, results stopped")).await?;
        Ok([whole, gate])
    }

    async fn single_commits_side_by_side(&self, stage: &mut Stage, what: String) -> Result<Outcome, Failure> {
        let names = ["Sluice", "raw SQL"];
        let (sluice, floor) =
            self.alternate("S4", stage, names, Stage::publish, Stage::floor_publish).await?;
        Ok(compared("S4", what, sluice, floor, 1.5))
    }

    async fn s5(&self, stage: &mut Stage) -> Result<Outcome, Failure> {
        stage.floor.prepare(None).await?;
        stage.calling(1, 1);
        let names = ["Sluice", "raw SQL"];
        let (sluice, floor) =
            self.alternate("S5", stage, names, Stage::publish, Stage::floor_publish).await?;
        let p50 = |side: &Side| side.each(|round| round.latency.map(|latency| latency.p50));
        let p99 = |side: &Side| side.each(|round| round.latency.map(|latency| latency.p99));
        let ratio = |name, above: &[f64], below: &[f64]| {
            let value = Spread::of_ratios(above, below);
            value.map(|value| Figure { name, unit: "", value, bound: Bound::Below(2.5) })
        };
        let figures = [
            ratio("p50 ratio", &p50(&sluice), &p50(&floor)),
            ratio("p99 ratio", &p99(&sluice), &p99(&floor)),
        ];
        Ok(Outcome {
            scenario: "S5",
            what: "latency of one caller's single publish".into(),
            sluice: Some(sluice),
            floor: Some(floor),
            figures: figures.into_iter().flatten().collect(),
        })
    }

    async fn s6(&mut self, stage: &mut Stage) -> Result<Outcome, Failure> {
        let rate = match self.s2 {
            Some(rate) => rate,
            None => stage.end_to_end().await?.per_second(),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
        let half = (rate * S6_SHARE) as u32;
        stage.bench.rate = Some(half.max(1));
        let mut sluice = Side::named("Sluice");
        for round in 1..=self.args.rounds.rounds {
            sluice.rounds.push(stage.end_to_end().await?);
            self.progress("S6", round, &[&sluice]);
        }
        let p99 = sluice.each(|round| round.available.map(|available| available.p99));
        let value = Spread::of(p99).ok_or_else(|| Failure::new("nothing became available"))?;
        Ok(Outcome {
            scenario: "S6",
            what: format!("publish to available at {half}/s, half of S2"),
            sluice: Some(sluice),
            floor: None,
            figures: vec![Figure { name: "p99", unit: " ms", value, bound: Bound::Below(100.0) }],
        })
    }

    async fn filled(&mut self) -> Result<Stage, Failure> {
        if let Some(stage) = self.filled.take() {
            return Ok(stage);
        }
        let stage = self.stage(false).await?;
        match fill::fill(&stage, self.args.rounds.filled).await {
            Ok(()) => Ok(stage),
            Err(failure) => {
                stage.stop().await;
                Err(failure)
            }
        }
    }

    async fn s7(&mut self) -> Result<Outcome, Failure> {
        let mut filled = self.filled().await?;
        let names = ["Sluice, filled", "Sluice, empty"];
        let sides = self.beside("S7", &mut filled, names).await;
        self.filled = Some(filled);
        let (sluice, floor) = sides?;
        let what = format!("S2 with {} results and markers there before", self.args.rounds.filled);
        Ok(compared("S7", what, sluice, floor, 0.77))
    }

    /// S2 on a stage, in turn with S2 on a fresh one.
    async fn beside(
        &mut self,
        scenario: &str,
        stage: &mut Stage,
        names: [&'static str; 2],
    ) -> Result<(Side, Side), Failure> {
        let mut fresh = self.stage(false).await?;
        let on_fresh = async |_: &mut Stage| fresh.end_to_end().await;
        let sides = self.alternate(scenario, stage, names, Stage::end_to_end, on_fresh).await;
        fresh.stop().await;
        sides
    }

    async fn s8(&mut self) -> Result<Outcome, Failure> {
        let mut stage = self.stage(false).await?;
        let sides = self.held(&mut stage).await;
        stage.stop().await;
        let (sluice, floor) = sides?;
        Ok(compared("S8", "S2 while another transaction stays open".into(), sluice, floor, 0.5))
    }

    async fn held(&mut self, stage: &mut Stage) -> Result<(Side, Side), Failure> {
        let holders = stage.more_sessions().await?;
        for holder in &holders {
            holder.batch_execute(include_str!("sql/hold.sql")).await.context("PostgreSQL")?;
        }
        self.beside("S8", stage, ["Sluice, held", "Sluice"]).await
    }

    async fn s9(&mut self, stage: &mut Stage) -> Result<Outcome, Failure> {
        let sluice = Side { name: "Sluice", rounds: vec![stage.end_to_end().await?] };
        let figures = memory::measure(stage).await?;
        let what =
            format!("memory of ingest and results: peak under S2, with {} idle streams", memory::STREAMS);
        Ok(Outcome { scenario: "S9", what, sluice: Some(sluice), floor: None, figures })
    }

    async fn s10(&mut self) -> Result<Outcome, Failure> {
        let filled = self.filled().await?;
        let figures = shelf::measure(&filled).await;
        self.filled = Some(filled);
        let what = format!("pages of 100 anywhere among {} results, getting one", self.args.rounds.filled);
        Ok(Outcome { scenario: "S10", what, sluice: None, floor: None, figures: figures? })
    }

    async fn s11(&mut self) -> Result<Outcome, Failure> {
        let mut stage = self.stage(false).await?;
        let sides = self.steady(&mut stage).await;
        stage.stop().await;
        let (sluice, floor) = sides?;
        let what = format!(
            "S2 for {} s with checkpoints every 30 s and data removed after {S11_RETENTION_SECONDS} s",
            self.args.rounds.steady_seconds
        );
        let base = Spread::of(floor.rates()).map_or(f64::NAN, |spread| spread.median);
        let ratios = sluice.rates().into_iter().map(|rate| rate / base);
        let value = Spread::of(ratios).ok_or_else(|| Failure::new("nothing was measured"))?;
        let figures = vec![Figure { name: "ratio", unit: "", value, bound: Bound::AtLeast(0.8) }];
        Ok(Outcome { scenario: "S11", what, sluice: Some(sluice), floor: Some(floor), figures })
    }

    /// One long run, between short ones on a fresh stage.
    async fn steady(&mut self, stage: &mut Stage) -> Result<(Side, Side), Failure> {
        fill::keep_briefly(stage, &to_proto(S11_RETENTION_SECONDS)).await?;
        stage.results.batch_execute(include_str!("sql/checkpoints.sql")).await.context("PostgreSQL")?;
        stage.results.batch_execute("SELECT pg_reload_conf()").await.context("PostgreSQL")?;
        let half = std::time::Duration::from_secs(self.args.rounds.steady_seconds.div_ceil(2));
        (stage.bench.warmup, stage.bench.measured) = (half, half);
        let mut fresh = self.stage(false).await?;
        let (mut steady, mut base) = (Side::named("Sluice, steady"), Side::named("Sluice, S2"));
        let rounds = self.args.rounds.rounds;
        for round in 0..rounds {
            if round == rounds / 2 {
                steady.rounds.push(stage.end_to_end().await?);
            }
            base.rounds.push(fresh.end_to_end().await?);
            self.progress("S11", round + 1, &[&steady, &base]);
        }
        fresh.stop().await;
        Ok((steady, base))
    }
}

/// A scenario whose figure is the ratio of two rates.
fn compared(scenario: &'static str, what: String, sluice: Side, floor: Side, at_least: f64) -> Outcome {
    let value = Spread::of_ratios(&sluice.rates(), &floor.rates());
    let figure = |value| Figure { name: "ratio", unit: "", value, bound: Bound::AtLeast(at_least) };
    let figures = value.map(figure).into_iter().collect();
    Outcome { scenario, what, sluice: Some(sluice), floor: Some(floor), figures }
}
