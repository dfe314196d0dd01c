//! One service of a private pair as a process that is kept running: started
//! again whenever it ends, until it is told to stop.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::Told;
use crate::{
    failure::{Context, Failure},
    files::open_log,
    postgres::send,
    serve::STOP_ON_STDIN_EOF,
    text::say,
};

/// A process that lived this long is started again at once.
const STEADY_AFTER: Duration = Duration::from_secs(2);
/// How long to wait before starting one again that did not.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A clean stop may take this long; a service has a shorter deadline itself.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// A log larger than this is begun anew at the next start, the old one kept.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// So much of a log is shown when a service does not come up.
const LOG_TAIL_BYTES: usize = 2000;

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// `ingest` or `results`, as in `sluice serve <name>`.
    pub(super) name: &'static str,
    pub(super) flags: Vec<String>,
    /// The database's URL. Goes by the environment: flags are seen by everybody.
    pub(super) database_url: String,
    /// Of the user that may change its schema.
    pub(super) owner_url: String,
    pub(super) executable: PathBuf,
    pub(super) logs: PathBuf,
}

impl Spec {
    /// Keeps the process running until `stop`, then stops it cleanly.
    pub(super) async fn keep(self, told: Told, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let started = Instant::now();
            match self.spawn() {
                Ok(mut child) => {
                    // Waiting would close it, and its end means stop.
                    let _stdin = child.stdin.take();
                    if let Some(pid) = child.id() {
                        told.started(pid);
                    }
                    tokio::select! {
                        () = stop.cancelled() => return end(child).await,
                        _ = child.wait() => told.ended(),
                    }
                }
                Err(failure) => {
                    say!("sluice: {}: {failure}", self.name);
                    told.ended();
                }
            }
            if started.elapsed() < STEADY_AFTER {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(TRY_AGAIN_AFTER) => {}
                }
            }
        }
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> String {
        let all = fs::read(self.log()).unwrap_or_default();
        let tail = &all[all.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    fn spawn(&self) -> Result<Child, Failure> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            fs::rename(&path, path.with_extension("log.old")).context(path.display())?;
        }
        let log = open_log(&path)?;
        let mut command = std::process::Command::new(existing(&self.executable));
        command.arg0("sluice").args(["serve", self.name]).args(&self.flags);
        command.env("SLUICE_DATABASE_URL", &self.database_url);
        command.env("SLUICE_DATABASE_OWNER_URL", &self.owner_url).env(STOP_ON_STDIN_EOF, "1");
        command.env_remove("SLUICE_CONFIG");
        // A terminal's Ctrl-C is for us alone: we stop things in order.
        command.process_group(0).stdin(Stdio::piped());
        command.stderr(log.try_clone().context(path.display())?).stdout(log);
        Command::from(command).spawn().context(self.executable.display())
    }
}

/// The program's path, or the program itself when a new build replaced it.
fn existing(executable: &Path) -> &Path {
    if executable.exists() { executable } else { Path::new("/proc/self/exe") }
}

/// Stops a process as an orchestrator does, and waits until it is gone.
async fn end(mut child: Child) {
    if let Some(pid) = child.id() {
        drop(send(pid, Signal::TERM));
    }
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        drop(child.kill().await);
    }
}
