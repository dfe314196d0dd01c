//! What goes wrong inside a transaction: the database's fault or the domain's.

use crate::Error;

/// An error inside a transaction, kept apart so that only the database's own
/// faults are retried.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// The database said no; may be worth another try.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    /// The domain said no; final.
    #[error(transparent)]
    Domain(#[from] Error),
}

impl From<TxError> for Error {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Database(error) => error.into(),
            TxError::Domain(error) => error,
        }
    }
}

/// How often a conflicting transaction is tried before the caller is told.
const TRIES_MAX: u32 = 5;

/// Runs a transaction under a name, and again on serialization failures and
/// deadlocks, up to five times. `$body` is evaluated anew for each try with
/// `$tx` bound to the open transaction; it ends in a `Result<_, TxError>`.
#[macro_export]
macro_rules! transaction {
    ($pool:expr, $name:literal, |$tx:ident| $body:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            let mut client = $pool.get().await?;
            let $tx = client.transaction().await?;
            let outcome: Result<_, $crate::postgres::TxError> = async { $body }.await;
            let outcome = match outcome {
                Ok(value) => $tx.commit().await.map(|()| value).map_err(Into::into),
                Err(error) => {
                    drop($tx);
                    Err(error)
                }
            };
            if let Err($crate::postgres::TxError::Database(error)) = &outcome {
                $crate::postgres::give_back_after(client, error);
            }
            if $crate::postgres::retry($name, tries, &outcome) {
                continue;
            }
            break outcome.map_err($crate::Error::from);
        }
    }};
}

/// Whether a transaction that ended so is worth another try.
#[doc(hidden)]
pub fn retry<T>(name: &'static str, tries: u32, outcome: &Result<T, TxError>) -> bool {
    let Err(TxError::Database(error)) = outcome else { return false };
    let conflict = super::classify(error) == super::Meaning::Conflict;
    if conflict {
        tracing::debug!(name, tries, "transaction conflicts with another");
    }
    conflict && tries < TRIES_MAX
}
