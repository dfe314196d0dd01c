//! Another service that is called, over all of its replicas: each host name is
//! resolved to all of its addresses (a headless Service of Kubernetes), again and
//! again; calls go to the replica with the fewest under way. One that fails rests
//! for a while. A channel to the name of a service would stay with the one replica
//! that it met first.

mod client_tls;
mod replica;

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Mutex, Notify},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::follow::{Unusable, follow};
pub use client_tls::ClientTls;
pub use replica::Picked;
use replica::Replica;

/// How long a name may take to be resolved.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of a host name and port.
type Lookup = Arc<dyn Fn(String, u16) -> Found + Send + Sync>;
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// A service that is called. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    /// Without TLS.
    endpoints: Vec<Endpoint>,
    tls: ClientTls,
    lookup: Lookup,
    /// With TLS as the files say now.
    secured: ArcSwap<Vec<Endpoint>>,
    replicas: ArcSwap<Vec<Arc<Replica>>>,
    /// Held while names are resolved.
    resolving: Mutex<()>,
    /// A call failed: the names may say something else by now.
    failed: Notify,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("endpoints", &self.0.endpoints).finish_non_exhaustive()
    }
}

fn lookup(host: String, port: u16) -> Found {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

impl Peer {
    /// A peer at all addresses of these endpoints; it is connected to when it is
    /// first called.
    ///
    /// # Errors
    /// As [`ClientTls::secure`].
    pub fn new(endpoints: Vec<Endpoint>, tls: ClientTls) -> Result<Self, String> {
        Self::with(endpoints, tls, Arc::new(lookup))
    }

    fn with(endpoints: Vec<Endpoint>, tls: ClientTls, lookup: Lookup) -> Result<Self, String> {
        let secured = endpoints.iter().map(|endpoint| tls.secure(endpoint.clone()));
        let secured = ArcSwap::from_pointee(secured.collect::<Result<_, _>>()?);
        Ok(Self(Arc::new(Inner {
            endpoints,
            tls,
            lookup,
            secured,
            replicas: ArcSwap::default(),
            resolving: Mutex::default(),
            failed: Notify::new(),
        })))
    }

    /// The replica to call now. `None` if no address is known, nor can be found.
    pub async fn pick(&self) -> Option<Picked> {
        if self.0.replicas.load().is_empty() {
            self.resolve().await;
        }
        let replicas = self.0.replicas.load();
        Some(Picked::of(replica::best(&replicas, Instant::now())?, self.clone()))
    }

    /// Whether another call may find another replica that does not rest.
    #[must_use]
    pub fn has_others(&self) -> bool {
        let now = Instant::now();
        self.0.replicas.load().iter().any(|replica| !replica.rests(now))
    }

    fn call_failed(&self) {
        self.0.failed.notify_one();
    }

    /// Resolves the names every so often, and when calls fail, as long as it is polled.
    pub async fn follow_names(self, every: Duration) {
        loop {
            self.resolve().await;
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.0.failed.notified() => {
                    // Failures come in swarms.
                    tokio::time::sleep(every / 10).await;
                }
            }
        }
    }

    /// Follows changes of the certificates until shutdown: calls that come after
    /// use them, open ones end as they began. Files that don't fit together change
    /// nothing, are logged once, and told of by the name of their setting.
    pub async fn follow_files(self, setting: &'static str, unusable: Unusable, shutdown: CancellationToken) {
        let inner = &self.0;
        let mut known = inner.tls.contents().ok();
        follow(unusable.of(setting), inner.tls.paths(), shutdown, |contents| {
            if known.as_deref() == Some(contents) {
                return Ok(());
            }
            let endpoints = inner.endpoints.iter();
            let secured = endpoints.map(|endpoint| inner.tls.secure_with(endpoint.clone(), contents));
            let secured: Vec<_> = secured.collect::<Result<_, _>>()?;
            let replicas = inner.replicas.load().iter().map(|old| Arc::new(old.again(&secured))).collect();
            inner.secured.store(Arc::new(secured));
            inner.replicas.store(Arc::new(replicas));
            known = Some(contents.to_vec());
            tracing::info!("client certificates reloaded");
            Ok(())
        })
        .await;
    }

    /// Brings the replicas in step with what the names say. A name that can't be
    /// resolved keeps the addresses it had.
    async fn resolve(&self) {
        let _resolving = self.0.resolving.lock().await;
        let mut found = Vec::new();
        for (at, endpoint) in self.0.endpoints.iter().enumerate() {
            let uri = endpoint.uri();
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            match tokio::time::timeout(LOOKUP_TIMEOUT, (self.0.lookup)(host, port)).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => {
                    found.extend(addresses.into_iter().map(|address| (at, address)));
                }
                Ok(Err(error)) => tracing::warn!(%error, url = %uri, "the name can't be resolved"),
                _ => tracing::warn!(url = %uri, "the name has no address"),
            }
            if !found.iter().any(|(of, _)| *of == at) {
                let known = self.0.replicas.load();
                found.extend(known.iter().filter(|known| known.of == at).map(|known| (at, known.address)));
            }
        }
        found.sort_unstable();
        found.dedup();
        let known = self.0.replicas.load_full();
        if known.iter().map(|known| (known.of, known.address)).eq(found.iter().copied()) {
            return;
        }
        let secured = self.0.secured.load();
        let replicas = found.into_iter().map(|(of, address)| {
            let same = known.iter().find(|known| (known.of, known.address) == (of, address));
            same.cloned().unwrap_or_else(|| Arc::new(Replica::new(of, address, &secured)))
        });
        let replicas: Vec<_> = replicas.collect();
        tracing::info!(addresses = ?replicas.iter().map(|replica| replica.address).collect::<Vec<_>>(), "replicas found");
        self.0.replicas.store(Arc::new(replicas));
    }
}

#[cfg(test)]
mod tests;
