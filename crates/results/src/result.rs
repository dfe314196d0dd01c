//! Results as values: what is recorded, what is read back, and in which state.
//! Valid by construction; nothing here does any I/O.

use std::cmp::Ordering;

use bytes::Bytes;
use md5::{Digest, Md5};
use sluice_service::OrganisationId;
use uuid::Uuid;

use crate::time::Micros;

/// Longest poll, task and identifier, in bytes.
pub const LABEL_BYTES_MAX: usize = 512;
/// Longest definition path and media type, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The id of a result as a consumer names it. `None` when it can be no
/// result's: callers answer that like an unknown one.
#[must_use]
pub fn parse_id(text: &str) -> Option<Uuid> {
    let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
    if hyphenated { Uuid::try_parse(text).ok() } else { None }
}

/// The id of a result that is to be made: a UUIDv7.
#[must_use]
pub fn parse_new_id(text: &str) -> Option<Uuid> {
    parse_id(text).filter(|id| id.get_version_num() == 7)
}

/// A result's name: its organisation and its id.
pub type ResultName = (OrganisationId, Uuid);

/// An MD5 checksum (RFC 1321).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 16]);

impl Checksum {
    /// Of some data.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self(Md5::digest(data).into())
    }

    /// From hex, in either case.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(hex, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// As lower-case hex.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.to_uuid().simple().encode_lower(&mut Uuid::encode_buffer()).to_owned()
    }

    /// As the 16-byte value the database keeps.
    #[must_use]
    pub fn to_uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

impl From<Md5> for Checksum {
    /// Of all that it has seen.
    fn from(hash: Md5) -> Self {
        Self(hash.finalize().into())
    }
}

impl From<Uuid> for Checksum {
    fn from(kept: Uuid) -> Self {
        Self(kept.into_bytes())
    }
}

/// One result on its way in, checked and measured.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The tenant.
    pub organisation: OrganisationId,
    /// UUIDv7.
    pub id: Uuid,
    /// What describes it.
    pub labels: Labels,
    /// MD5 of the data.
    pub checksum: Checksum,
    /// Size of the data in bytes.
    pub size: u64,
    /// The data; empty if it was stored before.
    pub data: Bytes,
    /// Who keeps the data.
    pub storage: Storage,
}

/// Who keeps a result's data, as it is fixed with the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// The storage config; `None`: the built-in `db`.
    pub config: Option<Uuid>,
    /// For how long a signed URL works; `None`: there is none.
    pub signed_urls_seconds: Option<i32>,
}

/// A stored file, as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// MD5 of the bytes.
    pub checksum: Checksum,
    /// Number of bytes.
    pub size: u64,
    /// Media type, as declared or as found.
    pub media_type: String,
}

/// The texts that describe a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The path of the definition that let it in.
    pub definition: String,
    /// The publisher's id for the run.
    pub poll: String,
    /// The publisher's id for the unit of work; may be empty.
    pub task: String,
    /// The publisher's name for the content.
    pub identifier: String,
    /// Media type of the data.
    pub media_type: String,
}

impl Labels {
    /// The first rule that is broken, for the log.
    fn fault(&self) -> Option<&'static str> {
        let required = |text: &str, bytes_max| !text.is_empty() && is_text(text, bytes_max);
        [
            (required(&self.definition, NAME_BYTES_MAX), "definition"),
            (required(&self.poll, LABEL_BYTES_MAX), "poll"),
            (is_text(&self.task, LABEL_BYTES_MAX), "task"),
            (required(&self.identifier, LABEL_BYTES_MAX), "identifier"),
            (required(&self.media_type, NAME_BYTES_MAX), "type"),
        ]
        .into_iter()
        .find_map(|(fits, field)| (!fits).then_some(field))
    }

    /// How many bytes they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        [&self.definition, &self.poll, &self.task, &self.identifier, &self.media_type]
            .iter()
            .map(|text| text.len())
            .sum()
    }
}

/// Whether a text can be kept: not too long, and without U+0000, which
/// PostgreSQL can't hold.
#[must_use]
pub fn is_text(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.contains('\0')
}

impl NewRecord {
    /// Checks what the ingest service handed over and computes the checksum.
    ///
    /// # Errors
    /// The name of the field that can never be recorded.
    pub fn new(organisation: &str, id: &str, labels: Labels, data: Bytes) -> Result<Self, &'static str> {
        let organisation = organisation.parse().map_err(|_| "organisation")?;
        let id = parse_new_id(id).ok_or("id")?;
        let (checksum, size, storage) = (Checksum::of(&data), data.len() as u64, Storage::default());
        match labels.fault() {
            Some(field) => Err(field),
            None => Ok(Self { organisation, id, labels, checksum, size, data, storage }),
        }
    }

    /// The same for a file that was stored before.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_file(
        organisation: &str,
        id: &str,
        labels: Labels,
        file: Sealed,
        storage: Storage,
    ) -> Result<Self, &'static str> {
        let labels = Labels { media_type: file.media_type, ..labels };
        let record = Self::new(organisation, id, labels, Bytes::new())?;
        Ok(Self { checksum: file.checksum, size: file.size, storage, ..record })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> ResultName {
        (self.organisation.clone(), self.id)
    }

    /// What the results of one block have in common: whose they are, and what keeps them.
    #[must_use]
    pub fn block(&self) -> (&OrganisationId, Option<Uuid>) {
        (&self.organisation, self.storage.config)
    }

    /// What the results of one batch have in common: also the poll.
    #[must_use]
    pub fn batch(&self) -> (&OrganisationId, Option<Uuid>, &str) {
        (&self.organisation, self.storage.config, &self.labels.poll)
    }

    /// The order in which everybody records: batch by batch, so that recordings of the
    /// same ids wait for each other in one direction only.
    #[must_use]
    pub fn order(a: &Self, b: &Self) -> Ordering {
        a.batch().cmp(&b.batch()).then_with(|| a.id.cmp(&b.id))
    }

    /// As the record it becomes, AVAILABLE, with its data inline.
    #[must_use]
    pub fn kept(&self, placement: Placement, date_created: Micros) -> Record {
        Record {
            id: self.id,
            labels: self.labels.clone(),
            checksum: self.checksum,
            size: self.size,
            placement: Some(placement),
            storage_config: self.storage.config,
            date_created,
            date_consumed: None,
            date_deleted: None,
            expired: false,
            signed_urls_seconds: self.storage.signed_urls_seconds,
        }
    }

    /// How many bytes it takes in a queue and in a statement, nearly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.labels.bytes() + size_of::<Self>()
    }
}

/// Whether a result waits, was acknowledged, or loses its data to clean-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for a consumer.
    Available,
    /// Was acknowledged.
    Consumed,
    /// Its data was removed or is about to be, whether it was acknowledged before or not.
    Expired,
}

/// Where the data of an inline record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The block's id.
    pub block: Uuid,
    /// Where it starts in the block before compression.
    pub offset: usize,
}

/// One result as it is kept.
#[derive(Clone, Debug)]
pub struct Record {
    /// UUIDv7.
    pub id: Uuid,
    /// What describes it.
    pub labels: Labels,
    /// MD5 of the data.
    pub checksum: Checksum,
    /// Size of the data in bytes.
    pub size: u64,
    /// Where the data lies, if it is inline.
    pub placement: Option<Placement>,
    /// The storage config that keeps the data; `None`: the built-in `db`.
    pub storage_config: Option<Uuid>,
    /// When the record was made.
    pub date_created: Micros,
    /// When it was acknowledged.
    pub date_consumed: Option<Micros>,
    /// When its data was removed.
    pub date_deleted: Option<Micros>,
    /// Whether its data was removed, or is about to be.
    pub expired: bool,
    /// For how long a signed URL works; `None`: there is none.
    pub signed_urls_seconds: Option<i32>,
}

impl Record {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.expired, self.date_consumed) {
            (true, _) => State::Expired,
            (false, Some(_)) => State::Consumed,
            (false, None) => State::Available,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01963f2e-7d9a-7c31-8f0e-000000000001";

    fn labels() -> Labels {
        Labels {
            definition: "security/ssh/login".into(),
            poll: "p".into(),
            task: String::new(),
            identifier: "i".into(),
            media_type: "application/json".into(),
        }
    }

    fn fault(change: impl FnOnce(&mut Labels)) -> Option<&'static str> {
        let mut labels = labels();
        change(&mut labels);
        NewRecord::new("acme", ID, labels, Bytes::new()).err()
    }

    #[test]
    fn the_checksum_is_md5() {
        let record = NewRecord::new("acme", ID, labels(), Bytes::from_static(b"abc")).unwrap();
        assert_eq!(record.checksum.to_hex(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(Checksum::parse("900150983CD24FB0D6963F7D28E17F72"), Some(record.checksum));
        assert_eq!(Checksum::from(record.checksum.to_uuid()), record.checksum);
    }

    #[test]
    fn only_version_7_ids_are_recorded() {
        let v4 = "01963f2e-7d9a-4c31-8f0e-000000000001";
        for bad in [v4, "", "x", &ID.replace('-', ""), &format!("{{{ID}}}")] {
            assert_eq!(NewRecord::new("acme", bad, labels(), Bytes::new()).err(), Some("id"), "{bad}");
        }
        assert_eq!(NewRecord::new("a/b", ID, labels(), Bytes::new()).err(), Some("organisation"));
    }

    #[test]
    fn texts_are_held_to_their_limits() {
        assert_eq!(fault(|_| {}), None);
        assert_eq!(fault(|l| l.poll = "é".repeat(256)), None);
        assert_eq!(fault(|l| l.poll = "é".repeat(257)), Some("poll"));
        assert_eq!(fault(|l| l.identifier.clear()), Some("identifier"));
        assert_eq!(fault(|l| l.task = "a\0b".into()), Some("task"));
        assert_eq!(fault(|l| l.definition = "d".repeat(256)), Some("definition"));
        assert_eq!(fault(|l| l.media_type.clear()), Some("type"));
    }
}
