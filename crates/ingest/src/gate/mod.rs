//! The gate: the one transaction that decides. [`session`] talks to the
//! database, [`decide`] is the pure function in the middle.

pub mod decide;
pub mod session;
