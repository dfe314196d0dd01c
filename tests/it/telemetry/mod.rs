//! What the services tell of themselves: metrics, traces, logs.

mod collector;
pub mod exposition;
mod logs;
mod metrics;
mod traces;
