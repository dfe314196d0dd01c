//! Storage type `db`: the data lives in the results database. The records of
//! one commit and one organisation are concatenated into blocks and compressed
//! together: a hundred small JSON documents take one row and a tenth of the
//! space. A record points into its block.

use md5::{Digest, Md5};
use sluice_service::{OrganisationId, compress::compress};
use uuid::Uuid;

use crate::result::{NewRecord, Placement, Record};

/// Size of a block before compression, in bytes: reading one record opens its
/// whole block. A larger record gets a block for itself.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// No block is larger than this: the largest request there is, in bytes.
const SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// Packs the data of records, which are sorted by organisation, into blocks.
/// Answers the blocks, and where each record's data is, in order.
///
/// # Errors
/// If the compressor fails.
pub fn pack(records: &[&NewRecord]) -> std::io::Result<(Vec<PackedBlock>, Vec<Placement>)> {
    let mut blocks = Vec::new();
    let mut placements = Vec::with_capacity(records.len());
    let mut open = Vec::new();
    let mut id = Uuid::now_v7();
    let mut records = records.iter().peekable();
    while let Some(record) = records.next() {
        placements.push(Placement { block: id, offset: open.len() });
        open.extend_from_slice(&record.data);
        let goes_on = records.peek().is_some_and(|next| {
            next.organisation == record.organisation && open.len() + next.data.len() <= BLOCK_BYTES_MAX
        });
        if !goes_on {
            blocks.push(PackedBlock {
                id,
                organisation: record.organisation.clone(),
                size: i32::try_from(open.len()).map_err(std::io::Error::other)?,
                bytes: compress(&open)?,
            });
            open.clear();
            id = Uuid::now_v7();
        }
    }
    Ok((blocks, placements))
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
        let size = usize::try_from(self.size).ok().filter(|size| *size <= SIZE_BYTES_MAX)?;
        zstd::bulk::decompress(self.bytes, size).ok().filter(|bytes| bytes.len() == size)
    }
}

/// The data of a record in its opened block, verified. `None` if it is damaged.
#[must_use]
pub fn slice<'a>(block: &'a [u8], record: &Record) -> Option<&'a [u8]> {
    let start = record.placement?.offset;
    let end = start.checked_add(usize::try_from(record.size).ok()?)?;
    let data = block.get(start..end)?;
    (Md5::digest(data)[..] == record.checksum.to_uuid().as_bytes()[..]).then_some(data)
}

/// The records whose data goes along in an answer of `bytes_max` bytes: in the
/// order of the list, each that still fits.
#[must_use]
pub fn fitting(records: &[Record], bytes_max: usize) -> Vec<&Record> {
    let mut left = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    records
        .iter()
        .filter(|record| {
            let rest = left.checked_sub(record.size).filter(|_| record.placement.is_some());
            left = rest.unwrap_or(left);
            rest.is_some()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

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

    fn kept(new: &NewRecord, placement: Placement) -> Record {
        Record {
            id: new.id,
            labels: new.labels.clone(),
            checksum: new.checksum,
            size: new.data.len() as u64,
            placement: Some(placement),
            storage_config: None,
            date_created: Micros::from_raw(0),
            date_consumed: None,
            date_deleted: None,
            expired: false,
            signed_urls_seconds: None,
        }
    }

    fn packed(records: &[NewRecord]) -> (Vec<PackedBlock>, Vec<Record>) {
        let refs: Vec<&NewRecord> = records.iter().collect();
        let (blocks, placements) = pack(&refs).unwrap();
        let kept = records.iter().zip(placements).map(|(new, placement)| kept(new, placement)).collect();
        (blocks, kept)
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
    fn a_block_holds_one_organisation() {
        let news = [new("a", vec![1; 10]), new("a", vec![2; 10]), new("b", vec![3; 10])];
        let (blocks, _) = packed(&news);
        let owners: Vec<&str> = blocks.iter().map(|block| block.organisation.as_str()).collect();
        assert_eq!(owners, ["a", "b"]);
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
        let sizes: Vec<u64> = fitting(&records, 10).iter().map(|record| record.size).collect();
        assert_eq!(sizes, [5, 4, 1]);
        assert!(fitting(&records, 0).is_empty());
    }
}
