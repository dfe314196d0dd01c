//! The command `sluice`: runs the services, alone or as a pair on a private
//! PostgreSQL, and talks to them from the command line.

// They panic when nobody reads any more: `out!` and `say!` don't.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod bench;
pub mod connection;
mod definitions;
mod demo;
mod dev;
mod failure;
mod file;
mod files;
pub mod keys;
pub mod port;
pub mod postgres;
mod private;
mod progress;
mod publish;
pub mod ready;
mod results;
mod retry;
mod serve;
mod storage;
mod target;
mod text;

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use failure::{Context, EXIT_CODES, Failure};
use sluice_service::{program, shutdown};
use tokio::runtime::Builder;

/// Publish observations once, and consume what was accepted.
#[derive(Parser)]
#[command(name = "sluice", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See all of it at work in a few seconds, on a private PostgreSQL.
    Demo(demo::DemoArgs),
    /// Run the pair on this machine, on a private PostgreSQL, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Publish a file of JSON lines.
    Publish(publish::PublishArgs),
    /// Publish files of any size.
    #[command(subcommand)]
    File(file::FileCommand),
    /// Manage definitions: the rules by which observations are let in.
    #[command(subcommand)]
    Definitions(definitions::DefinitionsCommand),
    /// List, download and acknowledge results.
    #[command(subcommand)]
    Results(results::ResultsCommand),
    /// Manage storage configs: where result data is kept.
    #[command(subcommand)]
    Storage(Box<storage::StorageCommand>),
    /// Measure throughput and latency, on a running pair or on one of its own.
    Bench(bench::BenchArgs),
    /// Make tokens.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Run one service.
    #[command(subcommand, after_help = program::EXIT_CODES)]
    Serve(serve::Service),
    /// Stop a private PostgreSQL when its owner is gone.
    #[command(hide = true)]
    PostgresGuard(postgres::GuardArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match run(parse().command) {
        Ok(code) => code,
        Err(failure) => {
            let message = failure.to_string();
            if !message.is_empty() {
                text::say!("sluice: {message}");
            }
            ExitCode::from(failure.exit())
        }
    }
}

/// The command line; every command's help ends in its exit codes.
fn parse() -> Cli {
    let matches = with_exit_codes(Cli::command()).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|fault| fault.exit())
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    let told = command.get_after_help().map(ToString::to_string);
    let text = match told {
        Some(told) if told.contains("Exit codes") => told,
        Some(told) => format!("{told}\n\n{EXIT_CODES}"),
        None => EXIT_CODES.to_owned(),
    };
    command.after_help(text).mut_subcommands(with_exit_codes)
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Publish(args) => block_on(publish::run(args)),
        Command::File(command) => block_on(file::run(command)),
        Command::Definitions(command) => block_on(definitions::run(command)),
        Command::Results(command) => block_on(results::run(command)),
        Command::Storage(command) => block_on(storage::run(*command)),
        Command::Bench(args) => block_on_one_thread(until_signal(bench::run(args))),
        Command::Keys(command) => keys::run(command),
        Command::Serve(service) => Ok(serve::run(service)),
        Command::PostgresGuard(args) => Ok(postgres::guard(&args)),
    }
}

/// Runs a command that waits. The services bring a runtime of their own.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    run_on(&mut Builder::new_multi_thread(), command)
}

/// Runs a load generator: it shares the machine with what it measures, and needs a part
/// of one processor. With more threads, a good deal of what is measured of a single
/// call is how they wake each other.
fn block_on_one_thread(
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    run_on(&mut Builder::new_current_thread(), command)
}

/// Ends a command at SIGTERM or SIGINT, so that what it holds goes: a pair of its
/// own.
async fn until_signal(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let stop = shutdown::on_signal().context("signals")?;
    tokio::select! {
        ended = command => ended,
        () = stop.cancelled() => Err(Failure::new("stopped before the end")),
    }
}

fn run_on(
    threads: &mut Builder,
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = threads.enable_all().build().context("runtime")?;
    let ended = runtime.block_on(command);
    // Reading a terminal can't be interrupted; nothing else is still running.
    runtime.shutdown_background();
    ended
}

/// How this program is called, for examples that can be copied.
fn invocation() -> &'static str {
    match (std::env::var_os("CARGO"), cfg!(debug_assertions)) {
        (None, _) => "sluice",
        // The profile that is built already.
        (Some(_), true) => "cargo run -q --",
        (Some(_), false) => "cargo run -q --release --",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(command: &clap::Command, found: &mut Vec<String>) {
        if !command.get_after_help().is_some_and(|text| text.to_string().contains("Exit codes: 0")) {
            found.push(command.get_name().to_owned());
        }
        command.get_subcommands().for_each(|below| silent(below, found));
    }

    #[test]
    fn every_command_says_its_exit_codes() {
        let mut found = Vec::new();
        silent(&with_exit_codes(Cli::command()), &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}
