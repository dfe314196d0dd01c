//! The user a server runs as: ourselves, or an unprivileged one when root runs
//! it, since PostgreSQL refuses to run as root.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use super::is_root;
use crate::failure::{Context, Failure};

/// Users that may run the server for root, the best first.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// An unprivileged user that runs the server.
#[derive(Debug)]
pub(super) struct Owner {
    name: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// The server's user; `None` means ourselves.
    ///
    /// # Errors
    /// If we are root and there is no other user to run it.
    pub(super) fn of_server() -> Result<Option<Self>, Failure> {
        if !is_root() {
            return Ok(None);
        }
        let id = |flag, name| -> Option<u32> {
            let said = Command::new("id").args([flag, name]).stderr(Stdio::null()).output().ok()?;
            String::from_utf8_lossy(&said.stdout).trim().parse().ok().filter(|id| *id != 0)
        };
        let found = USERS.into_iter().find_map(|name| {
            let (uid, gid) = (id("-u", name)?, id("-g", name)?);
            Some(Self { name, uid, gid })
        });
        found.map(Some).ok_or_else(|| {
            Failure::unusable(
                "PostgreSQL does not run as root and there is no user `postgres`; \
                 create one (`useradd --system postgres`) or run sluice as another user",
            )
        })
    }

    /// Makes it the owner of a file or folder.
    pub(super) fn give(&self, path: &Path) -> Result<(), Failure> {
        chown(path, Some(self.uid), Some(self.gid)).context(path.display())
    }

    /// Whether the user can reach a folder; the folders above it decide.
    pub(super) fn check_reach(&self, folder: &Path) -> Result<(), Failure> {
        let mut reach = Command::new("/bin/sh");
        reach.args(["-c", "cd \"$0\""]).arg(folder).uid(self.uid).gid(self.gid).current_dir("/");
        reach.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if reach.status().context("/bin/sh")?.success() {
            return Ok(());
        }
        Err(Failure::unusable(format!(
            "PostgreSQL does not run as root, and the user `{}` who runs it can't reach {}; \
             choose a folder all of whose parents it may pass through (chmod o+x), such as one below /var/tmp",
            self.name,
            folder.display()
        )))
    }
}
