//! A group of results as the parameters of the statements that record it.

use tokio_postgres::{Client, Error as PgError, Statement, types::ToSql};
use uuid::Uuid;

use crate::{
    result::NewRecord,
    slices::Slices,
    storage::inline::{Packed, PackedBlock},
};

/// A batch is a row of `batch`, which is to fit into half a page: see the migrations V4 and V5.
const BATCH_RESULTS_MAX: usize = 200;

/// A record, whose it is (the job's number), and where it stands there.
#[derive(Debug)]
pub struct Entry {
    pub record: NewRecord,
    pub job: usize,
    pub position: usize,
}

/// What a record says, wherever its data is: one array per column.
#[derive(Debug)]
pub struct Described<'a> {
    pub sizes: Vec<i64>,
    pub ids: Vec<Uuid>,
    pub checksums: Vec<Uuid>,
    pub configs: Vec<Option<Uuid>>,
    pub organisations: Vec<&'a str>,
    pub definitions: Vec<&'a str>,
    pub polls: Vec<&'a str>,
    pub tasks: Vec<&'a str>,
    pub identifiers: Vec<&'a str>,
    pub types: Vec<&'a str>,
    pub signed_urls_seconds: Vec<Option<i32>>,
}

impl<'a> Described<'a> {
    pub fn of(records: impl Iterator<Item = &'a NewRecord> + Clone) -> Self {
        let each = || records.clone();
        Self {
            sizes: each().map(|record| i64::try_from(record.size).unwrap_or(i64::MAX)).collect(),
            ids: each().map(|record| record.id).collect(),
            checksums: each().map(|record| record.checksum.to_uuid()).collect(),
            configs: each().map(|record| record.storage.config).collect(),
            organisations: each().map(|record| record.organisation.as_str()).collect(),
            definitions: each().map(|record| record.labels.definition.as_str()).collect(),
            polls: each().map(|record| record.labels.poll.as_str()).collect(),
            tasks: each().map(|record| record.labels.task.as_str()).collect(),
            identifiers: each().map(|record| record.labels.identifier.as_str()).collect(),
            types: each().map(|record| record.labels.media_type.as_str()).collect(),
            signed_urls_seconds: each().map(|record| record.storage.signed_urls_seconds).collect(),
        }
    }
}

/// The parameters of the statement.
#[derive(Debug)]
pub struct Columns<'a> {
    described: Described<'a>,
    offsets: Vec<i32>,
    blocks: Vec<Uuid>,
    packed_ids: Vec<Uuid>,
    packed_sizes: Vec<i32>,
    packed_organisations: Vec<&'a str>,
    packed_bytes: Vec<&'a [u8]>,
    batches: Batches<'a>,
}

/// Which of the results are in which batch.
#[derive(Debug, Default)]
struct Batches<'a> {
    parts: Slices,
    organisations: Vec<&'a str>,
    polls: Vec<&'a str>,
    configs: Vec<Option<Uuid>>,
    blocks: Vec<Uuid>,
}

impl<'a> Batches<'a> {
    fn of(entries: &'a [Entry], packed: &[Packed]) -> Self {
        let mut batches = Self::default();
        let rows = entries.iter().zip(packed);
        let keys: Vec<_> =
            rows.map(|(entry, packed)| (entry.record.batch(), packed.placement.block)).collect();
        for part in keys.chunk_by(PartialEq::eq).flat_map(|part| part.chunks(BATCH_RESULTS_MAX)) {
            let ((organisation, config, poll), block) = part[0];
            batches.parts.push(part.len());
            batches.organisations.push(organisation.as_str());
            batches.polls.push(poll);
            batches.configs.push(config);
            batches.blocks.push(block);
        }
        batches
    }
}

impl<'a> Columns<'a> {
    /// Of results that are packed into blocks.
    pub fn of(entries: &'a [Entry], packed: &[Packed], blocks: &'a [PackedBlock]) -> Self {
        // Offsets are below the request's 16 MiB.
        Self {
            described: Described::of(entries.iter().map(|entry| &entry.record)),
            offsets: packed.iter().map(|packed| packed.placement.offset as i32).collect(),
            blocks: packed.iter().map(|packed| packed.placement.block).collect(),
            packed_ids: blocks.iter().map(|block| block.id).collect(),
            packed_sizes: blocks.iter().map(|block| block.size).collect(),
            packed_organisations: blocks.iter().map(|block| block.organisation.as_str()).collect(),
            packed_bytes: blocks.iter().map(|block| &block.bytes[..]).collect(),
            batches: Batches::of(entries, packed),
        }
    }

    /// Answers after the commit: the statement is a transaction of its own, and
    /// the server says that it is ready only when that is durable. Returns how many were
    /// not there before.
    pub async fn execute(&self, client: &Client, statement: &Statement) -> Result<usize, PgError> {
        let (of, batches) = (&self.described, &self.batches);
        let params: [&(dyn ToSql + Sync); 23] = [
            &of.sizes,
            &self.offsets,
            &of.ids,
            &of.checksums,
            &self.blocks,
            &of.organisations,
            &of.definitions,
            &of.polls,
            &of.tasks,
            &of.identifiers,
            &of.types,
            &self.packed_ids,
            &self.packed_sizes,
            &self.packed_organisations,
            &self.packed_bytes,
            &of.configs,
            &of.signed_urls_seconds,
            &batches.parts.firsts,
            &batches.parts.lasts,
            &batches.organisations,
            &batches.polls,
            &batches.configs,
            &batches.blocks,
        ];
        let used = statement.params().len();
        let fresh = client.execute(statement, &params[..used]).await?;
        Ok(usize::try_from(fresh).unwrap_or(usize::MAX))
    }
}
