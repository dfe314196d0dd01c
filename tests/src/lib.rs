//! What the end-to-end tests stand on: one private PostgreSQL per test process,
//! a database of its own for each test, a running pair on free ports, its
//! clients, and proxies that break connections at a chosen point.
//!
//! Tests run in parallel in one process and share nothing but the server. They
//! wait for what they wait for ([`eventually`]), never for a fixed time.

mod certificates;
mod cluster;
pub mod history;
mod pair;
mod program;
mod proxy;
mod replica;
mod server;
mod signal;
mod storage;
mod tokens;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub use certificates::{Ca, Certificates, Issued};
pub use cluster::{Database, Service, cluster, connect, encrypting_cluster, scratch};
pub use pair::{Link, Pair, PairBuilder};
pub use program::program;
pub use proxy::{Cut, Proxy};
pub use replica::Replica;
pub use server::{OwnServer, Paused};
pub use storage::{Answers, Azurite, GsServer, S3Server, install_tls};
pub use tokens::Tenant;

/// How long something may take that must happen.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Polls until the probe finds something, and returns that.
///
/// # Panics
/// If it doesn't within [`DEADLINE`]; the message says what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    eventually_within(DEADLINE, what, probe).await
}

/// [`eventually`], for what has to take longer.
///
/// # Panics
/// If it doesn't within the deadline; the message says what was waited for.
pub async fn eventually_within<T, F, Fut>(deadline: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(POLL).await;
    }
}
