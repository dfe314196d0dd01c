//! Storage configs, and the files that are kept in them.

pub mod cleanup;
pub mod clouds;
mod configs;
pub mod files;
mod forgotten;
mod memory;
mod probing;
mod reconciling;
mod removals;
mod results;
mod retention;
mod revoked;
mod servers;
mod signed;
mod slow;
pub mod support;
