//! Keys that the results service of a private pair encrypts and signs with: made
//! once, kept over restarts, so that credentials stay readable and URLs valid.

use std::path::{Path, PathBuf};

use crate::{failure::Failure, files::write_secret};

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// Where they are kept.
pub(super) struct Secrets {
    /// Encrypts the credentials of storage configs.
    pub(super) storage_keys: PathBuf,
    /// Signs URLs.
    pub(super) signing_keys: PathBuf,
}

impl Secrets {
    /// The keys kept in a folder, or new ones that are kept there from now on. One
    /// that somebody added is left alone.
    pub(super) fn load(folder: &Path) -> Result<Self, Failure> {
        let secrets = Self {
            storage_keys: folder.join("storage-keys.toml"),
            signing_keys: folder.join("signing-keys.toml"),
        };
        for path in [&secrets.storage_keys, &secrets.signing_keys] {
            if !path.exists() {
                make(path)?;
            }
        }
        Ok(secrets)
    }
}

/// Makes a keys file.
fn make(path: &Path) -> Result<(), Failure> {
    let secret = hex::encode(rand::random::<[u8; KEY_BYTES]>());
    write_secret(path, &format!("[[key]]\nid = \"k1\"\nsecret = \"{secret}\"\n"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn keys_are_made_once_differ_and_are_their_owners_only() {
        let folder = std::env::temp_dir().join(format!("sluice-secrets-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let read = |secrets: &Secrets| {
            [&secrets.storage_keys, &secrets.signing_keys].map(|path| fs::read_to_string(path).unwrap())
        };
        let first = Secrets::load(&folder).unwrap();
        let texts = read(&first);
        assert_ne!(texts[0], texts[1]);
        assert_eq!(read(&Secrets::load(&folder).unwrap()), texts);
        for path in [&first.storage_keys, &first.signing_keys] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let parsed: toml::Table = texts[0].parse().unwrap();
        assert_eq!(parsed["key"][0]["secret"].as_str().unwrap().len(), 2 * KEY_BYTES);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}
