//! The gRPC surface: handlers convert, call, convert.

pub mod definitions;
pub mod files;
pub mod publish;
