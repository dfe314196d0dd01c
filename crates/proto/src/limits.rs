//! Limits that whoever sends and whoever takes must agree on: one that is lower on the
//! one side than on the other loses what is between.

/// Most results, and most discarded files, in one `RecordResults`.
pub const RECORD_ITEMS_MAX: usize = 1000;
/// Most data in one `RecordResults`, and so of one result that is not a file, in bytes.
pub const RECORD_DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest message between the services, in bytes: what `RecordResults` has of data, and
/// what describes it.
pub const INTAKE_MESSAGE_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Largest chunk of a file that is sent, in bytes.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Most data in a page of a list, in bytes.
pub const PAGE_DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest answer, in bytes: a page of 1,000 records with as much data as it may have.
pub const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
