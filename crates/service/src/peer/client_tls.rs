//! The files by which TLS trusts another service and is trusted by it.

use std::path::PathBuf;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::tls;

/// The client's side of TLS, in PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The CAs of the service's certificate. Absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show, its chain after it.
    pub certificate_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl ClientTls {
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        [&self.ca_file, &self.certificate_file, &self.key_file].into_iter().flatten().cloned().collect()
    }

    pub(crate) fn contents(&self) -> Result<Vec<Vec<u8>>, String> {
        let read =
            |path: PathBuf| std::fs::read(&path).map_err(|fault| format!("{}: {fault}", path.display()));
        self.paths().into_iter().map(read).collect()
    }

    /// An endpoint that is reached by TLS if its URL is https.
    ///
    /// # Errors
    /// If a file can't be used, or there are files and no TLS that needs them.
    pub fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, String> {
        self.secure_with(endpoint, &self.contents()?)
    }

    pub(super) fn secure_with(&self, endpoint: Endpoint, contents: &[Vec<u8>]) -> Result<Endpoint, String> {
        if self.certificate_file.is_some() != self.key_file.is_some() {
            return Err("a client certificate and its key are given together".into());
        }
        if endpoint.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
            let unused = !contents.is_empty();
            return if unused {
                Err("certificates are of use with an https URL only".into())
            } else {
                Ok(endpoint)
            };
        }
        endpoint.tls_config(self.config(contents)?).map_err(|fault| {
            let cause = std::error::Error::source(&fault).map(|cause| format!(": {cause}"));
            format!("{fault}{}", cause.unwrap_or_default())
        })
    }

    /// What is trusted and shown, by the contents of the files.
    pub(crate) fn config(&self, contents: &[Vec<u8>]) -> Result<ClientTlsConfig, String> {
        let mut contents = contents.iter();
        let mut config = match (&self.ca_file, &mut contents) {
            (Some(_), contents) => {
                let pem = contents.next().ok_or("the CA file was not read")?;
                tls::roots(pem).map_err(|fault| format!("CA file: {fault}"))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            (None, _) => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (contents.next(), contents.next()) {
            tls::certificates(certificate).map_err(|fault| format!("client certificate file: {fault}"))?;
            tls::key(key).map_err(|fault| format!("client key file: {fault}"))?;
            config = config.identity(Identity::from_pem(certificate, key));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(url: &'static str, tls: &ClientTls) -> Option<String> {
        tls.secure(Endpoint::from_static(url)).err()
    }

    #[test]
    fn files_that_would_not_be_used_are_a_fault() {
        let file = |text: &str| Some(PathBuf::from(text));
        assert_eq!(faults("http://a", &ClientTls::default()), None);
        let manifest = file(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let plain = faults("http://a", &ClientTls { ca_file: manifest.clone(), ..ClientTls::default() });
        assert!(plain.unwrap().contains("https"));
        let no_pem = faults("https://a", &ClientTls { ca_file: manifest.clone(), ..ClientTls::default() });
        assert!(no_pem.unwrap().contains("CA file"));
        let half = ClientTls { certificate_file: manifest, ..ClientTls::default() };
        assert!(faults("https://a", &half).unwrap().contains("together"));
        let missing = ClientTls { ca_file: file("/nonexistent"), ..ClientTls::default() };
        assert!(faults("https://a", &missing).unwrap().contains("/nonexistent"));
    }
}
