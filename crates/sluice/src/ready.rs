//! The ready file of a running pair: where it is and which tokens it takes.
//! `sluice dev` writes it; the client commands and scripts read it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Context, Failure},
    files::write_secret,
    postgres::is_root,
};

/// What a running pair tells its callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// URL of the ingest service.
    pub ingest: String,
    /// URL of the results service.
    pub results: String,
    /// The first organisation.
    pub organisation: String,
    /// Its token, with every tenant scope.
    pub token: String,
    /// A second organisation.
    pub other_organisation: String,
    /// Its token, likewise.
    pub other_token: String,
    /// A token for all organisations, with every scope.
    pub admin_token: String,
    /// The processes.
    pub pids: Pids,
}

/// The processes of a running pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// The ingest service.
    pub ingest: u32,
    /// The results service.
    pub results: u32,
    /// PostgreSQL's first process.
    pub postgres: u32,
}

impl Ready {
    /// Reads a ready file.
    ///
    /// # Errors
    /// If it can't be read or says something else.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|fault| Failure::unusable(format!("{}: {fault}", path.display())))?;
        serde_json::from_str(&text)
            .map_err(|fault| Failure::unusable(format!("{}: not a ready file: {fault}", path.display())))
    }

    /// Writes it for its owner only.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).context("ready file")?;
        write_secret(path, &(text + "\n"))
    }
}

/// Where `sluice` keeps things of its own between runs: `SLUICE_STATE_DIR`, or
/// `/var/lib/sluice` for root (whose home PostgreSQL's user can't enter), or
/// the user's state folder.
#[must_use]
pub fn state_dir() -> PathBuf {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("SLUICE_STATE_DIR")
        .or_else(|| is_root().then(|| "/var/lib/sluice".into()))
        .or_else(|| given("XDG_STATE_HOME").map(|state| state.join("sluice")))
        .or_else(|| given("HOME").map(|home| home.join(".local/state/sluice")))
        .unwrap_or_else(|| ".sluice".into())
}

/// The file that names the ready file of the `dev` started last.
fn pointer() -> PathBuf {
    state_dir().join("current")
}

/// Remembers a ready file as the one to use when none is named.
///
/// # Errors
/// If the state folder can't be written.
pub fn announce(ready: &Path) -> Result<(), Failure> {
    let pointer = pointer();
    if let Some(folder) = pointer.parent() {
        fs::create_dir_all(folder).context(folder.display())?;
    }
    let ready = fs::canonicalize(ready).context(ready.display())?;
    write_secret(&pointer, &ready.to_string_lossy())
}

/// Forgets a ready file that is gone, unless another one took its place.
pub fn withdraw(ready: &Path) {
    let resolved = ready.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let resolved = resolved.zip(ready.file_name()).map(|(folder, name)| folder.join(name));
    if pointed().is_some() && pointed() == resolved {
        drop(fs::remove_file(pointer()));
    }
}

fn pointed() -> Option<PathBuf> {
    fs::read_to_string(pointer()).ok().map(|path| PathBuf::from(path.trim()))
}

/// The ready file of the `dev` started last; if that was stopped, of one that
/// runs in the default place.
#[must_use]
pub fn announced() -> Option<PathBuf> {
    pointed().or_else(|| Some(state_dir().join("dev/ready.json")).filter(|ready| ready.exists()))
}

/// Removes a ready file; one that isn't there is fine.
///
/// # Errors
/// If it is there and can't be removed.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{}: {fault}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_only_the_owner_may() {
        let ready = Ready {
            ingest: "http://127.0.0.1:1".into(),
            results: "http://127.0.0.1:2".into(),
            organisation: "acme".into(),
            token: "t".into(),
            other_organisation: "globex".into(),
            other_token: "o".into(),
            admin_token: "a".into(),
            pids: Pids { ingest: 1, results: 2, postgres: 3 },
        };
        let path = std::env::temp_dir().join(format!("sluice-ready-{}", std::process::id()));
        ready.write(&path).unwrap();
        ready.write(&path).unwrap();
        assert_eq!(Ready::read(&path).unwrap(), ready);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
