//! Publishing files.

mod failures;
mod limits;
mod outcomes;
mod publish;
mod races;
pub mod support;
