//! A private pair: PostgreSQL and both services as child processes, kept
//! running until they are stopped in order. `sluice dev`, `demo` and `bench`
//! are built on it.

mod process;
mod secrets;
mod tokens;

use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::is_serving,
    failure::{Context, Failure},
    files::{OwnFolder, TemporaryFolder, remove_folder},
    port,
    postgres::Cluster,
    ready::{self, Pids, Ready},
    text::say,
};
use process::Spec;
use secrets::Secrets;
use tokens::Tokens;

pub(crate) use tokens::ORGANISATIONS;

/// How long the pair may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long to wait for an address that a pair stopped just now still holds.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(15);
/// A service that ended this often before it served will not come up.
const ENDS_MAX: u32 = 3;
/// How long to wait before PostgreSQL is started again after a failed start.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(25);
/// The services' places in the order in which they are stopped.
const INGEST: usize = 0;
const RESULTS: usize = 1;

/// Where a private pair lives.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder: the cluster, the tokens, the logs.
    pub data_dir: PathBuf,
    /// Where ingest listens; port 0 picks a free one.
    pub ingest: SocketAddr,
    /// Where results listens; port 0 picks a free one.
    pub results: SocketAddr,
    /// Whether missing server programs may be installed.
    pub may_install: bool,
    /// Whether the folder goes when the pair ends.
    pub temporary: bool,
    /// A file that an earlier, killed run may have left. It goes as soon as the
    /// folder is ours: before, it is that of a pair that runs.
    pub ready_file: Option<PathBuf>,
}

impl Options {
    /// A pair on free ports in a new folder that is removed afterwards.
    #[must_use]
    pub fn temporary(may_install: bool) -> Self {
        let name = format!("sluice-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            data_dir: std::env::temp_dir().join(name),
            ingest: anywhere,
            results: anywhere,
            may_install,
            temporary: true,
            ready_file: None,
        }
    }
}

/// The user a service of a private pair logs in as. It owns nothing.
fn login(service: &str) -> String {
    format!("sluice_{service}")
}

/// A running private pair. Stop it; when it is only dropped, or this process is
/// killed, its processes end by themselves.
#[derive(Debug)]
pub struct PrivatePair {
    ready: Ready,
    shared: Arc<Shared>,
    // In the order in which they are stopped.
    kept: Vec<Kept>,
    /// The URL of the cluster, up to the database's name.
    postgres: String,
    remove: Option<PathBuf>,
}

/// A process that is kept running until its token is cancelled.
type Kept = (CancellationToken, JoinHandle<()>);

#[derive(Debug, Default)]
struct Shared {
    pids: watch::Sender<Pids>,
    ends: [std::sync::atomic::AtomicU32; 2],
}

impl PrivatePair {
    /// Brings it up and waits until both services serve. What was begun ends and
    /// goes, when this is dropped before.
    ///
    /// # Errors
    /// If something does not come up; says what, and the end of its log.
    pub async fn start(options: Options) -> Result<Self, Failure> {
        let executable = std::env::current_exe().context("own path")?;
        let folder = OwnFolder::take(&options.data_dir.join("postgres"))?;
        if let Some(left) = &options.ready_file {
            ready::remove(left)?;
        }
        let data_dir = fs::canonicalize(&options.data_dir).context(options.data_dir.display())?;
        let temporary = options.temporary.then(|| TemporaryFolder::new(data_dir.clone()));
        let mut cluster = Cluster::open_in(folder, options.may_install).await?;
        cluster.keep_guarded(executable.clone(), temporary);
        let (ingest, results) = (settle(options.ingest).await?, settle(options.results).await?);
        let tokens = Tokens::load(&data_dir)?;
        cluster.start().await?;
        for name in ["ingest", "results"] {
            cluster.create_database(&format!("sluice_{name}")).await?;
            cluster.create_login(&login(name)).await?;
        }
        let shared = Arc::new(Shared::default());
        let ready = ready(ingest, results, &tokens);
        let logs = data_dir.join("logs");
        fs::create_dir_all(&logs).context(logs.display())?;
        let keys = data_dir.join("keys.toml").display().to_string();
        let spec = |name, address: SocketAddr, more: Vec<String>| {
            let mut flags = vec![format!("--listen={address}"), format!("--keys-file={keys}")];
            flags.push("--migrate=true".into());
            // Nobody balances over these: there is nothing to wait for.
            flags.push("--shutdown-wait-seconds=0".into());
            // Whoever names another address than loopback asks for just that.
            flags.push(format!("--plaintext={}", !address.ip().is_loopback()));
            flags.extend(more);
            let database = format!("sluice_{name}");
            let database_url = cluster.url_of(&login(name), &database);
            let owner_url = cluster.url(&database);
            Spec { name, flags, database_url, owner_url, executable: executable.clone(), logs: logs.clone() }
        };
        let intake = data_dir.join("intake-token").display().to_string();
        let to_results =
            vec![format!("--results-url={}", ready.results), format!("--results-token-file={intake}")];
        let storage = storage_flags(&data_dir, &ready.results)?;
        let specs = [spec("ingest", ingest, to_results), spec("results", results, storage)];

        let mut kept = Vec::new();
        for (which, spec) in specs.clone().into_iter().enumerate() {
            kept.push(keep(spec, which, &shared));
        }
        let postgres = cluster.url("");
        let stop = CancellationToken::new();
        let keeping = keep_cluster(cluster, shared.clone(), stop.clone());
        kept.push((stop, tokio::spawn(keeping)));
        let remove = options.temporary.then_some(data_dir);
        let pair = Self { ready, shared, kept, postgres, remove };
        if let Err(failure) = pair.wait_until_serving(&specs).await {
            pair.stop().await;
            return Err(failure);
        }
        Ok(pair)
    }

    /// Where it is now; the process ids change when something is restarted.
    #[must_use]
    pub fn ready(&self) -> Ready {
        Ready { pids: *self.shared.pids.borrow(), ..self.ready.clone() }
    }

    /// Waits for other process ids than those of `known`.
    pub async fn changed(&self, known: Pids) {
        let mut pids = self.shared.pids.subscribe();
        drop(pids.wait_for(|now| *now != known).await);
    }

    /// The URL of a database of the pair's cluster, for its superuser. Holds the
    /// password.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        format!("{}{database}", self.postgres)
    }

    /// Stops the results service, and leaves it stopped.
    pub async fn stop_results(&mut self) {
        let (stop, task) = &mut self.kept[RESULTS];
        stop.cancel();
        drop((&mut *task).await);
        // Nothing is left to be stopped in the end.
        *task = tokio::spawn(std::future::ready(()));
    }

    /// Stops ingest, then results, then PostgreSQL.
    pub async fn stop(mut self) {
        for (stop, task) in std::mem::take(&mut self.kept) {
            stop.cancel();
            drop(task.await);
        }
        if let Some(folder) = &self.remove {
            remove_folder(folder);
        }
    }

    async fn wait_until_serving(&self, specs: &[Spec; 2]) -> Result<(), Failure> {
        self.wait_until_serves(RESULTS, &self.ready.results, &specs[RESULTS]).await?;
        self.wait_until_serves(INGEST, &self.ready.ingest, &specs[INGEST]).await
    }

    async fn wait_until_serves(&self, which: usize, url: &str, spec: &Spec) -> Result<(), Failure> {
        let deadline = Instant::now() + START_DEADLINE;
        while !is_serving(url).await {
            let ends = self.shared.ends[which].load(std::sync::atomic::Ordering::Relaxed);
            if ends >= ENDS_MAX || Instant::now() > deadline {
                return Err(Failure::new(format!(
                    "{} does not come up; the end of its log:\n{}",
                    spec.name,
                    spec.log_tail()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Keeps one of the services running.
fn keep(spec: Spec, which: usize, shared: &Arc<Shared>) -> Kept {
    let stop = CancellationToken::new();
    let told = Told { which, shared: shared.clone() };
    (stop.clone(), tokio::spawn(spec.keep(told, stop)))
}

/// What one of the pair's services tells of itself.
struct Told {
    which: usize,
    shared: Arc<Shared>,
}

impl Told {
    /// It runs under this process id.
    fn started(&self, pid: u32) {
        self.shared.pids.send_modify(|pids| match self.which {
            INGEST => pids.ingest = pid,
            _ => pids.results = pid,
        });
    }

    /// It ended without having been asked to.
    fn ended(&self) {
        self.shared.ends[self.which].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Keeps PostgreSQL running until `stop`, then stops it.
async fn keep_cluster(mut cluster: Cluster, shared: Arc<Shared>, stop: CancellationToken) {
    'kept: loop {
        if let Some(pid) = cluster.pid() {
            shared.pids.send_modify(|pids| pids.postgres = pid);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = cluster.ended() => {}
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => break 'kept,
                started = cluster.start() => match started {
                    Ok(()) => break,
                    Err(failure) => say!("sluice: {failure}"),
                },
            }
            tokio::select! {
                () = stop.cancelled() => break 'kept,
                () = tokio::time::sleep(TRY_AGAIN_AFTER) => {}
            }
        }
    }
    if let Err(failure) = cluster.stop().await {
        say!("sluice: {failure}");
    }
}

/// An address that can be listened on now: with a port, and free.
async fn settle(mut address: SocketAddr) -> Result<SocketAddr, Failure> {
    if address.port() == 0 {
        address.set_port(port::free()?);
    }
    let deadline = Instant::now() + ADDRESS_DEADLINE;
    let mut told = false;
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(fault) if fault.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    say!("Waiting for {address}, which is in use.");
                }
                tokio::time::sleep(POLL).await;
            }
            Err(fault) => return Err(Failure::unusable(format!("{address}: {fault}"))),
        }
    }
}

fn ready(ingest: SocketAddr, results: SocketAddr, tokens: &Tokens) -> Ready {
    // A service that listens everywhere is called on loopback.
    let url = |mut address: SocketAddr| {
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    };
    Ready {
        ingest: url(ingest),
        results: url(results),
        organisation: ORGANISATIONS[0].into(),
        token: tokens.token.text.clone(),
        other_organisation: ORGANISATIONS[1].into(),
        other_token: tokens.other_token.text.clone(),
        admin_token: tokens.admin_token.text.clone(),
        pids: Pids::default(),
    }
}

/// What lets the results service keep data in a folder and in buckets, and sign
/// URLs of its own. Which endpoints it may talk to is the environment's to say.
fn storage_flags(data_dir: &Path, results_url: &str) -> Result<Vec<String>, Failure> {
    let secrets = Secrets::load(data_dir)?;
    let local = data_dir.join("storage");
    // Tenants' data is its owner's only, also where the folder was there before.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&local).context(local.display())?;
    fs::set_permissions(&local, Permissions::from_mode(0o700)).context(local.display())?;
    Ok(vec![
        format!("--storage-local-root={}", local.display()),
        format!("--storage-keys-file={}", secrets.storage_keys.display()),
        format!("--signing-keys-file={}", secrets.signing_keys.display()),
        format!("--public-url={results_url}"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_enters_the_folder_of_the_data() {
        let data_dir = std::env::temp_dir().join(format!("sluice-storage-{}", std::process::id()));
        fs::create_dir(&data_dir).unwrap();
        let storage = data_dir.join("storage");
        let mode = || fs::metadata(&storage).unwrap().permissions().mode() & 0o777;
        storage_flags(&data_dir, "http://127.0.0.1:1").unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&storage, Permissions::from_mode(0o755)).unwrap();
        storage_flags(&data_dir, "http://127.0.0.1:1").unwrap();
        assert_eq!(mode(), 0o700, "one that was there before");
        fs::remove_dir_all(&data_dir).unwrap();
    }
}
