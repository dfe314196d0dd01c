//! The chassis both services stand on: configuration, telemetry, tokens and
//! scopes, errors, health, reflection, the database pool and migrations,
//! graceful shutdown. No business word is known here.

mod admin;
mod admission;
pub mod answer_memory;
pub mod answers;
pub mod audit;
pub mod auth;
mod background;
pub mod backoff;
mod body;
pub mod budget;
pub mod chassis;
pub mod client;
pub mod compress;
pub mod config;
mod descriptors;
mod error;
mod follow;
pub mod gathered;
mod health;
pub mod http;
pub mod leaving;
pub mod limits;
mod met;
pub mod metrics;
mod no_token;
mod observe;
mod organisation;
pub mod peer;
pub mod postgres;
pub mod probes;
pub mod program;
mod rate;
pub mod rations;
mod serve;
pub mod shares;
pub mod shutdown;
mod stack;
mod stalls;
pub mod telemetry;
pub mod text;
pub mod tls;
pub mod trace;
mod unread;
mod until;
pub mod whole;

pub use error::{Error, Kind, RETRY_AFTER, Violation, Violations};
pub use organisation::OrganisationId;

/// Of every program of this workspace.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
