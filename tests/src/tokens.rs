//! The tokens that a pair knows.

use std::path::{Path, PathBuf};

use sluice::keys::{NewToken, append_entries, tenant_scopes};
use sluice_service::auth::{INTAKE_SCOPE, SCOPES};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// The organisation `acme`, every tenant scope.
    Acme,
    /// The organisation `globex`, every tenant scope.
    Globex,
    /// All organisations, every scope.
    Admin,
    /// The ingest service itself: the intake scope only.
    Intake,
}

/// The texts of all tokens.
pub(crate) struct Tokens {
    acme: String,
    globex: String,
    admin: String,
    intake: String,
}

impl Tokens {
    /// New ones, and the keys file that knows them.
    pub(crate) fn new(files: &Path) -> (Self, PathBuf) {
        let acme = NewToken::new(Some("acme"), tenant_scopes());
        let globex = NewToken::new(Some("globex"), tenant_scopes());
        let admin = NewToken::new(None, SCOPES);
        let intake = NewToken::new(None, [INTAKE_SCOPE]);
        let keys_file = files.join("keys.toml");
        let entries = [&acme, &globex, &admin, &intake].map(|token| token.entry.clone());
        append_entries(&keys_file, &entries).expect("a keys file");
        let tokens = Self { acme: acme.text, globex: globex.text, admin: admin.text, intake: intake.text };
        (tokens, keys_file)
    }

    pub(crate) fn of(&self, tenant: Tenant) -> &str {
        match tenant {
            Tenant::Acme => &self.acme,
            Tenant::Globex => &self.globex,
            Tenant::Admin => &self.admin,
            Tenant::Intake => &self.intake,
        }
    }
}
