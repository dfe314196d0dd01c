//! The tokens of a private pair: made once, kept over restarts, so that what
//! was configured with them goes on working.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use sluice_service::auth::{INTAKE_SCOPE, KeyEntry, KeysFile, SCOPES};

use crate::{
    failure::{Context, Failure},
    files::write_secret,
    keys::{NewToken, append_entries, tenant_scopes},
};

/// The organisations of a private pair.
pub(crate) const ORGANISATIONS: [&str; 2] = ["acme", "globex"];

/// Texts of the tokens, and the entries that the services know them by.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tokens {
    pub(super) token: Kept,
    pub(super) other_token: Kept,
    pub(super) admin_token: Kept,
    pub(super) intake_token: Kept,
}

/// One token as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) text: String,
    entry: KeyEntry,
}

impl From<NewToken> for Kept {
    fn from(token: NewToken) -> Self {
        Self { text: token.text, entry: token.entry }
    }
}

impl Tokens {
    /// The tokens kept in a folder, or new ones that are kept there from now
    /// on. The keys file beside them has an entry for each; entries that
    /// somebody added are left alone.
    pub(super) fn load(folder: &Path) -> Result<Self, Failure> {
        let kept = folder.join("tokens.json");
        let tokens = if kept.exists() {
            let text = fs::read_to_string(&kept).context(kept.display())?;
            serde_json::from_str(&text).context(kept.display())?
        } else {
            let made = Self::make();
            write_secret(&kept, &serde_json::to_string_pretty(&made).context(kept.display())?)?;
            made
        };
        tokens.enter(&folder.join("keys.toml"))?;
        write_secret(&folder.join("intake-token"), &tokens.intake_token.text)?;
        Ok(tokens)
    }

    fn make() -> Self {
        Self {
            token: NewToken::new(Some(ORGANISATIONS[0]), tenant_scopes()).into(),
            other_token: NewToken::new(Some(ORGANISATIONS[1]), tenant_scopes()).into(),
            admin_token: NewToken::new(None, SCOPES).into(),
            intake_token: NewToken::new(None, [INTAKE_SCOPE]).into(),
        }
    }

    /// Adds the entries that a keys file lacks.
    fn enter(&self, keys_file: &Path) -> Result<(), Failure> {
        let present: KeysFile = match fs::read_to_string(keys_file) {
            Ok(text) => toml::from_str(&text).context(keys_file.display())?,
            Err(_) => KeysFile::default(),
        };
        let lacks = |entry: &KeyEntry| present.token.iter().all(|known| known.id != entry.id);
        let ours = [&self.token, &self.other_token, &self.admin_token, &self.intake_token];
        let missing: Vec<KeyEntry> = ours.into_iter().map(|kept| kept.entry.clone()).filter(lacks).collect();
        if missing.is_empty() { Ok(()) } else { append_entries(keys_file, &missing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_same_at_the_second_start_and_added_keys_stay() {
        let folder = std::env::temp_dir().join(format!("sluice-tokens-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = Tokens::load(&folder).unwrap();
        let added = NewToken::new(Some("initech"), ["results.read"]);
        append_entries(&folder.join("keys.toml"), &[added.entry]).unwrap();
        let second = Tokens::load(&folder).unwrap();
        assert_eq!(first.token.text, second.token.text);
        let keys = fs::read_to_string(folder.join("keys.toml")).unwrap();
        assert_eq!(toml::from_str::<KeysFile>(&keys).unwrap().token.len(), 5);
        fs::remove_dir_all(&folder).unwrap();
    }
}
