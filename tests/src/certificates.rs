//! Certificates of the tests: CAs that exist in memory only, and a folder with the
//! files that a pair which speaks TLS needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use sluice_service::peer::ClientTls;

use crate::{Service, cluster::scratch};

/// A CA.
#[derive(Debug)]
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate that a CA issued, and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Ca {
    /// A new one.
    ///
    /// # Panics
    /// If it can't be made.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// Its own certificate, as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for names and addresses.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(&Self::params(names))
    }

    /// Issues one that ended long ago.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let mut params = Self::params(names);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).expect("names")
    }

    fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The files of a pair that speaks TLS on 127.0.0.1, and of those who call it.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    /// Issues the services' certificates.
    pub servers: Ca,
    /// Issues the certificates of callers.
    pub clients: Ca,
}

impl Certificates {
    /// New ones, in a folder of their own.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    #[must_use]
    pub fn new() -> Self {
        let made = Self { folder: scratch("certificates"), servers: Ca::new(), clients: Ca::new() };
        made.write("servers", &made.servers.pem());
        made.write("clients", &made.clients.pem());
        made.replace("server", &made.servers.issue(&["127.0.0.1"]));
        made.replace("client", &made.clients.issue(&["ingest"]));
        made
    }

    /// A file's path, such as `server` or `server.key`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a certificate and its key: `server` or `client`, or any other name.
    pub fn replace(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.key"), &issued.key);
        self.write(name, &issued.certificate);
    }

    /// What a caller with the certificate of this name trusts and shows.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientTls {
        ClientTls {
            ca_file: Some(self.path("servers")),
            certificate_file: Some(self.path(name)),
            key_file: Some(self.path(&format!("{name}.key"))),
        }
    }

    /// The flags of a service.
    pub(crate) fn flags(&self, service: Service) -> Vec<String> {
        let mut files = vec![
            ("tls-certificate-file", "server"),
            ("tls-key-file", "server.key"),
            ("tls-client-ca-file", "clients"),
        ];
        if service == Service::Ingest {
            files.extend([
                ("results-ca-file", "servers"),
                ("results-client-certificate-file", "client"),
                ("results-client-key-file", "client.key"),
            ]);
        }
        let flag = |(name, file)| [format!("--{name}"), self.path(file).display().to_string()];
        files.into_iter().flat_map(flag).collect()
    }

    fn write(&self, name: &str, text: &str) {
        replace_file(&self.path(name), text);
    }
}

/// Puts a file in another one's place, whole.
fn replace_file(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("a file");
    fs::rename(beside, path).expect("its place");
}
