//! What the services tell of themselves: metrics, traces, logs.

mod exposition;
mod metrics;
