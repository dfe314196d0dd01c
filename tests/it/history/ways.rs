//! How callers reach the replicas: each by proxies of its own.

use sluice::connection::Clients;
use sluice_tests::{Pair, Proxy, Tenant};

/// Ways of callers to each replica, each by a proxy.
pub struct Ways {
    pub ingest: [Proxy; 2],
    results: [Proxy; 2],
    /// For acknowledgements alone.
    pub signing: [Proxy; 2],
}

impl Ways {
    pub async fn to(pair: &Pair) -> Self {
        let (ingest, results) = (&pair.ingest, &pair.results);
        let proxy = |replicas: &'static str, at: usize| {
            let replica = if replicas == "ingest" { &ingest[at] } else { &results[at] };
            Proxy::start(replica.address())
        };
        Self {
            ingest: [proxy("ingest", 0).await, proxy("ingest", 1).await],
            results: [proxy("results", 0).await, proxy("results", 1).await],
            signing: [proxy("results", 0).await, proxy("results", 1).await],
        }
    }

    /// Clients of each replica.
    pub fn clients(&self, token: &str) -> [Clients; 2] {
        Self::over(&self.ingest, &self.results, token)
    }

    /// The same on the ways for acknowledgements.
    pub fn signing(&self, token: &str) -> [Clients; 2] {
        Self::over(&self.ingest, &self.signing, token)
    }

    fn over(ingest: &[Proxy; 2], results: &[Proxy; 2], token: &str) -> [Clients; 2] {
        let url = |proxy: &Proxy| format!("http://{}", proxy.address());
        [0, 1].map(|at| Clients::new(&url(&ingest[at]), &url(&results[at]), token).unwrap())
    }

    pub fn all(&self) -> impl Iterator<Item = &Proxy> {
        self.ingest.iter().chain(&self.results).chain(&self.signing)
    }
}

/// The token's text of each organisation.
pub fn token<'a>(pair: &'a Pair, organisation: &str) -> &'a str {
    pair.token(if organisation == "acme" { Tenant::Acme } else { Tenant::Globex })
}
