//! The command `sluice` once more: Cargo builds a package's own programs before
//! its tests, and only those.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice::main()
}
