//! PostgreSQL: sessions, pools, named transactions, SQLSTATE, migrations.

mod borrow;
mod migrate;
mod pool;
mod reconnect;
mod servers;
mod shared_pool;
mod sqlstate;
mod tls;
mod tx;
mod wary;

pub use borrow::{Borrowed, execute, patiently, query};
pub use migrate::{Migrated, Migration, Schema, Settings};
pub use pool::{Database, Session, give_back_after};
pub use reconnect::Reconnect;
pub use shared_pool::SharedPool;
pub use sqlstate::{
    Meaning, blames_values, classify, did_nothing, is_known, is_unknown_transaction, refused_with, state,
    told,
};
pub use tx::{TxError, retry};
pub use wary::Wary;
