//! How a command ends badly: one line for the person at the terminal and an
//! exit code. 1: it ran and something is wrong; 2: it could not run (usage, no
//! connection).

use std::{fmt, io};

/// What every command's help says of them.
pub(crate) const EXIT_CODES: &str = "Exit codes: 0, it did what was asked; 1, it ran, and something is wrong; 2, it could \
not run: usage, no connection, the token is refused.";

/// Exit code of a command that ran and found something wrong.
const EXIT_FAILED: u8 = 1;
/// Exit code of a command that could not run.
const EXIT_UNUSABLE: u8 = 2;

/// Exit code of a command whose output nobody reads any more: what a shell shows
/// for SIGPIPE.
const EXIT_NOBODY_READS: u8 = 141;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    exit: u8,
}

impl Failure {
    /// It ran and something is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: EXIT_FAILED }
    }

    /// It could not run: wrong usage or no connection.
    pub fn unusable(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit: EXIT_UNUSABLE }
    }

    /// Writing failed. When nobody reads any more, there is nothing to tell.
    pub(crate) fn output(what: &str, fault: &io::Error) -> Self {
        if fault.kind() == io::ErrorKind::BrokenPipe {
            Self { message: String::new(), exit: EXIT_NOBODY_READS }
        } else {
            Self::new(format!("{what}: {fault}"))
        }
    }

    /// Whether it is only that nobody reads the output any more.
    pub(crate) fn is_nobody_reads(&self) -> bool {
        self.exit == EXIT_NOBODY_READS
    }

    /// The same, with what it is about in front.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit(&self) -> u8 {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let message = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => Self::unusable(message),
            _ => Self::new(message),
        }
    }
}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts `what` in front of the fault.
    ///
    /// # Errors
    /// The fault, if there is one.
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|fault| Failure::new(format!("{what}: {fault}")))
    }
}
