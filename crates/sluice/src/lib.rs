//! The command `sluice`: runs the services, alone or as a pair on a private
//! PostgreSQL, and talks to them from the command line.

pub mod connection;
pub mod failure;
pub mod keys;
pub mod postgres;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Publish observations once, keep each result until it is consumed.
#[derive(Parser)]
#[command(name = "sluice", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one service.
    #[command(subcommand)]
    Serve(Service),
    /// Make tokens.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Stop a private PostgreSQL when its owner is gone.
    #[command(hide = true)]
    PostgresGuard(postgres::GuardArgs),
}

/// A service, with its own flags: see `sluice serve ingest --help`.
#[derive(Subcommand)]
enum Service {
    /// Takes observations and decides what gets in.
    #[command(disable_help_flag = true)]
    Ingest(Verbatim),
    /// Keeps what got in until it is consumed.
    #[command(disable_help_flag = true)]
    Results(Verbatim),
}

#[derive(clap::Args)]
struct Verbatim {
    /// The service's own flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    args: Vec<String>,
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
        Command::Serve(Service::Ingest(verbatim)) => Ok(sluice_ingest::main(verbatim.args)),
        Command::Serve(Service::Results(verbatim)) => Ok(sluice_results::main(verbatim.args)),
        Command::Keys(command) => keys::run(command),
        Command::PostgresGuard(args) => Ok(postgres::guard(&args)),
    }
}
