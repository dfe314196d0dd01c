//! `sluice bench`: measures a pair from outside, as its callers see it; with
//! `--against floor`, beside SQL that does the same work without any service.

mod against;
mod consume;
mod floor;
mod load;
mod pace;
mod pair;
mod report;
mod usage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::ValueEnum;

use crate::{
    failure::Failure,
    private::{Options, PrivatePair},
    ready::{Pids, Ready},
    target::{Target, TargetArgs},
    text::{out, say},
};
use load::{DEFINITIONS_FOLDER, Shape};
use pair::{Bench, CONNECTIONS_MAX};
use report::Report;
use usage::Meter;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What is done; s1 to s11 are those of --against floor, and may be several
    /// [default: end-to-end; s1 to s6, s8 and s9 with --against floor].
    #[arg(long, value_enum, ignore_case = true)]
    scenario: Vec<Scenario>,
    /// Side by side, in alternating rounds on a private PostgreSQL, with SQL that
    /// does the same work.
    #[arg(long, value_enum)]
    against: Option<Against>,
    #[command(flatten)]
    rounds: RoundArgs,
    /// How long to measure [default: 10; 5 a round with --against].
    #[arg(long)]
    seconds: Option<u64>,
    /// How long to run before that.
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Observations per request [default: 100; 1 with --scenario single].
    #[arg(long, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: Option<u16>,
    /// Callers at the same time [default: 4; 1 with --scenario single].
    #[arg(long, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// Content bytes of an observation.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(i64::from(load::SIZE_MIN)..))]
    size: u32,
    /// Publish so many observations a second, instead of as many as possible.
    #[arg(long, conflicts_with = "against")]
    rate: Option<u32>,
    /// Share of observations that were sent before, 0 to 1.
    #[arg(long, default_value_t = 0.0, conflicts_with_all = ["against", "plain"], value_parser = share)]
    duplicates: f64,
    /// Without markers and unique keys.
    #[arg(long, conflicts_with = "against")]
    plain: bool,
    /// Spread over this many organisations; more than one needs a token for all.
    #[arg(long, default_value_t = 1, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=1000))]
    organisations: u16,
    /// Spread over this many definitions of each.
    #[arg(long, default_value_t = 1, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=1000))]
    definitions: u16,
    /// Consumers, each of its own organisations [default: up to 4].
    #[arg(long, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=64))]
    consumers: Option<u16>,
    /// On a pair of its own, even if a `sluice dev` is running.
    #[arg(long, conflicts_with = "against")]
    private: bool,
    /// Never install anything: PostgreSQL's server programs, pgmq's SQL.
    #[arg(long)]
    no_install: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Flags that only --against takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "With --against floor (10 organisations, 20 definitions each)")]
struct RoundArgs {
    /// Rounds of each side.
    #[arg(long, default_value_t = 5, requires = "against")]
    rounds: usize,
    /// Exit with 1 if a target is missed.
    #[arg(long, requires = "against")]
    check: bool,
    /// Results that are there before s7 and s10 begin.
    #[arg(long, default_value_t = 5_000_000, requires = "against")]
    filled: u64,
    /// How long s11 runs, half of it to get into its stride.
    #[arg(long, default_value_t = 240, requires = "against")]
    steady_seconds: u64,
    /// Rows that the floor's movers and consumers take at once.
    #[arg(long, default_value_t = 100, requires = "against")]
    floor_batch: u16,
    /// pgmq's SQL file, for s3 [default: that of the crate `pgmq`, fetched by cargo].
    #[arg(long, requires = "against")]
    pgmq_sql: Option<PathBuf>,
}

/// What a pair is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// SQL statements that do the same work, and pgmq.
    Floor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Scenario {
    /// Publish in batches; nobody consumes.
    Publish,
    /// Publish, list with data, check, acknowledge. What its organisations contain is
    /// acknowledged first, unless it is of other definitions than the benchmark's.
    EndToEnd,
    /// Acknowledge what was published before, in batches. What its organisations contain,
    /// likewise.
    Acknowledge,
    /// Publish one observation per call: latency.
    Single,
    /// Publish only, results stopped.
    S1,
    /// Publish to acknowledged.
    S2,
    /// The same without gates, against pgmq.
    S3,
    /// 32 and 64 callers, one observation per call.
    S4,
    /// One caller, one observation per call: latency.
    S5,
    /// Publish to available, at half of s2's rate.
    S6,
    /// s2 with many results there before.
    S7,
    /// s2 while another transaction stays open.
    S8,
    /// Memory under s2, and with 1,000 idle streams.
    S9,
    /// Listing and getting among many results.
    S10,
    /// s2 for minutes, with clean-up and checkpoints.
    S11,
}

impl Scenario {
    /// Whether it belongs to --against.
    fn is_compared(self) -> bool {
        !matches!(self, Self::Publish | Self::EndToEnd | Self::Acknowledge | Self::Single)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..1.0).contains(&share) { Ok(share) } else { Err("must be at least 0 and below 1".into()) }
}

/// Runs the benchmark.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Failure> {
    if cfg!(debug_assertions) {
        say!("This is a debug build: the figures mean nothing. Use `cargo run --release`.");
    }
    if args.against.is_some() {
        return against::run(&args).await;
    }
    let scenario = match args.scenario[..] {
        [] => Scenario::EndToEnd,
        [one] if !one.is_compared() => one,
        [_] => return Err(Failure::unusable("this scenario needs --against floor")),
        _ => return Err(Failure::unusable("only one scenario at a time without --against floor")),
    };
    let ready_file = args.target.ready_file();
    let own = args.private || (!args.target.is_given() && ready_file.is_none());
    if own {
        let pair = PrivatePair::start(Options::temporary(!args.no_install)).await?;
        let measured = measure(&of_ready(&args, scenario, &pair.ready()), scenario).await;
        pair.stop().await;
        return conclude(&measured?, args.json);
    }
    let bench = match ready_file {
        Some(path) if !args.target.is_given() => of_ready(&args, scenario, &Ready::read(&path)?),
        _ => of_target(&args, scenario)?,
    };
    conclude(&measure(&bench, scenario).await?, args.json)
}

async fn measure(bench: &Bench, scenario: Scenario) -> Result<Report, Failure> {
    bench.put_definitions().await?;
    match scenario {
        Scenario::EndToEnd => {
            bench.empty().await?;
            bench.end_to_end().await
        }
        Scenario::Acknowledge => {
            bench.empty().await?;
            bench.acknowledge().await
        }
        _ => bench.publish().await,
    }
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

/// On a pair of this machine, as administrator.
fn of_ready(args: &BenchArgs, scenario: Scenario, ready: &Ready) -> Bench {
    let target = Target::of(&Ready { token: ready.admin_token.clone(), ..ready.clone() });
    let organisations = (0..args.organisations).map(|n| format!("bench-{n}")).collect();
    bench(args, scenario, target, Some(ready.pids), organisations)
}

/// On some pair, as whoever the token says.
fn of_target(args: &BenchArgs, scenario: Scenario) -> Result<Bench, Failure> {
    let target = args.target.clone().resolve()?;
    let organisations = match (args.organisations, target.organisation.as_str()) {
        (1, own) => vec![own.to_owned()],
        (several, _) => (0..several).map(|n| format!("bench-{n}")).collect(),
    };
    if organisations == [""] {
        return Err(Failure::unusable("which organisation? give --organisation or SLUICE_ORGANISATION"));
    }
    Ok(bench(args, scenario, target, None, organisations))
}

fn bench(
    args: &BenchArgs,
    scenario: Scenario,
    target: Target,
    pids: Option<Pids>,
    organisations: Vec<String>,
) -> Bench {
    let single = scenario == Scenario::Single;
    let kind = if args.plain { "plain" } else { "unique" };
    let consumers = args.consumers.map_or(CONNECTIONS_MAX, usize::from).min(organisations.len());
    Bench {
        shape: Shape {
            organisations,
            definitions: (0..args.definitions).map(|n| format!("{DEFINITIONS_FOLDER}{kind}-{n}")).collect(),
            batch: args.batch.map_or(if single { 1 } else { 100 }, usize::from),
            size: args.size as usize,
            duplicates: args.duplicates,
            plain: args.plain,
        },
        target,
        meter: Meter { pids, postgres: None },
        scenario: match scenario {
            Scenario::Publish => "publish",
            Scenario::Acknowledge => "acknowledge",
            Scenario::Single => "single",
            _ => "end-to-end",
        },
        concurrency: args.concurrency.map_or(if single { 1 } else { 4 }, usize::from),
        consumers,
        rate: args.rate,
        warmup: Duration::from_secs(args.warmup),
        measured: Duration::from_secs(args.seconds.unwrap_or(10).max(1)),
        run: rand::random(),
    }
}
