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

/// The parameters of the statement: one array per column.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    sizes: Vec<i64>,
    offsets: Vec<i32>,
    ids: Vec<Uuid>,
    checksums: Vec<Uuid>,
    blocks: Vec<Uuid>,
    organisations: Vec<&'a str>,
    definitions: Vec<&'a str>,
    polls: Vec<&'a str>,
    tasks: Vec<&'a str>,
    identifiers: Vec<&'a str>,
    types: Vec<&'a str>,
    packed_ids: Vec<Uuid>,
    packed_sizes: Vec<i32>,
    packed_organisations: Vec<&'a str>,
    packed_bytes: Vec<&'a [u8]>,
    configs: Vec<Option<Uuid>>,
    signed_urls_seconds: Vec<Option<i32>>,
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
        let records = || entries.iter().map(|entry| &entry.record);
        // Sizes and offsets are below the request's 16 MiB.
        Self {
            sizes: records().map(|record| record.data.len() as i64).collect(),
            offsets: packed.iter().map(|packed| packed.placement.offset as i32).collect(),
            ids: records().map(|record| record.id).collect(),
            checksums: records().map(|record| record.checksum.to_uuid()).collect(),
            blocks: packed.iter().map(|packed| packed.placement.block).collect(),
            organisations: records().map(|record| record.organisation.as_str()).collect(),
            definitions: records().map(|record| record.labels.definition.as_str()).collect(),
            polls: records().map(|record| record.labels.poll.as_str()).collect(),
            tasks: records().map(|record| record.labels.task.as_str()).collect(),
            identifiers: records().map(|record| record.labels.identifier.as_str()).collect(),
            types: records().map(|record| record.labels.media_type.as_str()).collect(),
            packed_ids: blocks.iter().map(|block| block.id).collect(),
            packed_sizes: blocks.iter().map(|block| block.size).collect(),
            packed_organisations: blocks.iter().map(|block| block.organisation.as_str()).collect(),
            packed_bytes: blocks.iter().map(|block| &block.bytes[..]).collect(),
            configs: records().map(|record| record.storage.config).collect(),
            signed_urls_seconds: records().map(|record| record.storage.signed_urls_seconds).collect(),
            batches: Batches::of(entries, packed),
        }
    }

    /// Answers after the commit: the statement is a transaction of its own, and
    /// the server says that it is ready only when that is durable. Returns how many were
    /// not there before.
    pub async fn execute(&self, client: &Client, statement: &Statement) -> Result<usize, PgError> {
        let batches = &self.batches;
        let params: [&(dyn ToSql + Sync); 23] = [
            &self.sizes,
            &self.offsets,
            &self.ids,
            &self.checksums,
            &self.blocks,
            &self.organisations,
            &self.definitions,
            &self.polls,
            &self.tasks,
            &self.identifiers,
            &self.types,
            &self.packed_ids,
            &self.packed_sizes,
            &self.packed_organisations,
            &self.packed_bytes,
            &self.configs,
            &self.signed_urls_seconds,
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
