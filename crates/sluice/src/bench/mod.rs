//! `sluice bench`: measures a pair from outside, as its callers see it.

mod consume;
mod load;
mod report;
mod usage;

use std::{
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use sluice_proto::ingest::v1::{Definition, PutDefinitionRequest};
use tokio::task::JoinSet;

use crate::{
    failure::{Context, Failure},
    private::{Options, PrivatePair},
    ready::{Pids, Ready},
    target::{Target, TargetArgs},
    text::{out, to_proto},
};
use consume::Consumed;
use load::{Maker, Schedule, Seen, Shape};
use report::{Percentiles, Report};
use usage::Cpu;

/// How long equal observations are suppressed: longer than any run.
const UNIQUE_SECONDS: u64 = 86_400;
/// Connections that all callers share.
const CONNECTIONS_MAX: usize = 4;
/// How long what was accepted may take to be listed, before acknowledging.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
const SETTLE_POLL: Duration = Duration::from_millis(50);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What is done.
    #[arg(long, value_enum, default_value = "end-to-end")]
    scenario: Scenario,
    /// How long to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to run before that.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Observations per request [default: 100; 1 with --scenario single].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: Option<u16>,
    /// Callers at the same time [default: 4; 1 with --scenario single].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// Content bytes of an observation.
    #[arg(long, default_value_t = 600)]
    size: usize,
    /// Publish so many observations a second, instead of as many as possible.
    #[arg(long)]
    rate: Option<u32>,
    /// Share of observations that were sent before, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    duplicates: f64,
    /// Without markers and unique keys.
    #[arg(long)]
    plain: bool,
    /// Spread over this many organisations; more than one needs a token for all.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    organisations: u16,
    /// Spread over this many definitions of each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    definitions: u16,
    /// Consumers, each of its own organisations [default: up to 4].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    consumers: Option<u16>,
    /// On a pair of its own, even if a `sluice dev` is running.
    #[arg(long)]
    private: bool,
    /// Never install PostgreSQL's server programs.
    #[arg(long)]
    no_install: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Publish in batches; nobody consumes.
    Publish,
    /// Publish, list with data, check, acknowledge.
    EndToEnd,
    /// Acknowledge what was published before, in batches.
    Acknowledge,
    /// Publish one observation per call: latency.
    Single,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("must be at least 0 and below 1".into()) }
}

/// Runs the benchmark.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: the figures mean nothing. Use `cargo run --release`.");
    }
    let ready_file = args.target.ready_file();
    let own = args.private || (!args.target.is_given() && ready_file.is_none());
    if own {
        let pair = PrivatePair::start(Options::temporary(!args.no_install)).await?;
        let measured = Bench::of_ready(&args, &pair.ready()).measure().await;
        pair.stop().await;
        return conclude(&measured?, args.json);
    }
    let bench = match ready_file {
        Some(path) if !args.target.is_given() => Bench::of_ready(&args, &Ready::read(&path)?),
        _ => Bench::of_target(&args)?,
    };
    conclude(&bench.measure().await?, args.json)
}

fn conclude(report: &Report, json: bool) -> Result<ExitCode, Failure> {
    if json {
        out!("{}", report.to_json())?;
    } else {
        out!("{report}")?;
    }
    if report.is_clean() {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::new("the run was not clean: something failed or was refused"))
    }
}

struct Bench {
    target: Target,
    pids: Option<Pids>,
    shape: Shape,
    scenario: Scenario,
    concurrency: usize,
    consumers: usize,
    rate: Option<u32>,
    warmup: Duration,
    measured: Duration,
    /// Tells this run's observations apart from all others'.
    run: u64,
}

impl Bench {
    /// On a pair of this machine, as administrator.
    fn of_ready(args: &BenchArgs, ready: &Ready) -> Self {
        let target = Target::of(&Ready { token: ready.admin_token.clone(), ..ready.clone() });
        let organisations = (0..args.organisations).map(|n| format!("bench-{n}")).collect();
        Self::new(args, target, Some(ready.pids), organisations)
    }

    /// On some pair, as whoever the token says.
    fn of_target(args: &BenchArgs) -> Result<Self, Failure> {
        let target = args.target.clone().resolve()?;
        let organisations = match (args.organisations, target.organisation.as_str()) {
            (1, own) => vec![own.to_owned()],
            (several, _) => (0..several).map(|n| format!("bench-{n}")).collect(),
        };
        if organisations == [""] {
            return Err(Failure::unusable("which organisation? give --organisation or SLUICE_ORGANISATION"));
        }
        Ok(Self::new(args, target, None, organisations))
    }

    fn new(args: &BenchArgs, target: Target, pids: Option<Pids>, organisations: Vec<String>) -> Self {
        let single = args.scenario == Scenario::Single;
        let kind = if args.plain { "plain" } else { "unique" };
        let consumers = args.consumers.map_or(CONNECTIONS_MAX, usize::from).min(organisations.len());
        Self {
            shape: Shape {
                organisations,
                definitions: (0..args.definitions).map(|n| format!("bench/{kind}-{n}")).collect(),
                batch: args.batch.map_or(if single { 1 } else { 100 }, usize::from),
                size: args.size,
                duplicates: args.duplicates,
                plain: args.plain,
            },
            target,
            pids,
            scenario: args.scenario,
            concurrency: args.concurrency.map_or(if single { 1 } else { 4 }, usize::from),
            consumers,
            rate: args.rate,
            warmup: Duration::from_secs(args.warmup),
            measured: Duration::from_secs(args.seconds.max(1)),
            run: rand::random(),
        }
    }

    async fn measure(&self) -> Result<Report, Failure> {
        self.put_definitions().await?;
        match self.scenario {
            Scenario::Publish | Scenario::Single => self.publish().await,
            Scenario::EndToEnd => self.end_to_end().await,
            Scenario::Acknowledge => self.acknowledge().await,
        }
    }

    async fn put_definitions(&self) -> Result<(), Failure> {
        let mut client = self.target.definitions()?;
        for organisation in &self.shape.organisations {
            for path in &self.shape.definitions {
                let definition = Definition {
                    organisation: organisation.clone(),
                    path: path.clone(),
                    unique: (!self.shape.plain).then(|| to_proto(UNIQUE_SECONDS)),
                    ..Definition::default()
                };
                client.put_definition(PutDefinitionRequest { definition: Some(definition) }).await?;
            }
        }
        Ok(())
    }

    fn schedule(&self, warmup: Duration, measured: Duration) -> Schedule {
        let start = Instant::now();
        let per_request = |rate: u32| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let requests = self.concurrency as f64 * self.shape.batch as f64;
            Duration::from_secs_f64(requests / f64::from(rate.max(1)))
        };
        Schedule {
            start,
            measured_from: start + warmup,
            end: start + warmup + measured,
            interval: self.rate.map(per_request),
        }
    }

    /// Starts the publishers; they end by the schedule.
    fn publishers(&self, schedule: Schedule, stop: &Arc<AtomicBool>) -> Result<JoinSet<Seen>, Failure> {
        let connections = self.concurrency.min(CONNECTIONS_MAX);
        let clients = (0..connections).map(|_| self.target.ingest()).collect::<Result<Vec<_>, _>>()?;
        let mut publishers = JoinSet::new();
        for worker in 0..self.concurrency {
            let client = clients[worker % connections].clone();
            let maker = Maker::new(self.shape.clone(), self.run, u16::try_from(worker).unwrap_or(u16::MAX));
            let stop = stop.clone();
            publishers.spawn(async move { load::publish(client, maker, schedule, &stop).await });
        }
        Ok(publishers)
    }

    async fn publish(&self) -> Result<Report, Failure> {
        let schedule = self.schedule(self.warmup, self.measured);
        let publishers = self.publishers(schedule, &Arc::default())?;
        let (seen, cpu) = self.watch(schedule, publishers).await?;
        Ok(Report { latency: Percentiles::of(seen.latencies.clone()), seen: Some(seen), ..self.report(cpu) })
    }

    async fn end_to_end(&self) -> Result<Report, Failure> {
        let schedule = self.schedule(self.warmup, self.measured);
        let stop = Arc::new(AtomicBool::new(false));
        let publishers = self.publishers(schedule, &stop)?;
        let mut consumers = JoinSet::new();
        for consumer in 0..self.consumers {
            let own = self.shape.organisations.iter().skip(consumer).step_by(self.consumers);
            let (client, own, stop) = (self.target.results()?, own.cloned().collect(), stop.clone());
            consumers.spawn(async move { consume::consume(client, own, schedule, &stop).await });
        }
        let watched = self.watch(schedule, publishers).await;
        stop.store(true, Ordering::Relaxed);
        let mut consumed = Consumed::default();
        for ended in consumers.join_all().await {
            consumed.merge(ended?);
        }
        let (seen, cpu) = watched?;
        Ok(Report {
            latency: Percentiles::of(seen.latencies.clone()),
            seen: Some(seen),
            acknowledged: Some(consumed.acknowledged),
            available: Percentiles::of(consumed.available),
            corrupt: consumed.corrupt,
            ..self.report(cpu)
        })
    }

    /// Publishes for the given time, waits until all of it is listed, and then
    /// measures how fast it can be signed off.
    async fn acknowledge(&self) -> Result<Report, Failure> {
        let schedule = self.schedule(Duration::ZERO, self.measured);
        let mut published = Seen::default();
        for seen in self.publishers(schedule, &Arc::default())?.join_all().await {
            published.merge(seen);
        }
        let batches = Mutex::new(self.settled().await?);
        let batches = Arc::new(batches);
        let mut callers = JoinSet::new();
        let (before, began) = (Cpu::now(self.pids), Instant::now());
        for _ in 0..self.concurrency {
            let (client, batches) = (self.target.results()?, batches.clone());
            callers.spawn(async move { consume::acknowledge_all(client, &batches).await });
        }
        let (mut changed, mut latencies) = (0, Vec::new());
        for ended in callers.join_all().await {
            let (more, took) = ended?;
            changed += more;
            latencies.extend(took);
        }
        let elapsed = began.elapsed().as_secs_f64();
        let report = self.report(Cpu::now(self.pids).since(before));
        Ok(Report { elapsed, acknowledged: Some(changed), latency: Percentiles::of(latencies), ..report })
    }

    /// What waits to be acknowledged, in batches, once no more comes.
    async fn settled(&self) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let mut client = self.target.results()?;
        let deadline = Instant::now() + SETTLE_DEADLINE;
        let mut known = 0;
        loop {
            tokio::time::sleep(SETTLE_POLL).await;
            let waiting = consume::waiting(&mut client, &self.shape.organisations).await?;
            let count: usize = waiting.iter().map(|(_, ids)| ids.len()).sum();
            if (count == known && count > 0) || Instant::now() > deadline {
                let of_one = |(organisation, ids): (String, Vec<String>)| {
                    let chunks: Vec<Vec<String>> =
                        ids.chunks(self.shape.batch).map(<[String]>::to_vec).collect();
                    chunks.into_iter().map(move |chunk| (organisation.clone(), chunk))
                };
                return Ok(waiting.into_iter().flat_map(of_one).collect());
            }
            known = count;
        }
    }

    /// Waits for the publishers, and takes the CPU used in the measured part.
    async fn watch(&self, schedule: Schedule, publishers: JoinSet<Seen>) -> Result<(Seen, Cpu), Failure> {
        tokio::time::sleep_until(schedule.measured_from.into()).await;
        let before = Cpu::now(self.pids);
        tokio::time::sleep_until(schedule.end.into()).await;
        let cpu = Cpu::now(self.pids).since(before);
        let mut all = Seen::default();
        let mut publishers = publishers;
        while let Some(seen) = publishers.join_next().await {
            all.merge(seen.context("publisher")?);
        }
        Ok((all, cpu))
    }

    /// A report with what is the same for every scenario.
    fn report(&self, cpu: Cpu) -> Report {
        let pids = self.pids.unwrap_or_default();
        Report {
            scenario: match self.scenario {
                Scenario::Publish => "publish",
                Scenario::EndToEnd => "end-to-end",
                Scenario::Acknowledge => "acknowledge",
                Scenario::Single => "single",
            },
            batch: self.shape.batch,
            concurrency: self.concurrency,
            size: self.shape.size,
            elapsed: self.measured.as_secs_f64(),
            seen: None,
            acknowledged: None,
            latency: None,
            available: None,
            corrupt: 0,
            cpu,
            peak_mib: [pids.ingest, pids.results].map(usage::peak_mib),
        }
    }
}
