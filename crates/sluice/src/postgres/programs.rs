//! Finds PostgreSQL's server programs, or installs them by the system's package
//! manager when that is possible without asking anybody.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    failure::{Context, Failure},
    text::say,
};

/// The oldest major version that has all the services use.
pub const MAJOR_MIN: u32 = 15;

/// A folder with PostgreSQL's server programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    bin: PathBuf,
    major: u32,
}

impl Programs {
    /// Finds the programs: of version `major`, if a data directory asks for it,
    /// else the first on PATH, then the newest of the usual folders.
    #[must_use]
    pub fn find(major: Option<u32>) -> Option<Self> {
        let fits = |found: &Self| major.map_or(found.major >= MAJOR_MIN, |major| found.major == major);
        let preferred = preferred_folders().into_iter().filter_map(Self::at).find(fits);
        preferred.or_else(|| {
            usual_folders().into_iter().filter_map(Self::at).filter(fits).max_by_key(|found| found.major)
        })
    }

    /// Finds the programs, or installs them when they are missing.
    ///
    /// # Errors
    /// If they are missing and can't be installed; says what to type.
    pub fn find_or_install(major: Option<u32>, may_install: bool) -> Result<Self, Failure> {
        if let Some(found) = Self::find(major) {
            return Ok(found);
        }
        if let Some(major) = major {
            return Err(Failure::unusable(format!(
                "the data directory needs PostgreSQL {major}, whose server programs are not installed"
            )));
        }
        let advice = || {
            format!(
                "PostgreSQL's server programs (version {MAJOR_MIN} or newer) were not found; install them by: {}",
                Manager::find().map_or_else(Manager::advice_without, |manager| manager.advice())
            )
        };
        match Manager::find() {
            Some(manager) if may_install && manager.is_allowed() => manager.install()?,
            _ => return Err(Failure::unusable(advice())),
        }
        Self::find(None).ok_or_else(|| Failure::unusable(advice()))
    }

    /// The path of one program.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }

    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The programs of one folder, links resolved, if the server is all there.
    fn at(folder: PathBuf) -> Option<Self> {
        let server = fs::canonicalize(folder.join("postgres")).ok()?;
        let bin = server.parent()?.to_owned();
        if !bin.join("initdb").is_file() {
            return None;
        }
        let said = Command::new(&server).arg("--version").stderr(Stdio::null()).output().ok()?;
        Some(Self { bin, major: major_of(&String::from_utf8_lossy(&said.stdout))? })
    }
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major_of(text: &str) -> Option<u32> {
    let version = text.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Folders somebody chose: an explicit one, those on PATH, `pg_config`'s.
fn preferred_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os("SLUICE_POSTGRES_BIN").map(PathBuf::from).into_iter().collect();
    folders.extend(on_path());
    if let Ok(said) = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()));
    }
    folders
}

fn on_path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

/// Folders that packages of the common systems install into.
fn usual_folders() -> Vec<PathBuf> {
    // Parent, prefix of the versioned folder, and what follows below it.
    const VERSIONED: [(&str, &str, &str); 8] = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/usr/lib", "postgresql", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ("/opt/local/lib", "postgresql", "bin"),
    ];
    let mut folders: Vec<PathBuf> =
        ["/usr/local/pgsql/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"].map(PathBuf::from).into();
    for (parent, prefix, below) in VERSIONED {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let versioned =
            entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()));
        folders.extend(versioned.map(|entry| entry.path().join(below)));
    }
    folders
}

/// A package manager that can bring the server programs.
#[derive(Clone, Copy)]
struct Manager {
    program: &'static str,
    /// Run once before, to know of today's packages.
    refresh: Option<&'static [&'static str]>,
    install: &'static [&'static str],
}

const MANAGERS: [Manager; 3] = [
    Manager {
        program: "apt-get",
        refresh: Some(&["update", "-qq"]),
        install: &["install", "-y", "-qq", "--no-install-recommends", "postgresql"],
    },
    Manager { program: "dnf", refresh: None, install: &["install", "-y", "-q", "postgresql-server"] },
    Manager { program: "apk", refresh: None, install: &["add", "--no-cache", "--quiet", "postgresql"] },
];

impl Manager {
    fn find() -> Option<Self> {
        let exists = |program: &str| on_path().iter().any(|folder| folder.join(program).is_file());
        MANAGERS.into_iter().find(|manager| exists(manager.program))
    }

    fn advice(self) -> String {
        let sudo = if is_root() { "" } else { "sudo " };
        let line = |args: &[&str]| {
            let plain: Vec<&str> = args.iter().copied().filter(|arg| !arg.starts_with("-q")).collect();
            format!("{sudo}{} {}", self.program, plain.join(" "))
        };
        match self.refresh {
            Some(refresh) => format!("{} && {}", line(refresh), line(self.install)),
            None => line(self.install),
        }
    }

    fn advice_without() -> String {
        let macos = cfg!(target_os = "macos");
        if macos { "brew install postgresql@17" } else { "your system's package manager" }.to_owned()
    }

    /// Whether it can be run without anybody typing a password.
    fn is_allowed(self) -> bool {
        let silent_sudo = || {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            sudo.status().is_ok_and(|status| status.success())
        };
        is_root() || silent_sudo()
    }

    fn install(self) -> Result<(), Failure> {
        say!("PostgreSQL's server programs are missing; installing them by: {}", self.advice());
        if let Some(refresh) = self.refresh {
            // A failed refresh is no reason to give up: the package may be known.
            drop(self.run(refresh));
        }
        self.run(self.install)
    }

    fn run(self, args: &[&str]) -> Result<(), Failure> {
        let (program, mut all): (&str, Vec<OsString>) =
            if is_root() { (self.program, vec![]) } else { ("sudo", vec!["-n".into(), self.program.into()]) };
        all.extend(args.iter().map(OsString::from));
        let mut command = Command::new(program);
        command.args(all).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let done = command.output().context(self.program)?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said.lines().last().unwrap_or_default();
        Err(Failure::unusable(format!("`{}` failed: {last}", self.advice())))
    }
}

/// Whether this process may do everything.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The major version a data directory belongs to, if it exists.
#[must_use]
pub fn major_of_data(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_server_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres: not found"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_none() {
        assert_eq!(Programs::at("/nonexistent".into()), None);
    }

    #[test]
    fn the_advice_is_one_line_to_type() {
        for manager in MANAGERS {
            let advice = manager.advice();
            assert!(advice.contains(manager.program) && !advice.contains('\n'), "{advice}");
        }
    }
}
