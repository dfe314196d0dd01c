//! Object stores for the tests, on free ports on loopback: servers that verify
//! signatures as the providers do, and that can be looked into and broken.

mod azurite;
mod gs;
mod s3;
mod tools;

use std::sync::Once;

pub use azurite::Azurite;
pub use gs::GsServer;
pub use s3::{Answers, S3Server};

/// Names the TLS implementation for the clients of these servers. It may be called
/// any number of times.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    // Somebody else may have named one before.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
