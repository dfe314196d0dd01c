//! A private PostgreSQL cluster as a value: made in a folder of its own,
//! durable, reachable on loopback with a random password only, and gone when
//! its owner is. `sluice dev`, `demo` and `bench` stand on it, and the tests.
//!
//! In the folder: `data` (the data directory), `password`, `server.log`, `lock`.

mod databases;
mod guard;
mod owner;
mod programs;

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use crate::{
    failure::{Context, Failure},
    files::{OwnFolder, TemporaryFolder, open_log, write_secret},
    port,
};

pub(crate) use guard::send;
pub use guard::{Guard, GuardArgs, guard};
use guard::{Guarding, Running};
use owner::Owner;
pub use programs::{Programs, is_root};

/// The superuser of a private cluster.
const USER: &str = "sluice";
/// How long a start may take, crash recovery included.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// How long a fast shutdown may take before it is made an immediate one.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How often a start looks whether it is done.
const POLL: Duration = Duration::from_millis(25);
/// The port may be taken, or a killed server's processes may not be gone yet.
const TRIES_MAX: u32 = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Where `postmaster.pid` says how far the server is, counted from 0.
const PID_FILE_STATUS_LINE: usize = 7;

/// Settings for a developer's machine of 2 to 8 cores. What durability stands
/// on is spelled out, so that no default elsewhere can take it away.
const SETTINGS: [&str; 15] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "autovacuum=on",
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "jit=off",
    "password_encryption=scram-sha-256",
    "logging_collector=off",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] %q%a/%d ",
];

/// A private cluster. Dropping it ends its server at once.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    owner: Option<Owner>,
    folder: PathBuf,
    password: String,
    wal_compression: &'static str,
    port: u16,
    more_settings: Vec<String>,
    server: Option<Child>,
    guarding: Option<Guarding>,
    _lock: File,
}

impl Cluster {
    /// Opens the cluster in `folder`, makes it if there is none, and ends a
    /// server that a killed owner left behind.
    ///
    /// # Errors
    /// If the server programs are missing, the folder is in use or can't be
    /// reached by the server's user, or the cluster can't be made.
    pub async fn open(folder: &Path, may_install: bool) -> Result<Self, Failure> {
        Self::open_in(OwnFolder::take(folder)?, may_install).await
    }

    /// The same, in a folder that is ours already.
    pub(crate) async fn open_in(folder: OwnFolder, may_install: bool) -> Result<Self, Failure> {
        let OwnFolder { path: folder, lock } = folder;
        let data = folder.join("data");
        let programs = Programs::find_or_install(programs::major_of_data(&data), may_install)?;
        let owner = Owner::of_server()?;
        if let Some(owner) = &owner {
            owner.check_reach(&folder)?;
        }
        guard::stop_leftover(&data).await?;
        let mut cluster = Self {
            programs,
            owner,
            folder,
            password: String::new(),
            wal_compression: "pglz",
            port: 0,
            more_settings: Vec::new(),
            server: None,
            guarding: None,
            _lock: lock,
        };
        cluster.password = match fs::read_to_string(cluster.folder.join("password")) {
            Ok(password) if data.exists() => password,
            _ => cluster.make().await?,
        };
        cluster.wal_compression = cluster.find_wal_compression().await;
        Ok(cluster)
    }

    /// Starts the server and waits until it answers. One that an earlier start gave up
    /// waiting for is waited for again. The port is kept over restarts, so that who is
    /// connected finds it again.
    ///
    /// # Errors
    /// If it doesn't come up; the end of its log says why.
    pub async fn start(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_DEADLINE;
        if self.pid().is_some() && self.answers(deadline).await? {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            if self.port == 0 {
                self.port = port::free()?;
            }
            let log = open_log(&self.folder.join("server.log"))?;
            let said_before = log.metadata().map_or(0, |meta| meta.len());
            self.server = Some(self.spawn(log)?);
            if let (Some(pid), Some(guarding)) = (self.pid(), &mut self.guarding) {
                guarding.watch(&self.folder, pid);
            }
            if self.answers(deadline).await? {
                return Ok(());
            }
            self.server = None;
            let said = self.log_since(said_before);
            if said.contains("could not bind") || said.contains("could not create any TCP/IP sockets") {
                self.port = 0;
            } else if !said.contains("is still in use") && !said.contains("lock file") {
                return Err(Failure::new(format!("PostgreSQL did not start:\n{}", said.trim_end())));
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        Err(Failure::new(format!("PostgreSQL did not start; see {}/server.log", self.folder.display())))
    }

    /// Settings that win over the cluster's own from the next start on, each as
    /// `name=value`.
    pub fn set_more(&mut self, settings: &[&str]) {
        self.more_settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Starts a helper process that ends the server when this process is gone,
    /// however it went. `executable` is the `sluice` program; the helper
    /// then also removes the folder `remove`.
    ///
    /// # Errors
    /// If the server isn't running or the helper can't be started.
    pub fn guard(&self, executable: &Path, remove: Option<&Path>) -> Result<Guard, Failure> {
        let pid = self.pid().ok_or_else(|| Failure::new("PostgreSQL is not running"))?;
        Guard::start(executable, &self.folder, pid, remove)
    }

    /// From the next start on the server always has such a helper. The folder
    /// `remove` goes in any case: while there is no helper, when this is dropped.
    pub(crate) fn keep_guarded(&mut self, executable: PathBuf, remove: Option<TemporaryFolder>) {
        self.guarding = Some(Guarding::new(executable, remove));
    }

    /// The server's process id, if it was started and did not end.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(Child::id)
    }

    /// The server's TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The cluster's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of one of its databases. Holds the password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Waits until the server ends by itself. For ever, if it isn't running.
    pub async fn ended(&mut self) {
        match &mut self.server {
            Some(server) => drop(server.wait().await),
            None => std::future::pending().await,
        }
        self.server = None;
    }

    /// Stops the server fast: open transactions are rolled back, all that was
    /// committed is on disk. Twice is safe.
    ///
    /// # Errors
    /// If the signal can't be sent.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        for (signal, patience) in [
            (rustix::process::Signal::INT, STOP_DEADLINE),
            (rustix::process::Signal::QUIT, STOP_DEADLINE),
            (rustix::process::Signal::KILL, STOP_DEADLINE),
        ] {
            let Some(pid) = server.id() else { return Ok(()) };
            guard::send(pid, signal).context("PostgreSQL")?;
            if tokio::time::timeout(patience, server.wait()).await.is_ok() {
                return Ok(());
            }
        }
        Err(Failure::new("PostgreSQL does not stop"))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A server program's command, run as the server's user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.path(program));
        if let Some(owner) = &self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        // A terminal's Ctrl-C is for the owner, which stops things in order.
        command.process_group(0).current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        command.kill_on_drop(false);
        command
    }

    fn spawn(&self, log: File) -> Result<Child, Failure> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.arg("-c").arg(format!("wal_compression={}", self.wal_compression));
        for setting in &self.more_settings {
            command.args(["-c", setting]);
        }
        if cfg!(target_os = "linux") {
            // Recovery begins with making all files durable: at once instead of
            // one by one, which takes seconds.
            command.args(["-c", "recovery_init_sync_method=syncfs"]);
        }
        let errors = log.try_clone().context("server.log")?;
        command.stdout(log).stderr(errors).spawn().context("PostgreSQL")
    }

    /// Whether the server comes up; false when it ended.
    async fn answers(&mut self, deadline: Instant) -> Result<bool, Failure> {
        let url = self.url("postgres");
        let server = self.server.as_mut().ok_or_else(|| Failure::new("PostgreSQL is not running"))?;
        loop {
            if server.try_wait().context("PostgreSQL")?.is_some() {
                return Ok(false);
            }
            if is_ready(&self.folder) && can_connect(&url).await {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Err(Failure::new("PostgreSQL did not start in time"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_since(&self, start: u64) -> String {
        let all = fs::read(self.folder.join("server.log")).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or(0).min(all.len());
        String::from_utf8_lossy(&all[start..]).into_owned()
    }

    /// Makes the data directory under another name and renames it when it is
    /// whole, so that a killed start leaves no half one. Returns the password.
    async fn make(&self) -> Result<String, Failure> {
        let (making, password_file) = (self.folder.join("data.new"), self.folder.join("password.new"));
        if self.data().exists() {
            return Err(Failure::new(format!("{}: password file missing", self.folder.display())));
        }
        if making.exists() {
            fs::remove_dir_all(&making).context(making.display())?;
        }
        fs::DirBuilder::new().mode(0o700).create(&making).context(making.display())?;
        let password = hex::encode(rand::random::<[u8; 24]>());
        write_secret(&password_file, &password)?;
        if let Some(owner) = &self.owner {
            owner.give(&making)?;
            owner.give(&password_file)?;
        }
        let mut initdb = self.command("initdb");
        initdb
            .args(["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--username", USER])
            .args(SYNC_LATER)
            .arg("--pgdata")
            .arg(&making)
            .arg("--pwfile")
            .arg(&password_file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let initdb = initdb.spawn().context("initdb")?;
        let running = Running::new(initdb.id());
        let made = initdb.wait_with_output().await.context("initdb")?;
        running.has_ended();
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr);
            return Err(Failure::new(format!("initdb failed:\n{}", said.trim_end())));
        }
        sync_all_below(&making).context(making.display())?;
        if self.owner.is_some() {
            std::os::unix::fs::chown(&password_file, Some(0), Some(0)).context(password_file.display())?;
        }
        fs::rename(&password_file, self.folder.join("password")).context("password")?;
        fs::rename(&making, self.data()).context("data")?;
        Ok(password)
    }

    /// The best compression of full-page images that the server was built with.
    async fn find_wal_compression(&self) -> &'static str {
        for method in ["lz4", "zstd"] {
            let mut asking = self.command("postgres");
            asking.arg("-D").arg(self.data()).arg("-c").arg(format!("wal_compression={method}"));
            asking.args(["-C", "wal_compression"]).stdout(Stdio::null()).stderr(Stdio::null());
            if asking.status().await.is_ok_and(|status| status.success()) {
                return method;
            }
        }
        "pglz"
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // Nobody can wait here. An immediate shutdown loses nothing that was
            // committed, and ends all of the server's processes.
            drop(guard::send(pid, rustix::process::Signal::QUIT));
        }
    }
}

/// Whether the server's own pid file says that it takes connections. Asking
/// this first keeps refused ones out of its log.
fn is_ready(folder: &Path) -> bool {
    let pid_file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    pid_file.lines().nth(PID_FILE_STATUS_LINE).is_some_and(|status| status.trim() == "ready")
}

async fn can_connect(url: &str) -> bool {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else { return false };
    let connection = tokio::spawn(connection);
    let answer = client.batch_execute("SELECT 1").await;
    connection.abort();
    answer.is_ok()
}

/// `initdb` makes its files durable one by one, which takes seconds; where one
/// call does it for all, it leaves that to us.
#[cfg(target_os = "linux")]
const SYNC_LATER: &[&str] = &["--no-sync"];
#[cfg(not(target_os = "linux"))]
const SYNC_LATER: &[&str] = &[];

#[cfg(target_os = "linux")]
fn sync_all_below(folder: &Path) -> std::io::Result<()> {
    rustix::fs::syncfs(File::open(folder)?).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn sync_all_below(_: &Path) -> std::io::Result<()> {
    Ok(())
}
