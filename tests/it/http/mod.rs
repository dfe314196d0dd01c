//! Both APIs over HTTP, as the seeds' clients call them.

mod anything;
mod definitions;
mod isolation;
mod openapi;
mod publish;
mod results;
pub mod support;
