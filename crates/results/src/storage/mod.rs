//! Where the bytes of results live: in the results database (`inline` blocks), or in
//! stores.

pub mod credentials;
pub mod guard;
pub mod inline;
pub mod keyring;
pub mod open;
pub mod place;
mod probe_names;
pub mod sniff;
pub mod store;
pub mod upload;
