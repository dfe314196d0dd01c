//! What is kept of an accepted batch until the results service has it: one row
//! per organisation and commit, holding the encoded and compressed message that
//! will be sent. Format N is read by the build after the one that writes it.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use sluice_proto::{
    limits::RECORD_ITEMS_MAX,
    results::v1::{NewResult, ResultBatch},
};
use sluice_service::{Error, OrganisationId, compress::compress, trace};
use uuid::Uuid;

use crate::{
    check::{Candidate, FileStage},
    outcome::Decision,
};

/// The format this build writes: a zstd frame around an encoded `ResultBatch`.
pub const FORMAT: i16 = 1;
/// Largest row before compression; an observation is never split.
const ROW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a result takes beside its data and labels, and what a discarded file takes, about.
const RESULT_OVERHEAD_BYTES: usize = 256;
const DISCARD_BYTES: usize = 64;
/// A frame that claims more is not decoded.
const DECODED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A row as it is written, with the message still in memory.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// UUIDv7.
    pub id: Uuid,
    /// Whose results they are.
    pub organisation: OrganisationId,
    /// What is kept.
    pub payload: Bytes,
    /// What will be sent.
    pub message: Arc<ResultBatch>,
}

/// The rows of what was accepted, and of stored files that were not: per
/// organisation in order of first appearance, each within the bounds of a row.
///
/// # Errors
/// INTERNAL if a row can't be compressed.
pub fn rows(candidates: &[&Candidate], decisions: &[Decision]) -> Result<Vec<OutboxRow>, Error> {
    let mut open: Vec<OpenRow> = Vec::new();
    for (candidate, decision) in candidates.iter().zip(decisions) {
        let is_stored_file = matches!(candidate.file, Some(FileStage::Stored { .. }));
        if *decision == Decision::Success {
            let result = new_result(candidate);
            let row = OpenRow::with_room(&mut open, &candidate.organisation, result_bytes(&result));
            row.results.push(result);
        } else if is_stored_file {
            let row = OpenRow::with_room(&mut open, &candidate.organisation, DISCARD_BYTES);
            row.discarded_files.push(candidate.id.to_string());
        }
    }
    open.into_iter().map(OpenRow::close).collect()
}

/// What a row holds that discards files of one organisation.
///
/// # Errors
/// INTERNAL if it can't be compressed.
pub fn discarding(organisation: &str, files: &[Uuid]) -> Result<Bytes, Error> {
    encode(&ResultBatch {
        organisation: organisation.to_owned(),
        discarded_files: files.iter().map(ToString::to_string).collect(),
        ..ResultBatch::default()
    })
}

/// A row that still takes results.
struct OpenRow {
    organisation: OrganisationId,
    results: Vec<NewResult>,
    discarded_files: Vec<String>,
    bytes: usize,
}

impl OpenRow {
    /// The last row of an organisation, or a new one if so many more bytes don't
    /// fit into it; they are counted as its own.
    fn with_room<'a>(open: &'a mut Vec<Self>, organisation: &OrganisationId, bytes: usize) -> &'a mut Self {
        let fitting = open.iter().rposition(|row| {
            row.organisation == *organisation
                && row.bytes + bytes <= ROW_BYTES_MAX
                && row.results.len() + row.discarded_files.len() < RECORD_ITEMS_MAX
        });
        let place = fitting.unwrap_or_else(|| {
            let organisation = organisation.clone();
            open.push(Self { organisation, results: Vec::new(), discarded_files: Vec::new(), bytes: 0 });
            open.len() - 1
        });
        let row = &mut open[place];
        row.bytes += bytes;
        row
    }

    fn close(self) -> Result<OutboxRow, Error> {
        let message = ResultBatch {
            organisation: self.organisation.as_str().to_owned(),
            results: self.results,
            discarded_files: self.discarded_files,
            traceparent: trace::traceparent(),
        };
        Ok(OutboxRow {
            id: Uuid::now_v7(),
            organisation: self.organisation,
            payload: encode(&message)?,
            message: Arc::new(message),
        })
    }
}

fn new_result(candidate: &Candidate) -> NewResult {
    NewResult {
        id: candidate.id.to_string(),
        definition: candidate.definition.draft.path.as_str().to_owned(),
        poll: candidate.poll.clone(),
        task: candidate.task.clone(),
        identifier: candidate.identifier.clone(),
        r#type: candidate.media_type.clone(),
        storage_config: candidate
            .definition
            .draft
            .storage_config
            .map(|id| id.to_string())
            .unwrap_or_default(),
        // A part of the request keeps all of it in memory, and this one may stay.
        data: Bytes::copy_from_slice(&candidate.data),
        stored_file: candidate.file.is_some(),
    }
}

/// What a result takes in memory, about, and at most in a message.
fn result_bytes(result: &NewResult) -> usize {
    let NewResult { definition, poll, task, identifier, r#type, data, .. } = result;
    let labels = [definition, poll, task, identifier, r#type];
    data.len() + labels.into_iter().map(String::len).sum::<usize>() + RESULT_OVERHEAD_BYTES
}

/// What a message takes in memory, about.
#[must_use]
pub fn batch_bytes(batch: &ResultBatch) -> usize {
    batch.results.iter().map(result_bytes).sum::<usize>() + batch.discarded_files.len() * DISCARD_BYTES
}

/// How many bytes of a message a row keeps, as it says itself.
#[must_use]
pub fn decoded_bytes(payload: &[u8]) -> Option<usize> {
    let said = zstd::zstd_safe::get_frame_content_size(payload).ok().flatten()?;
    usize::try_from(said).ok()
}

fn encode(batch: &ResultBatch) -> Result<Bytes, Error> {
    compress(&batch.encode_to_vec()).map(Bytes::from).map_err(Error::internal)
}

/// Reads a kept row.
///
/// # Errors
/// Why it can't be read.
pub fn decode(format: i16, payload: &[u8]) -> Result<ResultBatch, String> {
    if format != FORMAT {
        return Err(format!("format {format} is not known to this build"));
    }
    let message = zstd::bulk::decompress(payload, DECODED_BYTES_MAX).map_err(|error| error.to_string())?;
    ResultBatch::decode(&message[..]).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committer::tests::candidate;

    fn batch() -> ResultBatch {
        let result = NewResult { id: Uuid::now_v7().to_string(), data: "{}".into(), ..NewResult::default() };
        ResultBatch { organisation: "acme".into(), results: vec![result; 3], ..ResultBatch::default() }
    }

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        let batch = batch();
        assert_eq!(decode(FORMAT, &encode(&batch).unwrap()), Ok(batch));
    }

    #[test]
    fn what_can_not_be_read_says_so() {
        assert!(decode(FORMAT + 1, &encode(&batch()).unwrap()).is_err());
        assert!(decode(FORMAT, b"no frame").is_err());
    }

    #[test]
    fn labels_count_for_memory() {
        let (poll, task, identifier) = ("x".repeat(512), "x".repeat(512), "x".repeat(512));
        let results = vec![NewResult { poll, task, identifier, ..NewResult::default() }; 10];
        assert!(batch_bytes(&ResultBatch { results, ..ResultBatch::default() }) > 10 * 3 * 512);
    }

    /// How many items are in each row: of accepted observations with so many bytes, and of so
    /// many stored files that were not accepted.
    fn in_rows(accepted: &[usize], files: usize) -> Vec<usize> {
        let file = Candidate { file: Some(FileStage::Stored { bytes: 1 }), ..candidate(0) };
        let mut candidates: Vec<_> = accepted.iter().map(|bytes| candidate(*bytes)).collect();
        candidates.extend(vec![file; files]);
        let mut decisions = vec![Decision::Success; accepted.len()];
        decisions.extend(vec![Decision::Suppressed { ingest_id: Uuid::nil() }; files]);
        let rows = rows(&candidates.iter().collect::<Vec<_>>(), &decisions).unwrap();
        let items = |row: &OutboxRow| row.message.results.len() + row.message.discarded_files.len();
        rows.iter().map(items).collect()
    }

    #[test]
    fn a_row_has_up_to_a_thousand_items() {
        assert_eq!(in_rows(&[1; 1000], 0), [1000]);
        assert_eq!(in_rows(&[1; 1001], 0), [1000, 1]);
        assert_eq!(in_rows(&[1; 999], 1), [1000]);
        assert_eq!(in_rows(&[1; 999], 2), [1000, 1]);
        assert_eq!(in_rows(&[], 2001), [1000, 1000, 1]);
    }

    #[test]
    fn a_row_has_up_to_four_mebibytes_unless_one_observation_has_more() {
        const MIB: usize = 1024 * 1024;
        // Data that makes a result of so many bytes.
        let of = |bytes| bytes - result_bytes(&new_result(&candidate(0)));
        assert_eq!(in_rows(&[of(MIB); 4], 0), [4]);
        assert_eq!(in_rows(&[of(MIB), of(MIB), of(MIB), of(MIB) + 1], 0), [3, 1]);
        assert_eq!(in_rows(&[of(4 * MIB), 0], 0), [1, 1]);
        assert_eq!(in_rows(&[0, 5 * MIB, 0], 0), [2, 1]);
    }
}
