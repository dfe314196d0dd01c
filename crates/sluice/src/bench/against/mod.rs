//! `sluice bench --against floor`: Sluice and the same work without it, on the same
//! private PostgreSQL in alternating rounds, and the ratios that have targets.

mod fill;
mod machine;
mod memory;
mod outcome;
mod scenarios;
mod shelf;
mod stage;
mod stats;

use std::process::ExitCode;

use serde_json::json;

use super::{BenchArgs, Scenario};
use crate::{
    failure::Failure,
    text::{out, say},
};
use outcome::{Outcome, tables};
use scenarios::Runner;

/// What is run when nothing is named: all that needs no long preparation.
const QUICK: [Scenario; 8] = [
    Scenario::S1,
    Scenario::S2,
    Scenario::S3,
    Scenario::S4,
    Scenario::S5,
    Scenario::S6,
    Scenario::S8,
    Scenario::S9,
];

/// Runs the scenarios, prints the figures.
pub(super) async fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    if args.rounds.rounds == 0 {
        return Err(Failure::unusable("--rounds must be at least 1"));
    }
    let mut wanted = if args.scenario.is_empty() { QUICK.to_vec() } else { args.scenario.clone() };
    if let Some(other) = wanted.iter().find(|scenario| !scenario.is_compared()) {
        return Err(Failure::unusable(format!("{other:?} is not a scenario of --against")));
    }
    wanted.sort_unstable();
    wanted.dedup();
    let mut runner = Runner::new(args);
    let mut outcomes = Vec::new();
    let mut failed = Ok(());
    for scenario in wanted {
        match runner.run(scenario).await {
            Ok(more) => {
                more.iter().for_each(tell);
                outcomes.extend(more);
            }
            Err(failure) => {
                failed = Err(failure.about(&format!("{scenario:?}")));
                break;
            }
        }
    }
    let machine = runner.machine().to_owned();
    runner.end().await;
    if args.json {
        let scenarios: Vec<_> = outcomes.iter().map(Outcome::to_json).collect();
        out!("{}", json!({"machine": machine, "scenarios": scenarios}))?;
    } else {
        out!("{machine}\n\n{}", tables(&outcomes))?;
    }
    failed?;
    conclude(args, &outcomes)
}

fn conclude(args: &BenchArgs, outcomes: &[Outcome]) -> Result<ExitCode, Failure> {
    let names = |of: &dyn Fn(&Outcome) -> bool| {
        let found: Vec<&str> = outcomes.iter().filter(|o| of(o)).map(|o| o.scenario).collect();
        found.join(", ")
    };
    let unclean = names(&|outcome| !outcome.is_clean());
    if !unclean.is_empty() {
        return Err(Failure::new(format!("not clean, something failed or was refused: {unclean}")));
    }
    let missed = names(&|outcome| !outcome.is_met());
    if args.rounds.check && !missed.is_empty() {
        return Err(Failure::new(format!("targets missed: {missed}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// A line as soon as it is known, for whoever watches.
fn tell(outcome: &Outcome) {
    for figure in &outcome.figures {
        let met = if figure.is_met() { "" } else { ", missed" };
        say!(
            "{}: {}: {} {}{met}",
            outcome.scenario,
            outcome.what,
            figure.name,
            figure.value.show(2, figure.unit)
        );
    }
}
