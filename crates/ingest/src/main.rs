//! The ingest service as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_ingest::main(std::env::args().skip(1).collect())
}
