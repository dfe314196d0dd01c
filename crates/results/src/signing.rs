//! Signed URLs of data that this service itself gives out (`db` and `local`):
//! `/data/{id}?organisation=..&expires=..&key=..&signature=..`, HMAC-SHA-256 over
//! all of it. The URL is the credential; it opens one result, for reading, until
//! a moment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_service::OrganisationId;
use uuid::Uuid;

use crate::storage::keyring::{Keyring, SIGNATURE_BYTES};

/// The parameters of a signed URL.
pub const PARAMETERS: [&str; 4] = ["organisation", "expires", "key", "signature"];

/// Signs and verifies.
#[derive(Debug)]
pub struct Signing {
    keys: Keyring,
    /// What URLs begin with, without a slash at the end.
    base: String,
}

/// A signed URL's parts, as a caller brings them.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The result.
    pub id: &'a str,
    /// Whose.
    pub organisation: &'a str,
    /// Until when: seconds since the Unix epoch.
    pub expires: &'a str,
    /// With which key it was signed.
    pub key: &'a str,
    /// In hex.
    pub signature: &'a str,
}

/// What is signed. No part can hold a line's end.
fn text(id: &str, organisation: &str, expires: &str) -> String {
    format!("GET\n/data/{id}\n{organisation}\n{expires}")
}

impl Signing {
    /// With some keys, for URLs that begin with `base`.
    #[must_use]
    pub fn new(keys: Keyring, base: &str) -> Self {
        Self { keys, base: base.trim_end_matches('/').into() }
    }

    /// A URL that is good until a moment, to the second above. `None`: there is no key.
    #[must_use]
    pub fn url(&self, organisation: &OrganisationId, id: Uuid, until: SystemTime) -> Option<String> {
        let moment = until.duration_since(UNIX_EPOCH).ok()?;
        let expires = (moment.as_secs() + u64::from(moment.subsec_nanos() > 0)).to_string();
        let id = id.to_string();
        let signed = text(&id, organisation.as_str(), &expires);
        let (key, signature) = self.keys.sign(signed.as_bytes())?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("organisation", organisation.as_str())
            .append_pair("expires", &expires)
            .append_pair("key", key)
            .append_pair("signature", &hex::encode(signature))
            .finish();
        Some(format!("{}/data/{id}?{query}", self.base))
    }

    /// The result that a URL opens now. `None` for one that was changed, was signed
    /// by nobody here, or has ended.
    #[must_use]
    pub fn verify(&self, given: Signed<'_>) -> Option<(OrganisationId, Uuid)> {
        let mut signature = [0; SIGNATURE_BYTES];
        hex::decode_to_slice(given.signature, &mut signature).ok()?;
        let signed = text(given.id, given.organisation, given.expires);
        if !self.keys.verify(given.key, signed.as_bytes(), &signature) {
            return None;
        }
        let until = UNIX_EPOCH.checked_add(Duration::from_secs(given.expires.parse().ok()?))?;
        if until <= SystemTime::now() {
            return None;
        }
        Some((given.organisation.parse().ok()?, Uuid::try_parse(given.id).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(keys: &str) -> Signing {
        Signing::new(Keyring::load(None, keys).unwrap(), "https://results.example.com/")
    }

    fn parts(url: &str) -> (String, Vec<(String, String)>) {
        let (path, query) = url.split_once('?').unwrap();
        let id = path.rsplit('/').next().unwrap().to_owned();
        (id, form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn opens(signing: &Signing, (id, query): &(String, Vec<(String, String)>)) -> bool {
        let of = |name: &str| query.iter().find(|(found, _)| found == name).unwrap().1.as_str();
        let [organisation, expires, key, signature] = PARAMETERS.map(of);
        signing.verify(Signed { id, organisation, expires, key, signature }).is_some()
    }

    #[test]
    fn a_url_opens_what_it_was_made_for_and_nothing_else() {
        let one = signing(&format!("k1={}", "01".repeat(32)));
        let acme = "acme".parse().unwrap();
        let soon = SystemTime::now() + Duration::from_secs(60);
        let url = one.url(&acme, Uuid::now_v7(), soon).unwrap();
        assert!(url.starts_with("https://results.example.com/data/"));
        let good = parts(&url);
        assert!(opens(&one, &good));
        let other = (Uuid::now_v7().to_string(), good.1.clone());
        assert!(!opens(&one, &other));
        for (at, name) in PARAMETERS.iter().enumerate() {
            let mut changed = good.clone();
            let last = changed.1[at].1.pop().unwrap();
            changed.1[at].1.push(if last == '1' { '2' } else { '1' });
            assert!(!opens(&one, &changed), "{name}");
        }
        let past = one.url(&acme, Uuid::now_v7(), SystemTime::now() - Duration::from_secs(1)).unwrap();
        assert!(!opens(&one, &parts(&past)));
    }

    #[test]
    fn urls_outlive_a_rotation_of_keys_as_long_as_the_old_one_is_kept() {
        let (old, new) = (format!("k1={}", "01".repeat(32)), format!("k2={}", "02".repeat(32)));
        let soon = SystemTime::now() + Duration::from_secs(60);
        let url = signing(&old).url(&"acme".parse().unwrap(), Uuid::now_v7(), soon).unwrap();
        assert!(opens(&signing(&format!("{new},{old}")), &parts(&url)));
        assert!(!opens(&signing(&new), &parts(&url)));
        assert!(signing("").url(&"acme".parse().unwrap(), Uuid::now_v7(), soon).is_none());
    }
}
