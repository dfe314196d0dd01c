//! What both services have in common: who may call, how much, and how they begin and end.

mod audit;
mod body_shares;
pub mod connections;
mod isolation;
mod keys;
mod memory;
mod open_calls;
pub mod outages;
pub mod rolling;
pub mod serving_limits;
mod shutdown;
