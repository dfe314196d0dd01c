//! A storage config's credentials, checked: only what is known for its provider,
//! complete, and well-formed. Never shown; a text of theirs is in no error. Pure.

use std::{collections::BTreeMap, fmt, time::SystemTime};

use prost_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::place::Provider;

/// Most bytes of names and values together.
const BYTES_MAX: usize = 16 * 1024;
/// Secrets that are hashed with, or encoded, and so may have any character.
const NEVER_SENT: [&str; 3] = ["secret_access_key", "client_secret", "service_account_key"];
/// When credentials end; for every provider.
const DATE_EXPIRES: &str = "date_expires";
/// An endpoint that is not the provider's own.
const ENDPOINT: &str = "endpoint";

/// The credentials as they were given.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Credentials(BTreeMap<String, String>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The fields of Google's key file that are used. Others, which could lead
/// requests elsewhere, are not passed on.
#[derive(Serialize, Deserialize)]
pub struct ServiceAccount {
    private_key: String,
    private_key_id: String,
    client_email: String,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    gcs_base_url: Option<String>,
}

impl Credentials {
    /// Checks what a caller gave for a provider.
    ///
    /// # Errors
    /// What is wrong, by name only.
    pub fn new(
        provider: Provider,
        given: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let credentials = Self(given.into_iter().collect());
        credentials.check(provider)?;
        Ok(credentials)
    }

    /// Whether there are none: then the service's own identity is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The endpoint that is not the provider's own.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.get(ENDPOINT)
    }

    /// When they end, if that is known.
    #[must_use]
    pub fn date_expires(&self) -> Option<SystemTime> {
        let moment: Timestamp = self.get(DATE_EXPIRES)?.parse().ok()?;
        SystemTime::try_from(moment).ok()
    }

    /// Google's key with the endpoint to use.
    ///
    /// # Errors
    /// If it is none.
    pub fn service_account(&self) -> Result<ServiceAccount, String> {
        let text = self.get("service_account_key").unwrap_or_default();
        let account: ServiceAccount =
            serde_json::from_str(text).map_err(|_| "service_account_key: must be the JSON text of a key")?;
        Ok(ServiceAccount { gcs_base_url: self.endpoint().map(str::to_owned), ..account })
    }

    /// Whether they are for this provider, complete and well-formed.
    ///
    /// # Errors
    /// What is wrong, by name only.
    pub(super) fn check(&self, provider: Provider) -> Result<(), String> {
        if self.0.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > BYTES_MAX {
            return Err("must be up to 16 KiB altogether".into());
        }
        if self.is_empty() {
            return Ok(());
        }
        let known: &[&str] = match provider {
            Provider::Db | Provider::Local => return Err("this type of storage takes no credentials".into()),
            Provider::S3 => &[
                "access_key_id",
                "secret_access_key",
                "session_token",
                "region",
                ENDPOINT,
                "virtual_hosted_style",
            ],
            Provider::Gs => &["service_account_key", ENDPOINT],
            Provider::Az => {
                &["account", "access_key", "sas_token", "client_id", "client_secret", "tenant_id", ENDPOINT]
            }
        };
        for (name, value) in &self.0 {
            if name != DATE_EXPIRES && !known.contains(&name.as_str()) {
                return Err(format!("only these are known here: {}, {DATE_EXPIRES}", known.join(", ")));
            }
            if value.is_empty() || value.contains(['\0', '\r', '\n']) && name != "service_account_key" {
                return Err(format!("{name}: must be a single line that is not empty"));
            }
            // What is sent as it is, the providers' clients take for fit to be sent.
            let is_fit = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            if !is_fit && !NEVER_SENT.contains(&name.as_str()) {
                return Err(format!("{name}: must be printable ASCII"));
            }
        }
        if self.get(DATE_EXPIRES).is_some() && self.date_expires().is_none() {
            return Err(format!("{DATE_EXPIRES}: must be a datetime such as 2026-12-31T23:59:59Z"));
        }
        self.check_complete(provider)
    }

    fn check_complete(&self, provider: Provider) -> Result<(), String> {
        let has = |name: &str| self.get(name).is_some();
        match provider {
            Provider::S3 => {
                if !has("access_key_id") || !has("secret_access_key") {
                    return Err("access_key_id and secret_access_key are needed".into());
                }
                if !matches!(self.get("virtual_hosted_style"), None | Some("true" | "false")) {
                    return Err("virtual_hosted_style: must be true or false".into());
                }
                // It becomes a part of a host's name.
                let plain = |region: &str| region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                if !self.get("region").is_none_or(plain) {
                    return Err("region: must be letters, digits and dashes".into());
                }
                Ok(())
            }
            Provider::Gs => self.service_account().map(drop),
            Provider::Az => {
                let client = ["client_id", "client_secret", "tenant_id"].map(has);
                let ways = [has("access_key"), has("sas_token"), client.contains(&true)];
                if !has("account")
                    || ways.iter().filter(|way| **way).count() != 1
                    || client.contains(&true) && client.contains(&false)
                {
                    let text = "account is needed, and one of access_key, sas_token, or client_id with client_secret and tenant_id";
                    return Err(text.into());
                }
                // Both become parts of a host's name or path.
                let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                if !["account", "tenant_id"].iter().all(|name| self.get(name).is_none_or(plain)) {
                    return Err("account and tenant_id: must be letters, digits and dashes".into());
                }
                Ok(())
            }
            Provider::Db | Provider::Local => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(provider: Provider, given: &[(&str, &str)]) -> Result<Credentials, String> {
        Credentials::new(provider, given.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    const S3: [(&str, &str); 2] = [("access_key_id", "AK"), ("secret_access_key", "hunter2")];

    #[test]
    fn only_complete_credentials_of_the_provider_are_taken() {
        let key =
            r#"{"private_key":"p","private_key_id":"i","client_email":"e","gcs_base_url":"http://evil"}"#;
        for (provider, given, fits) in [
            (Provider::S3, &S3[..], true),
            (Provider::S3, &S3[..1], false),
            (Provider::S3, &[], true),
            (Provider::Gs, &S3, false),
            (Provider::Gs, &[("service_account_key", key)], true),
            (Provider::Gs, &[("service_account_key", "{}")], false),
            (Provider::Az, &[("account", "a"), ("access_key", "k")], true),
            (Provider::Az, &[("account", "a"), ("access_key", "k"), ("sas_token", "s")], false),
            (Provider::Az, &[("account", "a"), ("client_id", "k")], false),
            (Provider::Az, &[("account", "a.evil.com/"), ("access_key", "k")], false),
            (Provider::Local, &S3, false),
            (Provider::Db, &[], true),
        ] {
            assert_eq!(check(provider, given).is_ok(), fits, "{provider:?} {}", given.len());
        }
        let more = |name, value| check(Provider::S3, &[S3[0], S3[1], (name, value)]);
        assert!(more("region", "eu-central-1").is_ok() && more("region", "x.evil.com/").is_err());
        assert!(more("date_expires", "2026-12-31T23:59:59Z").unwrap().date_expires().is_some());
        assert!(more("date_expires", "soon").is_err());
        assert!(more("session_token", "a b~").is_ok());
        let secret = |text| check(Provider::S3, &[S3[0], ("secret_access_key", text)]);
        assert!(secret("p\u{e4}ss").is_ok() && secret("a\nb").is_err());
        for bad in ["a\r\nb", "a\0", "a\tb", "a\u{1}", "a\u{7f}", "\u{e9}", ""] {
            assert!(more("session_token", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_key_of_google_leads_nowhere_else() {
        let key = r#"{"private_key":"p","private_key_id":"i","client_email":"e","gcs_base_url":"http://evil","disable_oauth":true}"#;
        let text = serde_json::to_string(
            &check(Provider::Gs, &[("service_account_key", key)]).unwrap().service_account().unwrap(),
        );
        assert!(!text.as_ref().unwrap().contains("evil") && !text.unwrap().contains("disable_oauth"));
    }

    #[test]
    fn their_size_is_bounded() {
        let of = |size: usize| check(Provider::S3, &[S3[0], ("secret_access_key", &"s".repeat(size - 32))]);
        assert!(of(16 * 1024).is_ok());
        assert!(of(16 * 1024 + 1).is_err());
    }

    #[test]
    fn nothing_of_them_is_shown() {
        assert_eq!(format!("{:?}", check(Provider::S3, &S3).unwrap()), "[redacted]");
        let fault = check(Provider::S3, &[("hunter2", "hunter2")]).unwrap_err();
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}
