//! One replica of a service: in this process, where it is quick to start, or as
//! a process of its own, where it can be killed.

use std::{
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use sluice::connection::is_serving;
use sluice_service::chassis;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{Paused, Service, eventually, program, scratch};

/// A running replica. Ends when dropped.
pub struct Replica {
    service: Service,
    address: SocketAddr,
    flags: Vec<String>,
    /// Beside the test process's own; of a process.
    variables: Vec<(String, String)>,
    /// Of a process of its own; grows over restarts.
    log: PathBuf,
    body: Body,
}

enum Body {
    Task(CancellationToken, JoinHandle<()>),
    Process(Child),
    Stopped,
}

impl Replica {
    /// Starts one in this process on a free port.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start(service: Service, flags: Vec<String>) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).await.expect("its port");
        let body = task(service, listener, &flags);
        Self { service, address, flags, variables: vec![], log: PathBuf::new(), body }
    }

    /// Starts one as a process of its own.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start_process(
        service: Service,
        flags: Vec<String>,
        variables: Vec<(String, String)>,
    ) -> Self {
        let address = free_address();
        let log = scratch("log").join(service.name());
        let body = process(service, address, &flags, &variables, &log);
        Self { service, address, flags, variables, log, body }
    }

    /// Waits until it says that it is serving.
    pub async fn serving(&self) {
        // With TLS, not everybody may ask there.
        let url = match self.flag("health-listen") {
            Some(address) => format!("http://{address}"),
            None => self.url(),
        };
        eventually("a replica that serves", || async { is_serving(&url).await.then_some(()) }).await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin port listens.
    ///
    /// # Panics
    /// If the pair was built without admin ports.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.flag("admin-listen").expect("an admin port").parse().expect("its address")
    }

    /// Where it tells its health in plain text.
    ///
    /// # Panics
    /// If the pair was built without TLS.
    #[must_use]
    pub fn health(&self) -> SocketAddr {
        self.flag("health-listen").expect("a port for probes").parse().expect("its address")
    }

    fn flag(&self, name: &str) -> Option<&str> {
        let at = self.flags.iter().position(|flag| flag.strip_prefix("--") == Some(name))?;
        self.flags.get(at + 1).map(String::as_str)
    }

    /// What it has logged, if it is a process of its own.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.flag("tls-certificate-file").is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its process id, if it is a process of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.body {
            Body::Process(child) => Some(child.id()),
            _ => None,
        }
    }

    /// Sends SIGTERM to a process of its own, and waits for nothing.
    ///
    /// # Panics
    /// If it runs in this process.
    pub fn terminate(&self) {
        let pid = self.pid().expect("only a process gets signals").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    }

    /// Stops it as SIGTERM does, and waits until it is gone.
    ///
    /// # Panics
    /// If it ends badly.
    pub async fn stop(&mut self) {
        if matches!(self.body, Body::Process(_)) {
            self.terminate();
        }
        match std::mem::replace(&mut self.body, Body::Stopped) {
            Body::Task(token, task) => {
                token.cancel();
                task.await.expect("a clean stop");
            }
            Body::Process(mut child) => {
                let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("joins");
                assert!(ended.expect("its status").success(), "a clean stop");
            }
            Body::Stopped => {}
        }
    }

    /// SIGSTOP, for a process of its own. It goes on when the answer is dropped.
    ///
    /// # Panics
    /// If it runs in this process, or not at all.
    #[must_use]
    pub async fn pause(&self) -> Paused {
        Paused::of(self.pid().expect("a process of its own")).await
    }

    /// SIGKILL, for a process of its own.
    ///
    /// # Panics
    /// If it runs in this process.
    pub fn kill(&mut self) {
        match std::mem::replace(&mut self.body, Body::Stopped) {
            Body::Process(mut child) => {
                child.kill().expect("kill");
                child.wait().expect("its status");
            }
            _ => panic!("only a process can be killed"),
        }
    }

    /// Starts a stopped or killed one again at the same address, and waits until
    /// it serves.
    ///
    /// # Panics
    /// If it still runs, or doesn't come up.
    pub async fn restart(&mut self, as_process: bool) {
        assert!(matches!(self.body, Body::Stopped), "it still runs");
        self.body = if as_process {
            process(self.service, self.address, &self.flags, &self.variables, &self.log)
        } else {
            let address = self.address;
            let bind = || async { TcpListener::bind(address).await.ok() };
            let listener = eventually("its port", bind).await;
            task(self.service, listener, &self.flags)
        };
        self.serving().await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Task(token, _) => token.cancel(),
            Body::Process(child) => {
                drop(child.kill());
                drop(child.wait());
            }
            Body::Stopped => {}
        }
    }
}

/// Kept over restarts, so it must be one that nobody takes by chance.
fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, sluice::port::free().expect("a free port")))
}

fn task(service: Service, listener: TcpListener, flags: &[String]) -> Body {
    let shutdown = CancellationToken::new();
    let task = match service {
        Service::Ingest => running::<sluice_ingest::Settings>(flags, listener, &shutdown),
        Service::Results => running::<sluice_results::Settings>(flags, listener, &shutdown),
    };
    Body::Task(shutdown, task)
}

fn running<S: chassis::Service + Send + 'static>(
    flags: &[String],
    listener: TcpListener,
    shutdown: &CancellationToken,
) -> JoinHandle<()> {
    let settings = S::load(flags.iter().cloned(), []).expect("settings");
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        chassis::run(settings, listener, shutdown).await.expect("it runs and ends");
    })
}

fn process(
    service: Service,
    address: SocketAddr,
    flags: &[String],
    variables: &[(String, String)],
    log: &Path,
) -> Body {
    let log = OpenOptions::new().create(true).append(true).open(log).expect("a log");
    let mut command = Command::new(program());
    command.args(["serve", service.name(), "--listen", &address.to_string()]).args(flags);
    // Ends by itself when the test process is gone.
    command.env("SLUICE_STOP_ON_STDIN_EOF", "1").stdin(Stdio::piped());
    command.envs(variables.iter().cloned());
    command.env_remove("RUST_LOG").stdout(Stdio::null()).stderr(log);
    Body::Process(command.spawn().expect("a process"))
}
