//! Who is served, with what certificate, and for how long somebody may say nothing.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use sluice::connection::{is_serving, says_serving};
use sluice_proto::ingest::v1::PublishObservationsRequest;
use sluice_service::{peer::ClientTls, probes::LIVENESS};
use sluice_tests::{Ca, Certificates, Link, Pair, Replica, Tenant, eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{ask, clients};
use crate::support::*;

/// A session of this very TLS, with the pair's client certificate.
async fn session(certificates: &Certificates, replica: &Replica, protocol: &[u8]) -> TlsStream<TcpStream> {
    let tls = certificates.client("client");
    let read = |path: &Option<_>| -> std::path::PathBuf { Option::clone(path).unwrap() };
    let chain =
        |path: &Path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(&read(&tls.ca_file)));
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain(&read(&tls.certificate_file)),
            PrivateKeyDer::from_pem_file(read(&tls.key_file)).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(replica.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn shown(session: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    session.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn who_has_no_certificate_of_the_ca_is_not_served() {
    let pair = Pair::builder().tls().start().await;
    let certificates = pair.certificates();
    ask(&clients(&pair, &certificates.client("client"))).await.unwrap();

    certificates.replace("unknown", &Ca::new().issue(&["ingest"]));
    certificates.replace("expired", &certificates.clients.issue_expired(&["ingest"]));
    certificates.replace("own", &certificates.servers.issue(&["ingest"]));
    for name in ["unknown", "expired", "own"] {
        let status = ask(&clients(&pair, &certificates.client(name))).await.unwrap_err();
        // Never an answer: the connection does not come up.
        let broke = std::error::Error::source(&status).is_some();
        assert!(broke && status.details().is_empty(), "{name}: {status:?}");
    }
    let none = ClientTls { certificate_file: None, key_file: None, ..certificates.client("client") };
    assert!(ask(&clients(&pair, &none)).await.is_err(), "without any");
}

#[tokio::test]
async fn plain_text_is_answered_by_neither_service() {
    let pair = Pair::builder().tls().start().await;
    for replica in pair.ingest.iter().chain(&pair.results) {
        let plain = format!("http://{}", replica.address());
        assert!(!is_serving(&plain).await);
        let mut stream = TcpStream::connect(replica.address()).await.unwrap();
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // Cut off with an alert, or just so.
        drop(stream.read_to_end(&mut answer).await);
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_trusted() {
    let pair = Pair::builder().tls().start().await;
    let wrong = ClientTls {
        ca_file: Some(pair.certificates().path("clients")),
        ..pair.certificates().client("client")
    };
    assert_eq!(ask(&clients(&pair, &wrong)).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_process_lives_without_its_database_and_its_health_port_says_both() {
    let pair = Pair::builder().tls().proxied(Link::ResultsDatabase).start().await;
    let url = format!("http://{}", pair.results[0].health());
    assert!(is_serving(&url).await && says_serving(&url, LIVENESS).await);
    pair.proxy(Link::ResultsDatabase).refuse();
    eventually("not serving", || async { (!is_serving(&url).await).then_some(()) }).await;
    assert!(says_serving(&url, LIVENESS).await);
    assert!(!says_serving(&url, "nobody").await);
}

#[tokio::test]
async fn health_is_told_in_plain_text_on_its_own_port_and_nothing_else_is() {
    let pair = Pair::builder().tls().start().await;
    for replica in pair.ingest.iter().chain(&pair.results) {
        let url = format!("http://{}", replica.health());
        assert!(is_serving(&url).await);
        let channel = sluice::connection::channel(&url).unwrap();
        let token = sluice::connection::token_interceptor(pair.token(Tenant::Acme)).unwrap();
        let others = sluice::connection::Clients::over(channel.clone(), channel, &token);
        assert_eq!(ask(&others).await.unwrap_err().code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn http_1_1_is_spoken_inside_to_who_asks_for_it() {
    let pair = Pair::builder().tls().start().await;
    let mut session = session(pair.certificates(), &pair.results[0], b"http/1.1").await;
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    session.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(session.read_to_end(&mut answer).await);
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn who_says_nothing_is_cut_off_before_and_after_the_handshake() {
    let pair = Pair::builder().tls().start().await;
    let replica = &pair.results[0];
    // The first byte of a handshake, and then nothing.
    let mut half = TcpStream::connect(replica.address()).await.unwrap();
    half.write_all(&[0x16]).await.unwrap();
    let mut silent = session(pair.certificates(), replica, b"h2").await;
    let ends = async {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        drop(tokio::join!(half.read_to_end(&mut first), silent.read_to_end(&mut second)));
    };
    tokio::time::timeout(Duration::from_secs(20), ends).await.expect("both ends");
}

#[tokio::test]
async fn a_new_certificate_is_picked_up_and_open_connections_stay() {
    let pair = Pair::builder().processes().tls().start().await;
    let (certificates, replica) = (pair.certificates(), &pair.ingest[0]);
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("a/b")).await;
    let (send, requests) = mpsc::channel::<PublishObservationsRequest>(1);
    let mut ingest = acme.ingest.clone();
    let mut answers = ingest.stream_observations(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let before = shown(&session(certificates, replica, b"h2").await);

    // Half a change: the old one stays, and the log says so once.
    let next = certificates.servers.issue(&["127.0.0.1"]);
    std::fs::write(certificates.path("server.key"), "nonsense").unwrap();
    let noticed = || async { replica.log().contains("tls_certificate_file unusable").then_some(()) };
    eventually("a line in the log", noticed).await;
    assert_eq!(shown(&session(certificates, replica, b"h2").await), before);

    certificates.replace("server", &next);
    let changed = || async {
        let now = shown(&session(certificates, replica, b"h2").await);
        (now != before).then_some(now)
    };
    let now = eventually("the new certificate", changed).await;
    assert_eq!(now, CertificateDer::from_pem_slice(next.certificate.as_bytes()).unwrap());
    assert_eq!(replica.log().matches("tls_certificate_file unusable").count(), 1);

    send.send(request(vec![json("a/b", "{}")])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().observations.len(), 1);
}

#[tokio::test]
async fn a_client_ca_that_is_replaced_shuts_out_who_it_no_longer_knows() {
    let pair = Pair::builder().tls().start().await;
    let certificates = pair.certificates();
    let other = Ca::new();
    certificates.replace("other", &other.issue(&["ingest"]));
    assert!(ask(&clients(&pair, &certificates.client("other"))).await.is_err());
    std::fs::write(certificates.path("clients"), other.pem()).unwrap();
    eventually("the new CA", || async { ask(&clients(&pair, &certificates.client("other"))).await.ok() })
        .await;
    assert!(ask(&clients(&pair, &certificates.client("client"))).await.is_err());
}
