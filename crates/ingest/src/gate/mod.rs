//! The gate: the one transaction that decides. [`session`] talks to the
//! database (`pass` where one round trip is enough, else `look` is the first),
//! [`decide`] is the pure function in the middle, [`rows`] turns one's into the other's, [`error`] says why nothing was
//! decided, or that it isn't known.

pub mod decide;
pub mod error;
mod look;
mod pass;
pub mod rows;
pub mod session;
mod trip;
