//! From ingest to results, each with its own certificate.

use sluice_proto::ingest::v1::Outcome;
use sluice_tests::{Ca, Pair, Tenant, eventually};

use super::{ask, clients};
use crate::support::*;

#[tokio::test]
async fn what_is_accepted_is_recorded_over_mutual_tls() {
    let pair = Pair::builder().tls().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("a/b")).await;
    let sent: Vec<_> = (0..3).map(|n| json("a/b", &format!("{{\"n\":{n}}}"))).collect();
    let outcomes = publish(&acme, sent.clone()).await;
    assert_eq!(kinds(&outcomes), [Outcome::Success; 3]);
    adds_up(&pair, &acme, &accepted(&sent, &outcomes)).await;
}

#[tokio::test]
async fn what_could_not_be_handed_over_is_once_ingest_has_another_certificate() {
    let pair = Pair::builder().processes().tls().start().await;
    let certificates = pair.certificates();
    // A CA that knows the tests, and not what ingest shows.
    let other = Ca::new();
    certificates.replace("other", &other.issue(&["tests"]));
    std::fs::write(certificates.path("clients"), other.pem()).unwrap();
    let acme = clients(&pair, &certificates.client("other"));
    eventually("the other CA", || async { ask(&acme).await.ok() }).await;
    put(&acme, definition("a/b")).await;
    let sent = vec![json("a/b", "{}")];
    let outcomes = publish(&acme, sent.clone()).await;
    assert_eq!(kinds(&outcomes), [Outcome::Success]);
    let failed = || async { pair.ingest[0].log().contains("results not recorded").then_some(()) };
    eventually("a hand-over that fails", failed).await;
    assert!(results(&acme).await.is_empty());

    certificates.replace("client", &other.issue(&["ingest"]));
    adds_up(&pair, &acme, &accepted(&sent, &outcomes)).await;
}
