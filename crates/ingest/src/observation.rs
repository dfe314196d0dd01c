//! What a publisher sends, as values: a [`Batch`] that exists is within its
//! limits; an [`Observation`] may still be refused by the check, alone. A file is
//! an observation whose content is kept elsewhere.

use bytes::Bytes;
use sluice_service::{Error, Kind, OrganisationId};
use uuid::Uuid;

use crate::{hash, json};

/// Longest `request_id`, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest `chkpt`, `identifier`, `poll` and `task`, in bytes.
pub const FIELD_BYTES_MAX: usize = 512;
/// Longest media type, in bytes.
pub const TYPE_BYTES_MAX: usize = 255;
/// What the data is when the publisher does not say.
pub const TYPE_DEFAULT: &str = "application/json";

/// Bounds on requests; operators may change them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most observations in one request.
    pub observations_max: usize,
    /// Largest content of one observation, in bytes.
    pub observation_bytes_max: usize,
    /// How far a content that is JSON may go.
    pub json: json::Bounds,
}

/// The content as it came.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes to be kept as they are.
    Data(Bytes),
    /// JSON text to be kept as it is.
    Json(Bytes),
    /// JSON typed by hand, already written out; or why that can't be.
    Body(Result<Bytes, String>),
    /// A file: its bytes go to where its result is kept, past the gate.
    File(File),
    /// None was given.
    Absent,
}

impl Content {
    /// The bytes at hand; none if there are none or they can't be.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Data(data) | Self::Json(data) | Self::Body(Ok(data)) => data,
            Self::File(file) => file.read.as_ref().and_then(|read| read.held.as_deref()).unwrap_or_default(),
            Self::Body(Err(_)) | Self::Absent => b"",
        }
    }

    /// The hash of the content.
    #[must_use]
    pub fn hash(&self) -> blake3::Hash {
        match self {
            Self::File(File { read: Some(read), .. }) => read.hash,
            _ => hash::content(self.bytes()),
        }
    }
}

/// A file as far as it is known.
#[derive(Clone, Debug)]
pub struct File {
    /// The id its upload has, and its result if it is accepted.
    pub id: Uuid,
    /// The MD5 it must have, in hex of either case; empty: any.
    pub checksum: String,
    /// What its bytes are; absent before they were read.
    pub read: Option<FileRead>,
}

/// What the bytes of a file are.
#[derive(Clone, Debug)]
pub struct FileRead {
    /// BLAKE3 of them all.
    pub hash: blake3::Hash,
    /// How many.
    pub bytes: u64,
    /// All of them, if the file is of a JSON type and no larger than an
    /// observation may be.
    pub held: Option<Bytes>,
    /// The media type it was stored with; empty while it is not known.
    pub media_type: String,
}

/// One observation as it was sent.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The definition's path, not yet looked up.
    pub definition: String,
    /// Progress marker; empty is absent.
    pub chkpt: String,
    /// Empty means the definition's path.
    pub identifier: String,
    /// Empty means the request's own.
    pub poll: String,
    /// May be empty.
    pub task: String,
    /// Media type; empty means JSON.
    pub media_type: String,
    /// What is to be kept.
    pub content: Content,
    /// Set if the fields above could not be read from the content.
    pub unreadable: Option<Unreadable>,
}

/// Why a document's own fields can't be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which field; empty for the document as a whole.
    pub field: &'static str,
    /// For people.
    pub rule: &'static str,
}

impl Observation {
    /// A JSON document whose fields are still to be read from it.
    #[must_use]
    pub fn of_json(document: Bytes) -> Self {
        Self {
            definition: String::new(),
            chkpt: String::new(),
            identifier: String::new(),
            poll: String::new(),
            task: String::new(),
            media_type: String::new(),
            content: Content::Json(document),
            unreadable: None,
        }
    }
}

/// The observations of one request, within its limits.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The tenant.
    pub organisation: OrganisationId,
    /// Makes resending safe; empty is absent.
    pub request_id: String,
    /// In request order.
    pub observations: Vec<Observation>,
}

impl Batch {
    /// Checks what concerns the request as a whole.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an empty or too large batch or a too long id.
    pub fn new(
        organisation: OrganisationId,
        request_id: String,
        observations: Vec<Observation>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        if request_id.len() > REQUEST_ID_BYTES_MAX {
            return Err(Error::invalid("request_id", format!("must be up to {REQUEST_ID_BYTES_MAX} bytes")));
        }
        if observations.is_empty() {
            let error =
                Error::new(Kind::InvalidArgument, "EMPTY_BATCH", "observations: at least one is needed");
            return Err(error.violating("observations", "at least one is needed"));
        }
        if observations.len() > limits.observations_max {
            return Err(Error::invalid(
                "observations",
                format!("must be up to {} in one request", limits.observations_max),
            ));
        }
        Ok(Self { organisation, request_id, observations })
    }
}
