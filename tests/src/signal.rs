//! Signals to processes of the tests.

use std::process::{Command, Stdio};

/// Sends a signal, such as `-STOP`. Those that are gone get none.
pub(crate) fn signal(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut kill = Command::new("kill");
    kill.arg(signal).args(pids).stderr(Stdio::null());
    let _ended = kill.status().expect("kill");
}
