//! The tenant's name as a type: what exists is valid.

use std::{fmt, str::FromStr, sync::Arc};

use crate::Error;

/// Longest organisation, in bytes.
pub const ORGANISATION_BYTES_MAX: usize = 128;

/// A tenant: 1 to 128 bytes of letters, digits and `._:-`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganisationId(Arc<str>);

impl OrganisationId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrganisationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=ORGANISATION_BYTES_MAX).contains(&text.len());
        let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
        if fits && clean {
            Ok(Self(text.into()))
        } else {
            Err(Error::invalid(
                "organisation",
                format!("must be 1 to {ORGANISATION_BYTES_MAX} bytes of letters, digits and ._:-"),
            ))
        }
    }
}

impl fmt::Display for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_up_to_the_limit_and_not_beyond() {
        assert!("a".repeat(128).parse::<OrganisationId>().is_ok());
        assert!("a".repeat(129).parse::<OrganisationId>().is_err());
        assert!("".parse::<OrganisationId>().is_err());
    }

    #[test]
    fn refuses_what_could_be_a_path_or_a_pattern() {
        for bad in ["a/b", "a b", "a\0", "a%", "é"] {
            assert!(bad.parse::<OrganisationId>().is_err(), "{bad:?}");
        }
        assert!("Acme-1.prod:eu_2".parse::<OrganisationId>().is_ok());
    }
}
