//! Code generated from `proto/` at build time, the file descriptor set, and
//! what each rpc needs and takes. Little but [`LazyStruct`] and [`limits`] is written by hand here:
//! read `proto/`.

mod codec;
mod lazy_struct;
pub mod limits;

pub use lazy_struct::LazyStruct;

/// The package `google.rpc`: `Status` as a field of stream answers.
pub mod google {
    #[allow(missing_docs)]
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// The packages `sluice.*`.
pub mod sluice {
    /// The publishing side.
    pub mod ingest {
        #[allow(missing_docs)]
        pub mod v1 {
            tonic::include_proto!("sluice.ingest.v1");
        }
    }
    /// The consuming side.
    pub mod results {
        #[allow(missing_docs)]
        pub mod v1 {
            tonic::include_proto!("sluice.results.v1");
        }
    }
}

pub use sluice::{ingest, results};

/// The encoded `google.protobuf.FileDescriptorSet` of all files, with comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Which scope each rpc needs, by its HTTP/2 path, sorted.
pub const REQUIRED_SCOPES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/scopes.rs"));

/// What an rpc's caller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether it is a stream of messages.
    pub streaming: bool,
    /// Whether its answer is one.
    pub answered_by_stream: bool,
    /// Its message, as an index into [`MESSAGES`].
    pub message: usize,
}

/// A field that takes more room decoded than encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A message, as an index into [`MESSAGES`].
    Message(usize),
    /// Scalars one after the other.
    Packed,
    /// A `google.protobuf.Struct`, kept encoded as a [`LazyStruct`].
    Struct,
}

type Tables = (&'static [(&'static str, Request)], &'static [&'static [(u32, Part)]]);
const TABLES: Tables = include!(concat!(env!("OUT_DIR"), "/requests.rs"));

/// The request of each rpc, by its HTTP/2 path, sorted.
pub const REQUESTS: &[(&str, Request)] = TABLES.0;
/// The messages that requests are made of: of each, the fields that take more room
/// decoded, by number.
pub const MESSAGES: &[&[(u32, Part)]] = TABLES.1;
