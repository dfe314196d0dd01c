//! One replica of a peer: its connection, how many calls are under way there, and
//! whether it rests after a failure.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use tower::service_fn;

use super::Peer;
use crate::backoff::Rest;

/// How long a replica rests after a first failure, and at most.
const REST_FIRST: Duration = Duration::from_millis(200);
const REST_LONGEST: Duration = Duration::from_secs(10);

/// A replica.
#[derive(Debug)]
pub(super) struct Replica {
    /// Which of the peer's endpoints it belongs to.
    pub(super) of: usize,
    pub(super) address: SocketAddr,
    endpoint: Endpoint,
    channel: Channel,
    under_way: AtomicUsize,
    rest: Mutex<Rest>,
}

/// A channel to one address of an endpoint, whose name still counts for TLS.
fn dial(endpoint: &Endpoint, address: SocketAddr) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    }))
}

impl Replica {
    pub(super) fn new(of: usize, address: SocketAddr, endpoints: &[Endpoint]) -> Self {
        let endpoint = endpoints[of].clone();
        Self {
            of,
            address,
            channel: dial(&endpoint, address),
            endpoint,
            under_way: AtomicUsize::new(0),
            rest: Mutex::new(Rest::new(REST_FIRST, REST_LONGEST)),
        }
    }

    /// The same by a new connection.
    pub(super) fn again(&self, endpoints: &[Endpoint]) -> Self {
        Self::new(self.of, self.address, endpoints)
    }

    fn rest(&self) -> std::sync::MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rest().lasts(now)
    }
}

/// The replica to call: of those that don't rest, the one with the fewest calls
/// under way, and of several the first from a random place on; if all rest, the one
/// that may be tried first again.
pub(super) fn best(replicas: &[Arc<Replica>], now: Instant) -> Option<Arc<Replica>> {
    if replicas.is_empty() {
        return None;
    }
    let from = rand::random_range(0..replicas.len());
    let (after, before) = replicas.split_at(from);
    let around = || before.iter().chain(after);
    let awake = around().filter(|replica| !replica.rests(now));
    let best = awake.min_by_key(|replica| replica.under_way.load(Relaxed));
    best.or_else(|| around().min_by_key(|replica| replica.rest().until())).cloned()
}

/// A replica for one call. Tell it how that ended.
#[derive(Debug)]
pub struct Picked {
    replica: Arc<Replica>,
    peer: Peer,
}

impl Picked {
    pub(super) fn of(replica: Arc<Replica>, peer: Peer) -> Self {
        replica.under_way.fetch_add(1, Relaxed);
        Self { replica, peer }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.replica.address
    }

    /// The connection that all calls to it share.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.replica.channel.clone()
    }

    /// A connection of its own.
    #[must_use]
    pub fn own_channel(&self) -> Channel {
        dial(&self.replica.endpoint, self.replica.address)
    }

    /// How the call ended. Whether it did not get through, so that another replica
    /// may do better.
    pub fn ended(&self, failure: Option<&Status>) -> bool {
        let lost = failure.is_some_and(is_lost);
        if lost {
            self.replica.rest().failed(Instant::now());
            self.peer.call_failed();
        } else {
            self.replica.rest().worked();
        }
        lost
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.replica.under_way.fetch_sub(1, Relaxed);
    }
}

/// Whether a call did not get through, or its replica can't do its work: what the
/// service refuses has a reason.
fn is_lost(status: &Status) -> bool {
    let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded => reason.is_none(),
        _ => false,
    }
}
