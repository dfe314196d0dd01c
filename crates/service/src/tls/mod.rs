//! TLS towards callers: a certificate, and a CA whose client certificates callers
//! must have, from files that are followed. TLS 1.2 and newer, by rustls with ring.
//! What serves says [`Listener`]; the settings that both services share are
//! [`Settings`].

mod files;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{
    io::AsyncBufReadExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

pub(crate) use files::{certificates, key, provider, roots};

use crate::{
    config::Faults,
    follow::{Unusable, follow},
};

/// How long the handshake may take, and the first byte after it.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(4);
/// What is spoken inside, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

crate::settings! {
    /// How callers are served: by TLS, or in plain text.
    pub struct Settings {
        tls_certificate_file: Option<PathBuf> = Some(""), "PEM file of the certificate to serve with, its chain after it; read again when it changes. Empty: no TLS.";
        tls_key_file: Option<PathBuf> = Some(""), "PEM file of that certificate's private key.";
        tls_client_ca_file: Option<PathBuf> = Some(""), "PEM file of CAs: callers must have a certificate of one of them. Empty: none is asked for.";
        plaintext: bool = Some("false"), "Serve without TLS on an address that is not loopback.";
        health_listen: Option<SocketAddr> = Some(""), "Address that serves grpc.health.v1 without TLS too, for probes that can't do TLS. Empty: none.";
    }
}

impl Settings {
    /// Whether callers are served by TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.tls_certificate_file.is_some()
    }

    /// What is wrong with them, for a service on this address.
    #[must_use]
    pub fn faults(&self, listen: SocketAddr) -> Vec<String> {
        let mut faults = Vec::new();
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (Some(_), None) => faults.push("tls_key_file: must be given with tls_certificate_file".into()),
            (None, Some(_)) => faults.push("tls_certificate_file: must be given with tls_key_file".into()),
            (None, None) if self.tls_client_ca_file.is_some() => {
                faults.push("tls_client_ca_file: needs tls_certificate_file and tls_key_file".into());
            }
            (None, None) if !self.plaintext && !listen.ip().is_loopback() => faults.push(format!(
                "listen: {listen} is not loopback: give tls_certificate_file and tls_key_file, or plaintext = true"
            )),
            (Some(_), Some(_)) if self.plaintext => {
                faults.push("plaintext: must be false with tls_certificate_file".into());
            }
            _ => {}
        }
        if faults.is_empty() {
            faults.extend(Tls::load(self).err().into_iter().flat_map(|faults| faults.0));
        }
        faults
    }
}

/// The settings that name the files, in their order.
const FILES: [&str; 3] = ["tls_certificate_file", "tls_key_file", "tls_client_ca_file"];

/// The TLS side of a service, as its files say now.
#[derive(Debug)]
pub struct Tls {
    /// Certificate, key, and the client CAs if there are any.
    paths: Vec<PathBuf>,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files; `None` if the service is to speak plain text.
    ///
    /// # Errors
    /// All that can't be read, or what doesn't fit together. The key is never part of it.
    pub fn load(settings: &Settings) -> Result<Option<Arc<Self>>, Faults> {
        let (Some(certificate), Some(key)) = (&settings.tls_certificate_file, &settings.tls_key_file) else {
            return Ok(None);
        };
        let mut paths = vec![certificate.clone(), key.clone()];
        paths.extend(settings.tls_client_ca_file.clone());
        let (mut contents, mut faults) = (Vec::new(), Vec::new());
        for (path, name) in paths.iter().zip(FILES) {
            match std::fs::read(path) {
                Ok(read) => contents.push(read),
                Err(fault) => faults.push(format!("{name}: {}: {fault}", path.display())),
            }
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let config = ArcSwap::from(server_config(&contents).map_err(|fault| Faults(vec![fault]))?);
        Ok(Some(Arc::new(Self { paths, config })))
    }

    /// Follows changes of the files until shutdown: new connections get what they
    /// say, open ones stay. Files that don't fit together change nothing, and are
    /// logged once.
    pub async fn follow(self: Arc<Self>, unusable: Unusable, shutdown: CancellationToken) {
        let mut is_first = true;
        let followed = unusable.of("tls_certificate_file");
        follow(followed, self.paths.clone(), shutdown, |contents| {
            self.config.store(server_config(contents)?);
            if !std::mem::take(&mut is_first) {
                tracing::info!("TLS certificates reloaded");
            }
            Ok(())
        })
        .await;
    }

    /// Shakes hands, and waits for the first byte of what is said inside.
    ///
    /// # Errors
    /// If either takes too long, or the caller has no certificate that is wanted.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let mut stream = timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await.map_err(|_| late())??;
        timeout(HANDSHAKE_TIME_MAX, stream.fill_buf()).await.map_err(|_| late())??;
        Ok(stream)
    }
}

/// What serves: a socket, and TLS on it or not.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Listener {
    /// A socket that is listened on.
    #[must_use]
    pub fn new(socket: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        Self { socket, tls }
    }
}

/// The configuration from the contents of certificate, key, and client CAs.
fn server_config(contents: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let [certificate, private_key, cas @ ..] = contents else {
        return Err("a certificate and a key are needed".into());
    };
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|fault| fault.to_string())?;
    let builder = match cas.first() {
        Some(cas) => builder.with_client_cert_verifier(client_verifier(cas, provider)?),
        None => builder.with_no_client_auth(),
    };
    let certificates = certificates(certificate).map_err(|fault| format!("tls_certificate_file: {fault}"))?;
    let key = key(private_key).map_err(|fault| format!("tls_key_file: {fault}"))?;
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|fault| format!("tls_certificate_file and tls_key_file: {fault}"))?;
    config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
    Ok(Arc::new(config))
}

fn client_verifier(
    cas: &[u8],
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let fault = |fault: String| format!("tls_client_ca_file: {fault}");
    let roots = Arc::new(roots(cas).map_err(fault)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    verifier.map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Part as _;

    fn settings(args: &str) -> Settings {
        Settings::load(args.split_whitespace().map(str::to_owned), []).unwrap()
    }

    #[test]
    fn only_loopback_is_served_without_tls_and_without_asking_for_it() {
        let faults = |args: &str, listen: &str| settings(args).faults(listen.parse().unwrap()).len();
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
            assert_eq!(faults("", loopback), 0, "{loopback}");
        }
        for other in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert_eq!(faults("", other), 1, "{other}");
            assert_eq!(faults("--plaintext true", other), 0, "{other}");
        }
    }

    #[test]
    fn half_a_configuration_is_a_fault() {
        let listen = "127.0.0.1:1".parse().unwrap();
        for (args, names) in [
            ("--tls-certificate-file c", "tls_key_file"),
            ("--tls-key-file k", "tls_certificate_file"),
            ("--tls-client-ca-file c", "tls_client_ca_file"),
            ("--tls-certificate-file c --tls-key-file k --plaintext true", "plaintext"),
        ] {
            let faults = settings(args).faults(listen);
            assert!(faults.len() == 1 && faults[0].contains(names), "{args}: {faults:?}");
        }
        let none = "--tls-certificate-file /none/c --tls-key-file /none/k --tls-client-ca-file /none/a";
        let faults = settings(none).faults(listen);
        assert_eq!(faults.len(), 3, "{faults:?}");
        let names = |fault: &String, name: &str| fault.starts_with(&format!("{name}: /none/"));
        assert!(faults.iter().zip(FILES).all(|(fault, name)| names(fault, name)), "{faults:?}");
    }

    #[test]
    fn contents_that_are_no_certificates_are_refused_without_being_shown() {
        let contents = [b"s3cret".to_vec(), b"s3cret".to_vec()];
        let fault = server_config(&contents).unwrap_err();
        assert!(fault.contains("tls_certificate_file") && !fault.contains("s3cret"), "{fault}");
    }
}
