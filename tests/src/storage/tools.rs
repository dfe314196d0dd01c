//! Programs from a package registry that the tests run. They are installed once,
//! into `target/tools`, when they are missing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A package of npm, and a file in it.
pub(super) struct Tool {
    pub(super) package: &'static str,
    /// The exact version; `.ci/run` installs the same.
    pub(super) version: &'static str,
    /// Below the package's own folder.
    pub(super) file: &'static str,
}

impl Tool {
    /// The file, after the package was installed if it had to be.
    ///
    /// # Panics
    /// If it can't be installed; says the one command to type.
    pub(super) fn path(&self) -> PathBuf {
        let tools = folder();
        let path = tools.join("node_modules").join(self.package).join(self.file);
        if self.is_there(&tools) {
            return path;
        }
        fs::create_dir_all(&tools).expect("target/tools");
        // One at a time, also over processes.
        let lock = File::create(tools.join("lock")).expect("target/tools/lock");
        lock.lock().expect("target/tools/lock");
        if !self.is_there(&tools) {
            self.install(&tools);
        }
        path
    }

    fn is_there(&self, tools: &Path) -> bool {
        // What npm writes last of all.
        let listed = fs::read_to_string(tools.join("node_modules/.package-lock.json")).unwrap_or_default();
        let ours = format!("\"node_modules/{}\": {{\n      \"version\": \"{}\"", self.package, self.version);
        listed.contains(&ours)
    }

    fn install(&self, tools: &Path) {
        let package = format!("{}@{}", self.package, self.version);
        let prefix = tools.display().to_string();
        let args = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", &prefix, &package];
        eprintln!("Installing {package} into {prefix}.");
        let ended = Command::new("npm").args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        let installed = ended.is_ok_and(|status| status.success()) && self.is_there(tools);
        assert!(installed, "{package} is needed and could not be installed: npm {}", args.join(" "));
    }
}

/// `target/tools`, where `.ci/run` keeps its tools too.
fn folder() -> PathBuf {
    // A test binary lies in target/<profile>/deps.
    let test = std::env::current_exe().expect("a test knows its own path");
    test.ancestors().nth(3).expect("a test lies three folders deep").join("tools")
}
