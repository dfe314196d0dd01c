//! `sluice serve ingest|results`: runs one service in this process, as its own
//! program does. A service that belongs to a supervisor ends with it.

use std::{io, process::ExitCode};

use rustix::process::{Signal, getpid, kill_process};
use sluice_service::program::EXIT_CODES;

/// With this variable set to `1`, a service stops cleanly when its standard
/// input ends: the supervisor that held the other end is gone, however it went.
pub const STOP_ON_STDIN_EOF: &str = "SLUICE_STOP_ON_STDIN_EOF";

/// A service, with its own flags: see `sluice serve ingest --help`.
#[derive(clap::Subcommand)]
pub(crate) enum Service {
    /// Takes observations and decides the outcome of each.
    #[command(disable_help_flag = true, after_help = EXIT_CODES)]
    Ingest(Verbatim),
    /// Keeps what was accepted, for consumers.
    #[command(disable_help_flag = true, after_help = EXIT_CODES)]
    Results(Verbatim),
}

/// What the service itself reads.
#[derive(clap::Args)]
pub(crate) struct Verbatim {
    /// The service's own flags.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    args: Vec<String>,
}

/// Runs a service until it is stopped.
pub(crate) fn run(service: Service) -> ExitCode {
    if std::env::var_os(STOP_ON_STDIN_EOF).is_some_and(|value| value == "1") {
        // Not joined: it ends with the process.
        std::thread::spawn(|| {
            drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
            // A process may always signal itself.
            let _ = kill_process(getpid(), Signal::TERM);
        });
    }
    match service {
        Service::Ingest(own) => sluice_ingest::main(own.args),
        Service::Results(own) => sluice_results::main(own.args),
    }
}
