//! Where the bytes of results live.

pub mod inline;
