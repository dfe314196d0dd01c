//! TLS towards PostgreSQL, for pools, lanes and migrations alike. With a CA file
//! the certificate and the host name are always verified (libpq's
//! `sslmode=verify-full`): encryption that anybody could answer protects from
//! nobody. `sslmode=require` without a CA file verifies against the system's CAs.
//! Channel binding is left out.

use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Config, Socket,
    config::SslMode,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_rustls::{TlsConnector, client};

use crate::tls::{provider, roots};

/// Makes TLS sessions; none where the URL says so.
#[derive(Clone, Debug)]
pub(super) struct Connector(Option<Arc<ClientConfig>>);

impl Connector {
    /// What `sslmode` and the CA file ask for. Settles the mode: there is no TLS
    /// that is given up when the server, or somebody between, says that it has
    /// none.
    pub(super) fn new(config: &mut Config, ca_file: Option<&Path>) -> Result<Self, String> {
        let wanted = match (config.get_ssl_mode(), ca_file) {
            (SslMode::Disable, Some(_)) => return Err("sslmode=disable, and a CA file is given".into()),
            (SslMode::Disable | SslMode::Prefer, None) => {
                config.ssl_mode(SslMode::Disable);
                return Ok(Self(None));
            }
            (_, wanted) => wanted,
        };
        config.ssl_mode(SslMode::Require);
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|fault| fault.to_string())?;
        let builder = match wanted {
            Some(path) => {
                let fault = |fault: String| format!("{}: {fault}", path.display());
                let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
                builder.with_root_certificates(roots(&pem).map_err(fault)?)
            }
            None => builder.with_platform_verifier().map_err(|fault| fault.to_string())?,
        };
        Ok(Self(Some(Arc::new(builder.with_no_client_auth()))))
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, io::Error> {
        // An address, or without TLS a socket's path, is as good as a name.
        let name = ServerName::try_from(host.to_owned()).ok();
        Ok(Handshake { config: self.0.clone(), name })
    }
}

/// One handshake to come.
#[derive(Debug)]
pub(super) struct Handshake {
    config: Option<Arc<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let (Some(config), Some(name)) = (self.config, self.name) else {
                return Err(io::Error::other("no TLS, or no host name to verify"));
            };
            let session = TlsConnector::from(config).connect(name, socket).await?;
            Ok(Encrypted(Box::new(session)))
        })
    }
}

/// A session's stream.
#[derive(Debug)]
pub(super) struct Encrypted(Box<client::TlsStream<Socket>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_tls_or_there_is_none_and_nothing_between() {
        let mode = |url: &str| {
            let mut config: Config = url.parse().unwrap();
            let connector = Connector::new(&mut config, None).unwrap();
            (config.get_ssl_mode(), connector.0.is_some())
        };
        assert_eq!(mode("postgres://h/d"), (SslMode::Disable, false));
        assert_eq!(mode("postgres://h/d?sslmode=disable"), (SslMode::Disable, false));
        assert_eq!(mode("postgres://h/d?sslmode=require"), (SslMode::Require, true));
    }

    #[test]
    fn a_ca_file_that_would_not_be_used_or_holds_none_is_a_fault() {
        let mut config: Config = "postgres://h/d?sslmode=disable".parse().unwrap();
        assert!(Connector::new(&mut config, Some(Path::new("ca"))).is_err());
        let mut config: Config = "postgres://h/d".parse().unwrap();
        let fault = Connector::new(&mut config, Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(fault.contains("/nonexistent"));
    }
}
