//! Files that only their owner may read, the lock that makes a folder one
//! process's own, and folders that go.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    failure::{Context, Failure},
    postgres::is_root,
};

/// How often the removal of a folder is tried.
const REMOVALS_MAX: u32 = 100;

/// A folder that is this process's own until the lock is dropped.
#[derive(Debug)]
pub(crate) struct OwnFolder {
    pub(crate) path: PathBuf,
    pub(crate) lock: File,
}

impl OwnFolder {
    /// Makes the folder if there is none, and takes it.
    ///
    /// # Errors
    /// If another process has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, Failure> {
        // The server's user only passes through; all that is secret in here is
        // readable by its owner only.
        let mode = if is_root() { 0o711 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(folder).context(folder.display())?;
        let path = fs::canonicalize(folder).context(folder.display())?;
        let lock = lock(&path)?;
        Ok(Self { path, lock })
    }
}

/// One owner per folder, also over processes; the kernel frees it on any end.
fn lock(folder: &Path) -> Result<File, Failure> {
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

/// A folder that goes when this is dropped, unless that is another one's now.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    pub(crate) path: PathBuf,
    ours: bool,
}

impl TemporaryFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, ours: true }
    }

    /// Leaves the removal to somebody else.
    pub(crate) fn leave(&mut self) {
        self.ours = false;
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if self.ours {
            remove_folder(&self.path);
        }
    }
}

/// Removes a folder, also when a process that is being killed still puts a file
/// into it, or somebody else removes it, too.
pub(crate) fn remove_folder(folder: &Path) {
    for _ in 0..REMOVALS_MAX {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            break;
        }
    }
}

/// Opens a file to be read, and tells its size: of a pipe it is not known, nor can that be read
/// again.
pub(crate) fn open_input(path: &Path) -> Result<(File, Option<u64>), Failure> {
    let unusable = |fault| Failure::unusable(format!("{}: {fault}", path.display()));
    let file = File::open(path).map_err(unusable)?;
    let about = file.metadata().map_err(unusable)?;
    if about.is_dir() {
        return Err(Failure::unusable(format!("{}: is a folder", path.display())));
    }
    Ok((file, about.is_file().then_some(about.len())))
}

/// Opens a log for appending, only for its owner.
pub(crate) fn open_log(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).context(path.display())
}

/// Writes a file that only its owner may read. Whoever reads it sees all of the old text
/// or all of the new one, also if this process is killed meanwhile.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || {
        // An old file keeps its mode when it is opened: begin with none.
        match fs::remove_file(&beside) {
            Err(fault) if fault.kind() != ErrorKind::NotFound => return Err(fault),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    let written = write();
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.context(path.display())
}
