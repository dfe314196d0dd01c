//! Servers that must not outlive their owner, and what to do about those that
//! did. PostgreSQL does not notice that the process which started it is gone,
//! so a small helper, `sluice postgres-guard`, waits for that and stops it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::{
    failure::{Context, Failure},
    files::{TemporaryFolder, remove_folder},
    text::say,
};

/// How long a fast shutdown may take before it is made an immediate one.
const FAST_DEADLINE: Duration = Duration::from_secs(20);
/// How long an immediate shutdown may take.
const IMMEDIATE_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The arguments of the helper.
#[derive(Debug, clap::Args)]
pub struct GuardArgs {
    /// The cluster's folder.
    #[arg(long)]
    folder: PathBuf,
    /// The server's process id.
    #[arg(long)]
    pid: u32,
    /// Remove this folder when the server has stopped.
    #[arg(long)]
    remove: Option<PathBuf>,
}

/// A running helper. It acts when this is dropped or its process is gone, and
/// finds nothing to do when the server was stopped before.
#[derive(Debug)]
pub struct Guard {
    // Its standard input is the pipe whose end the helper waits for.
    helper: Option<Child>,
}

impl Guard {
    pub(super) fn start(
        executable: &Path,
        folder: &Path,
        pid: u32,
        remove: Option<&Path>,
    ) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(executable);
        command.arg("postgres-guard").arg("--folder").arg(folder).arg("--pid").arg(pid.to_string());
        if let Some(remove) = remove {
            command.arg("--remove").arg(remove);
        }
        // In a process group of its own: what kills the owner's must spare it.
        command.process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { helper: Some(command.spawn().context(executable.display())?) })
    }
}

/// How a server is guarded over its restarts.
#[derive(Debug)]
pub(super) struct Guarding {
    executable: PathBuf,
    /// The helper's to remove as soon as there is one.
    remove: Option<TemporaryFolder>,
    guard: Option<Guard>,
}

impl Guarding {
    pub(super) fn new(executable: PathBuf, remove: Option<TemporaryFolder>) -> Self {
        Self { executable, remove, guard: None }
    }

    /// Guards the server that was started just now.
    pub(super) fn watch(&mut self, folder: &Path, pid: u32) {
        let remove = self.remove.as_ref().map(|remove| remove.path.as_path());
        match Guard::start(&self.executable, folder, pid, remove) {
            // The new guard first: at no time may the server be without one.
            Ok(new) => self.guard.replace(new).into_iter().for_each(Guard::dismiss),
            Err(failure) => return say!("sluice: PostgreSQL has no guard: {failure}"),
        }
        self.remove.iter_mut().for_each(TemporaryFolder::leave);
    }
}

impl Guard {
    /// Ends the helper before it acts: another server runs in the folder now.
    fn dismiss(mut self) {
        if let Some(helper) = &mut self.helper {
            drop(helper.kill());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            // Waiting closes the pipe first, and leaves no zombie behind.
            std::thread::spawn(move || helper.wait());
        }
    }
}

/// The helper: waits for the end of its standard input, then stops the server.
#[must_use]
pub fn guard(args: &GuardArgs) -> ExitCode {
    drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
    let stopping = async {
        let data = args.folder.join("data");
        match postmaster(&data) {
            // Another server took its place, and has a guard of its own.
            Some(pid) if pid != args.pid => return,
            Some(pid) => drop(stop(&data, pid).await),
            None => {}
        }
        if let Some(folder) = &args.remove {
            remove_folder(folder);
        }
    };
    match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime.block_on(stopping),
        Err(_) => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Ends a server that still runs on a data directory whose lock we hold.
pub(super) async fn stop_leftover(data: &Path) -> Result<(), Failure> {
    match postmaster(data) {
        Some(pid) => stop(data, pid).await,
        None => Ok(()),
    }
}

/// A program in a process group of its own. It and all that it started end at once
/// when this is dropped.
pub(super) struct Running(Option<Pid>);

impl Running {
    pub(super) fn new(pid: Option<u32>) -> Self {
        Self(pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }

    /// It has ended by itself.
    pub(super) fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            drop(kill_process_group(group, Signal::KILL).map_err(io::Error::from));
        }
    }
}

/// Sends a signal to a process.
pub(crate) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("no such process"))?;
    kill_process(pid, signal).map_err(Into::into)
}

/// The process that runs on a data directory: the one its pid file names, if it
/// lives and is a server of just this directory.
fn postmaster(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = file.lines().next()?.trim().parse().ok()?;
    (lives(pid) && works_in(pid, data)).then_some(pid)
}

fn lives(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Whether a process is a server of this data directory, and not some other
/// program that was given the same process id later. A server's working
/// directory is its data directory; without /proc its command line tells.
fn works_in(pid: u32, data: &Path) -> bool {
    if Path::new("/proc/self/cwd").exists() {
        return fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data);
    }
    let said = Command::new("ps").args(["-o", "command=", "-p", &pid.to_string()]).output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(&*data.to_string_lossy()))
}

async fn stop(data: &Path, pid: u32) -> Result<(), Failure> {
    for (signal, patience) in [(Signal::INT, FAST_DEADLINE), (Signal::QUIT, IMMEDIATE_DEADLINE)] {
        drop(send(pid, signal));
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if postmaster(data) != Some(pid) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Err(Failure::new(format!(
        "{}: a PostgreSQL (process {pid}) still runs here and does not stop",
        data.display()
    )))
}
