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

/// An rpc of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// Its HTTP/2 path.
    pub path: &'static str,
    /// The scope that a caller's token needs.
    pub scope: &'static str,
    /// Whether a caller sends a stream of messages.
    pub streaming: bool,
    /// Whether the answer is one.
    pub answered_by_stream: bool,
    /// The message that a caller sends, as an index into [`MESSAGES`].
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

type Tables = (&'static [Rpc], &'static [&'static [(u32, Part)]]);
const TABLES: Tables = include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

/// Every rpc, sorted by path.
pub const RPCS: &[Rpc] = TABLES.0;
/// The messages that requests are made of: of each, the fields that take more room
/// decoded, by number.
pub const MESSAGES: &[&[(u32, Part)]] = TABLES.1;

/// The rpc of a path; `None` for what is not in the contract.
#[must_use]
pub fn rpc(path: &str) -> Option<&'static Rpc> {
    RPCS.binary_search_by_key(&path, |rpc| rpc.path).ok().map(|at| &RPCS[at])
}
