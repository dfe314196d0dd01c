//! The operator's keys: they encrypt credentials at rest (XChaCha20-Poly1305) and
//! sign URLs (HMAC-SHA-256). Each has an id, which is kept with what it made, so
//! that keys can be rotated: the first of the ring is used for new things, all of
//! them for old ones.

use std::{collections::BTreeSet, path::Path};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use rand::Rng;
use serde::Deserialize;
use sha2::Sha256;

const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 32;

/// The keys file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    #[serde(default)]
    key: Vec<Entry>,
}

/// One `[[key]]` of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    secret: String,
}

struct Key {
    id: String,
    secret: [u8; SECRET_BYTES],
}

/// Something encrypted, and the id of the key that did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// The key's id.
    pub key: String,
    /// Nonce and ciphertext.
    pub bytes: Vec<u8>,
}

/// Keys, the present one first. May be empty: then nothing can be made.
pub struct Keyring(Vec<Key>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

impl Keyring {
    /// From a file (`[[key]]` tables with `id` and 64 hex digits as `secret`), and
    /// the text of a variable (`id=hex`, separated by commas). The file's come first.
    ///
    /// # Errors
    /// If one can't be read; no secret is part of the text.
    pub fn load(file: Option<&Path>, text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|fault| format!("{}: {fault}", path.display()))?;
            // What the parser says may quote a line, and with it a secret.
            let file: KeyringFile = toml::from_str(&text)
                .map_err(|_| format!("{}: must be [[key]] tables with id and secret", path.display()))?;
            // As of a pipe that was read before.
            if file.key.is_empty() {
                return Err(format!("{}: has no [[key]]", path.display()));
            }
            for entry in file.key {
                keys.push(Key::parse(&entry.id, &entry.secret)?);
            }
        }
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (id, secret) = entry.split_once('=').ok_or("keys must be id=hex, separated by commas")?;
            keys.push(Key::parse(id.trim(), secret.trim())?);
        }
        let ids: BTreeSet<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        if ids.len() == keys.len() { Ok(Self(keys)) } else { Err("two keys have the same id".into()) }
    }

    /// The id of the key that is used for new things.
    #[must_use]
    pub fn present(&self) -> Option<&str> {
        self.0.first().map(|key| key.id.as_str())
    }

    /// Encrypts; `context` has to be the same when it is opened. `None` without a
    /// key.
    #[must_use]
    pub fn seal(&self, text: &[u8], context: &str) -> Option<Ciphertext> {
        let key = self.0.first()?;
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: text, aad: context.as_bytes() };
        let cipher = XChaCha20Poly1305::new(&key.secret.into());
        let made = cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(Ciphertext { key: key.id.clone(), bytes: [&nonce[..], &made].concat() })
    }

    /// Decrypts. `None` if the key is gone, or it is not what was sealed.
    #[must_use]
    pub fn open(&self, sealed: &Ciphertext, context: &str) -> Option<Vec<u8>> {
        let key = self.find(&sealed.key)?;
        let (nonce, made) = sealed.bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg: made, aad: context.as_bytes() };
        XChaCha20Poly1305::new(&key.secret.into()).decrypt(&XNonce::from(*nonce), payload).ok()
    }

    /// Signs with the present key; its id comes along.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> Option<(&str, [u8; SIGNATURE_BYTES])> {
        let key = self.0.first()?;
        Some((&key.id, key.mac(text)?.finalize().into_bytes().into()))
    }

    /// Whether a signature is a key's over a text. Compares in constant time.
    #[must_use]
    pub fn verify(&self, key: &str, text: &[u8], signature: &[u8]) -> bool {
        let mac = self.find(key).and_then(|key| key.mac(text));
        mac.is_some_and(|mac| mac.verify_slice(signature).is_ok())
    }

    fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn parse(id: &str, secret: &str) -> Result<Self, String> {
        let plain = |id: &str| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if id.is_empty() || id.len() > 64 || !plain(id) {
            return Err("a key's id must be 1 to 64 letters, digits, dashes and underscores".into());
        }
        let mut bytes = [0; SECRET_BYTES];
        hex::decode_to_slice(secret, &mut bytes)
            .map_err(|_| format!("key {id}: the secret must be 64 hex digits"))?;
        Ok(Self { id: id.into(), secret: bytes })
    }

    fn mac(&self, text: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).ok()?;
        mac.update(text);
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(keys: &[(&str, u8)]) -> Keyring {
        let text: Vec<_> =
            keys.iter().map(|(id, byte)| format!("{id}={}", hex::encode([*byte; 32]))).collect();
        Keyring::load(None, &text.join(",")).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_in_its_context_only() {
        let ring = ring(&[("a", 1)]);
        let sealed = ring.seal(b"hunter2", "acme/1").unwrap();
        assert_eq!(ring.open(&sealed, "acme/1").unwrap(), b"hunter2");
        assert_eq!(ring.open(&sealed, "globex/1"), None);
        let mut changed = sealed.clone();
        changed.bytes[30] ^= 1;
        assert_eq!(ring.open(&changed, "acme/1"), None);
        assert!(!sealed.bytes.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(ring.seal(b"hunter2", "acme/1").unwrap(), sealed);
    }

    #[test]
    fn keys_rotate() {
        let (old, both, new) = (ring(&[("a", 1)]), ring(&[("b", 2), ("a", 1)]), ring(&[("b", 2)]));
        let sealed = old.seal(b"x", "").unwrap();
        assert_eq!(both.open(&sealed, "").unwrap(), b"x");
        assert_eq!(new.open(&sealed, ""), None);
        assert_eq!(both.seal(b"x", "").unwrap().key, "b");
        let (id, signature) = old.sign(b"text").unwrap();
        assert!(both.verify(id, b"text", &signature) && !new.verify(id, b"text", &signature));
        assert!(!both.verify("b", b"text", &signature) && !both.verify(id, b"text", &signature[1..]));
        assert!(!both.verify(id, b"texT", &signature));
    }

    #[test]
    fn a_ring_without_keys_makes_nothing() {
        let none = Keyring::load(None, "").unwrap();
        assert!(none.seal(b"x", "").is_none() && none.sign(b"x").is_none() && none.present().is_none());
    }

    #[test]
    fn bad_keys_are_refused_without_being_shown() {
        for bad in ["a", "a=abcd", "=00", "a b=00", &format!("a={0},a={0}", "00".repeat(32))] {
            let fault = Keyring::load(None, bad).unwrap_err();
            assert!(!fault.contains("abcd"), "{fault}");
        }
    }
}
