//! Storage type `db`: the data lives in the results database. The records of
//! one commit, one organisation and one storage config are concatenated into blocks and
//! compressed together: a hundred small JSON documents take one row and a tenth of the
//! space. A record points into its block.

use bytes::Bytes;
use sluice_proto::limits::RECORD_DATA_BYTES_MAX;
use sluice_service::{OrganisationId, compress::compress};
use uuid::Uuid;

use crate::result::{Checksum, NewRecord, Placement, Record};

/// Size of a block before compression, in bytes: reading one record opens its
/// whole block. A larger record gets a block for itself.
const BLOCK_BYTES_MAX: usize = 256 * 1024;

/// A block that is ready to be inserted.
#[derive(Debug)]
pub struct PackedBlock {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant whose data it is.
    pub organisation: OrganisationId,
    /// Size before compression, in bytes.
    pub size: i32,
    /// Compressed.
    pub bytes: Vec<u8>,
}

/// A record's data within its block.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Where it is.
    pub placement: Placement,
    /// The bytes: a part of those of the block before compression, and of no other buffer.
    pub data: Bytes,
}

/// Packs the data of records, which are sorted by organisation and storage config, into
/// blocks.
/// Answers the blocks, and where each record's data is, in order.
///
/// # Errors
/// If the compressor fails.
pub fn pack(records: &[&NewRecord]) -> std::io::Result<(Vec<PackedBlock>, Vec<Packed>)> {
    let mut blocks = Vec::new();
    let mut packed = Vec::with_capacity(records.len());
    let mut rest = records;
    while let Some(first) = rest.first() {
        let (own, size) = fill(rest);
        let id = Uuid::now_v7();
        let mut bytes = Vec::with_capacity(size);
        for record in &rest[..own] {
            bytes.extend_from_slice(&record.data);
        }
        blocks.push(PackedBlock {
            id,
            organisation: first.organisation.clone(),
            size: i32::try_from(size).map_err(std::io::Error::other)?,
            bytes: compress(&bytes)?,
        });
        let bytes = Bytes::from(bytes);
        let mut offset = 0;
        for record in &rest[..own] {
            let end = offset + record.data.len();
            let placement = Placement { block: id, offset };
            packed.push(Packed { placement, data: bytes.slice(offset..end) });
            offset = end;
        }
        rest = &rest[own..];
    }
    Ok((blocks, packed))
}

/// How many of the first records go into one block, and their size in bytes.
fn fill(records: &[&NewRecord]) -> (usize, usize) {
    let (mut count, mut size) = (0, 0);
    for record in records {
        let fits = record.block() == records[0].block() && size + record.data.len() <= BLOCK_BYTES_MAX;
        if count > 0 && !fits {
            break;
        }
        count += 1;
        size += record.data.len();
    }
    (count, size)
}

/// A block as it is kept.
#[derive(Debug)]
pub struct Block<'a> {
    /// Size before compression, in bytes.
    pub size: i32,
    /// Compressed.
    pub bytes: &'a [u8],
}

impl Block<'_> {
    /// The bytes before compression. `None` if they are damaged.
    #[must_use]
    pub fn open(&self) -> Option<Vec<u8>> {
        let size = usize::try_from(self.size).ok().filter(|size| *size <= RECORD_DATA_BYTES_MAX)?;
        zstd::bulk::decompress(self.bytes, size).ok().filter(|bytes| bytes.len() == size)
    }
}

/// The data of a record in its opened block, verified. `None` if it is damaged.
#[must_use]
pub fn slice<'a>(block: &'a [u8], record: &Record) -> Option<&'a [u8]> {
    let start = record.placement?.offset;
    let end = start.checked_add(usize::try_from(record.size).ok()?)?;
    let data = block.get(start..end)?;
    (Checksum::of(data) == record.checksum).then_some(data)
}

/// Which records' data goes along in an answer of `bytes_max` bytes: in the order of
/// the list, each that still fits. None if no bytes are asked for.
#[must_use]
pub fn fitting<'a>(records: impl Iterator<Item = &'a Record>, bytes_max: usize) -> Vec<bool> {
    let mut left = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let fits = |record: &Record| {
        let rest = left.checked_sub(record.size).filter(|_| bytes_max > 0 && record.placement.is_some());
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    records.map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{result::Labels, time::Micros};

    fn new(organisation: &str, data: Vec<u8>) -> NewRecord {
        let labels = Labels {
            definition: "d".into(),
            poll: "p".into(),
            task: String::new(),
            identifier: "i".into(),
            media_type: "text/plain".into(),
        };
        NewRecord::new(organisation, &Uuid::now_v7().to_string(), labels, Bytes::from(data)).unwrap()
    }

    fn packed(records: &[NewRecord]) -> (Vec<PackedBlock>, Vec<Record>) {
        let refs: Vec<&NewRecord> = records.iter().collect();
        let (blocks, packed) = pack(&refs).unwrap();
        let kept = |(new, packed): (&NewRecord, Packed)| {
            assert_eq!(packed.data, new.data);
            assert!(new.data.is_empty() || packed.data.as_ptr() != new.data.as_ptr());
            new.kept(packed.placement, Micros::from_raw(0))
        };
        (blocks, records.iter().zip(packed).map(kept).collect())
    }

    fn open(blocks: &[PackedBlock], record: &Record) -> Option<Vec<u8>> {
        let block = blocks.iter().find(|block| Some(block.id) == record.placement.map(|p| p.block))?;
        let opened = Block { size: block.size, bytes: &block.bytes }.open()?;
        slice(&opened, record).map(<[u8]>::to_vec)
    }

    #[test]
    fn every_record_comes_back_from_its_block() {
        let big = BLOCK_BYTES_MAX;
        let sizes = [0, 1, 600, big - 601, 1, big, big + 1, 0, 5];
        let news: Vec<NewRecord> =
            sizes.iter().enumerate().map(|(i, size)| new("acme", vec![i as u8; *size])).collect();
        let (blocks, records) = packed(&news);
        for (new, record) in news.iter().zip(&records) {
            assert_eq!(open(&blocks, record).as_deref(), Some(&new.data[..]));
        }
        let sizes: Vec<i32> = blocks.iter().map(|block| block.size).collect();
        assert_eq!(sizes, [big as i32, 1, big as i32, big as i32 + 1, 5]);
    }

    #[test]
    fn a_block_holds_what_one_config_of_one_organisation_keeps() {
        let mut news =
            [new("a", vec![1; 10]), new("a", vec![2; 10]), new("a", vec![3; 10]), new("b", vec![4; 10])];
        news[2].storage.config = Some(Uuid::nil());
        let (blocks, _) = packed(&news);
        let held: Vec<(&str, i32)> =
            blocks.iter().map(|block| (block.organisation.as_str(), block.size)).collect();
        assert_eq!(held, [("a", 20), ("a", 10), ("b", 10)]);
    }

    #[test]
    fn damage_is_found() {
        let (mut blocks, records) = packed(&[new("a", b"hello".to_vec())]);
        let mut moved = records[0].clone();
        moved.placement = moved.placement.map(|p| Placement { offset: 1, ..p });
        assert_eq!(open(&blocks, &moved), None);
        moved.placement = moved.placement.map(|p| Placement { offset: usize::MAX, ..p });
        assert_eq!(open(&blocks, &moved), None);
        let last = blocks[0].bytes.len() - 1;
        blocks[0].bytes[last] ^= 1;
        assert_eq!(open(&blocks, &records[0]), None);
        blocks[0].size = i32::MAX;
        assert_eq!(open(&blocks, &records[0]), None);
    }

    #[test]
    fn data_goes_along_as_long_as_it_fits() {
        let news = [5, 10, 4, 1, 1].map(|size| new("a", vec![7; size]));
        let (_, records) = packed(&news);
        assert_eq!(fitting(records.iter(), 10), [true, false, true, true, false]);
        assert_eq!(fitting(records.iter(), 0), [false; 5]);
    }
}
