//! Files that only their owner may read, and the lock that makes a folder one
//! process's own.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::failure::{Context, Failure};

/// One owner per folder, also over processes; the kernel frees it on any end.
pub(crate) fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("lock");
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).context(path.display())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::unusable(format!("{}: another sluice is running here", folder.display())))
        }
        Err(TryLockError::Error(fault)) => Err(Failure::new(format!("{}: {fault}", path.display()))),
    }
}

/// Opens a log for appending, only for its owner.
pub(crate) fn open_log(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).context(path.display())
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        // An old file keeps its mode when it is opened: begin with none.
        match fs::remove_file(path) {
            Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().context(path.display())
}
