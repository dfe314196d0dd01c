//! The real command, for tests of processes.

use std::path::PathBuf;

/// The path of the program `sluice`, as built beside the tests.
///
/// # Panics
/// If it wasn't built; Cargo builds it before the integration tests.
#[must_use]
pub fn program() -> PathBuf {
    // A test binary lies in target/<profile>/deps.
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("a test lies two folders deep");
    let program = profile.join("sluice-under-test");
    assert!(program.is_file(), "{} was not built", program.display());
    program
}
