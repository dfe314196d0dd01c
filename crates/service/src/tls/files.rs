//! PEM files, as whoever speaks TLS reads them.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// The implementation that all TLS here uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A certificate and its chain.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("holds no PEM certificate".into()),
        Ok(certificates) => Ok(certificates),
        Err(fault) => Err(format!("not PEM: {fault}")),
    }
}

/// A private key.
pub(crate) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // What is wrong with it might say what it is.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no PEM private key".into())
}

/// CAs to be trusted.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|fault| format!("not a CA: {fault}"))?;
    }
    Ok(roots)
}
