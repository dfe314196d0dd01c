//! What is published: definitions, outcomes, the gate and its outbox.

mod commits_in_doubt;
pub mod definitions;
mod definitions_kept;
mod definitions_meanwhile;
mod fairness;
mod json;
mod limits;
mod model;
mod outbox;
mod outbox_narrowing;
mod outcomes;
mod plans;
mod races;
mod retention;
pub mod streams;
