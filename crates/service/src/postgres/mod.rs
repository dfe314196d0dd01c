//! PostgreSQL: sessions, pools, named transactions, SQLSTATE, migrations.

mod migrate;
mod pool;
mod sqlstate;
mod tx;

pub use migrate::{Schema, migrate};
pub use pool::{Database, Session};
pub use sqlstate::{Failure, classify};
pub use tx::{TxError, retry};
