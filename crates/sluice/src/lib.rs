//! The command `sluice`: runs the services, alone or as a pair on a private
//! PostgreSQL, and talks to them from the command line.

pub mod connection;
mod dev;
pub mod failure;
mod files;
pub mod keys;
pub mod postgres;
pub mod private;
pub mod ready;
pub mod serve;

use std::{future::Future, process::ExitCode};

use clap::{Parser, Subcommand};
use failure::{Context, Failure};

/// Publish observations once, keep each result until it is consumed.
#[derive(Parser)]
#[command(name = "sluice", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the pair on this machine, on a private PostgreSQL, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Make tokens.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Run one service.
    #[command(subcommand)]
    Serve(serve::Service),
    /// Stop a private PostgreSQL when its owner is gone.
    #[command(hide = true)]
    PostgresGuard(postgres::GuardArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("sluice: {failure}");
            ExitCode::from(failure.exit())
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Keys(command) => keys::run(command),
        Command::Serve(service) => Ok(serve::run(service)),
        Command::PostgresGuard(args) => Ok(postgres::guard(&args)),
    }
}

/// Runs a command that waits. The services bring a runtime of their own.
fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
    let ended = runtime.block_on(command);
    // Reading a terminal can't be interrupted; nothing else is still running.
    runtime.shutdown_background();
    ended
}

/// How this program is called, for examples that can be copied.
fn invocation() -> &'static str {
    if std::env::var_os("CARGO").is_some() { "cargo run -q --" } else { "sluice" }
}
