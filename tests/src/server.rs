//! A PostgreSQL of one test's own, which it may kill, pause, and start with other
//! settings.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use sluice::postgres::{Cluster, Guard};

use crate::signal::{signal, stop};

/// The server. Ends when dropped.
pub struct OwnServer {
    pub(crate) cluster: Cluster,
    guard: Guard,
}

impl OwnServer {
    /// Makes one, as durable as that of `sluice dev`.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sluice-server-{}-{number}", std::process::id()));
        let mut cluster = Cluster::open(&folder, true).await.expect("a private PostgreSQL");
        cluster.start().await.expect("a private PostgreSQL");
        let guard = guard(&cluster);
        Self { cluster, guard }
    }

    /// Where its files are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.cluster.folder().join("data")
    }

    /// The URL of one of its databases, as its superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.cluster.url(database)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Settings that win over its own from the next start on, each as `name=value`.
    pub fn set_more(&mut self, settings: &[&str]) {
        self.cluster.set_more(settings);
    }

    /// Stops it in good order.
    ///
    /// # Panics
    /// If it doesn't end.
    pub async fn stop(&mut self) {
        self.cluster.stop().await.expect("PostgreSQL stops");
    }

    /// The process id of its first process.
    ///
    /// # Panics
    /// If it doesn't run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.cluster.pid().expect("it runs")
    }

    /// Ends it as a crash does: by `-KILL`, or by `-QUIT` as `pg_ctl -m immediate`
    /// does.
    ///
    /// # Panics
    /// If it doesn't run.
    pub async fn crash(&mut self, with: &str) {
        signal(with, &[self.pid()]);
        self.cluster.ended().await;
    }

    /// Starts it again, on the same port.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn restart(&mut self) {
        self.cluster.start().await.expect("PostgreSQL again");
        // The one before looks after a process that has gone.
        self.guard = guard(&self.cluster);
    }

    /// Stops all of its processes where they are. They go on when the answer is
    /// dropped.
    ///
    /// # Panics
    /// If it doesn't run.
    #[must_use]
    pub async fn pause(&self) -> Paused {
        Paused::of_family(self.pid()).await
    }
}

/// Ends the server, and removes its folder, when the test process is gone.
fn guard(cluster: &Cluster) -> Guard {
    cluster.guard(&crate::program(), Some(cluster.folder())).expect("its guard")
}

/// Processes that stand still until this is dropped.
#[derive(Debug)]
pub struct Paused(Vec<u32>);

impl Paused {
    /// One process alone.
    #[must_use]
    pub async fn of(pid: u32) -> Self {
        let paused = Self(vec![pid]);
        stop(&paused.0).await;
        paused
    }

    /// A process, then its children: it makes no new ones.
    async fn of_family(pid: u32) -> Self {
        let mut paused = Self::of(pid).await;
        let listed = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let children = listed.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (child, parent) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            (parent == pid).then_some(child)
        });
        paused.0.extend(children);
        stop(&paused.0).await;
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}
