//! The one place that reads SQLSTATE.
#![expect(clippy::disallowed_methods, reason = "this is that place")]

use tokio_postgres::{Error as PgError, error::SqlState};

use crate::Error;

/// What a database error means for who met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Serialization failure or deadlock: the same transaction may succeed now.
    Conflict,
    /// The session is gone, going, or of no use (a standby after a failover, or a table
    /// with a new column since its statements were prepared): open another one.
    Connection,
    /// A lock or statement timeout, or the server is short of something.
    Busy,
    /// The statement or its values are wrong.
    Statement,
}

/// Says what a database error means.
#[must_use]
pub fn classify(error: &PgError) -> Meaning {
    let Some(state) = error.code() else { return Meaning::Connection };
    if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(state) {
        return Meaning::Conflict;
    }
    if *state == SqlState::READ_ONLY_SQL_TRANSACTION
        || *state == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        // "cached plan must not change result type"
        || *state == SqlState::FEATURE_NOT_SUPPORTED
    {
        return Meaning::Connection;
    }
    match &state.code()[..2] {
        // 08 connection exception; 57P operator intervention (57014 is a cancel).
        "08" => Meaning::Connection,
        "57" if *state == SqlState::QUERY_CANCELED => Meaning::Busy,
        "57" => Meaning::Connection,
        // 53 insufficient resources; 55 object not in prerequisite state (lock timeout).
        "53" | "55" => Meaning::Busy,
        _ => Meaning::Statement,
    }
}

/// Whether a row with a key that was to be inserted is there already.
#[must_use]
pub fn is_known(error: &PgError) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

/// Whether the server says that a statement failed on what it read or was given, so that
/// nothing of it is left. Of other errors, such as that the server is going, or broke, it
/// is not certain that they can't come after a commit.
#[must_use]
pub fn did_nothing(error: &PgError) -> bool {
    const SURE: [&str; 8] = ["22", "23", "25", "40", "42", "54", "55", "P0"];
    // While a commit waits for a standby, a cancel is a warning.
    error.code().is_some_and(|state| *state == SqlState::QUERY_CANCELED || SURE.contains(&&state.code()[..2]))
}

/// Whether a function of the schema refused, with a SQLSTATE of its own.
#[must_use]
pub fn refused_with(error: &PgError, state: &str) -> bool {
    error.code().is_some_and(|said| said.code() == state)
}

/// Whether the values given are at fault, and not the statement, the schema or
/// the server: of a batch, one item is to blame and the others can be spared.
/// Classes 22 (data exception), 23 (integrity constraint violation) and 54
/// (program limit exceeded).
#[must_use]
pub fn blames_values(error: &PgError) -> bool {
    error.code().is_some_and(|state| ["22", "23", "54"].contains(&&state.code()[..2]))
}

/// Whether `pg_xact_status` has never heard of a transaction's number.
#[must_use]
pub fn is_unknown_transaction(error: &PgError) -> bool {
    error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE)
}

/// Whether a table is not there.
pub(super) fn lacks_table(error: &PgError) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE)
}

/// The SQLSTATE itself, for logs; empty if the server did not say one.
#[must_use]
pub fn state(error: &PgError) -> &str {
    error.code().map_or("", SqlState::code)
}

/// What the database said, for logs; never its detail, which may quote values.
#[must_use]
pub fn told(error: &PgError) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => error.to_string(),
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        match classify(&error) {
            Meaning::Statement => Error::internal(error),
            Meaning::Conflict | Meaning::Connection | Meaning::Busy => Error::database_busy().because(error),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            other => Error::database_busy().because(other),
        }
    }
}
