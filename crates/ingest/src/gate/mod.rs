//! The gate: the one transaction that decides. [`session`] talks to the
//! database, [`decide`] is the pure function in the middle, [`rows`]
//! turns one's into the other's.

pub mod decide;
pub mod rows;
pub mod session;
mod trip;
