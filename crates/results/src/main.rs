//! The program `sluice-results`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_results::main(std::env::args().skip(1).collect())
}
