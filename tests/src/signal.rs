//! Signals to processes of the tests.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::eventually;

/// Stops processes, and returns when they stand still: of several threads some run on for a
/// while after the signal was sent.
pub(crate) async fn stop(pids: &[u32]) {
    signal("-STOP", pids);
    let all_stand_still = async || pids.iter().all(|pid| stands_still(*pid)).then_some(());
    eventually("processes to stand still", all_stand_still).await;
}

/// Whether each thread of a process has stopped, or ended.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Behind its name, which is in parentheses.
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
    })
}

/// Sends a signal, such as `-STOP`. Those that are gone get none.
pub(crate) fn signal(signal: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut kill = Command::new("kill");
    kill.arg(signal).args(pids).stderr(Stdio::null());
    let _ended = kill.status().expect("kill");
}
