//! Everything that can be decided about an observation without the database:
//! fields, definition, JSON, schema, and the keys the gate works with. Pure.
//! A file is checked in the same way: before its bytes are read for what is
//! certain without them, and again when they are known.

mod content;
mod fields;

pub use fields::must_be_json;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use sluice_service::{OrganisationId, text::shown};
use uuid::Uuid;

use crate::{
    check::{
        content::{Rules, check_content, check_file, parsed},
        fields::check_fields,
    },
    definition::{Definition, Throttle},
    hash,
    observation::{Batch, Content, Limits, Observation, TYPE_DEFAULT, Unreadable},
    outcome::Fault,
    registry::Snapshot,
    schema::Schema,
};

/// What reading a byte takes, in nanoseconds, about.
const READING: u64 = 16;
/// The same for each pointer of `unique_by` but the first.
const HASHING: u64 = 10;
/// Stands for the hash of a content that nobody has read. (A content that really
/// has it is never noticed to differ: one in 2^64.)
pub const FINGERPRINT_UNKNOWN: i64 = 0;
/// The media type of a file of which none is known.
const FILE_TYPE_DEFAULT: &str = "application/octet-stream";

/// An observation that passed the check, with all that the gate needs.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The tenant.
    pub organisation: OrganisationId,
    /// The rules applied.
    pub definition: Arc<Definition>,
    /// The id it gets if it is accepted.
    pub id: Uuid,
    /// The publisher's name for the content.
    pub identifier: String,
    /// The publisher's run.
    pub poll: String,
    /// The publisher's unit of work.
    pub task: String,
    /// Media type.
    pub media_type: String,
    /// The content; empty for a file.
    pub data: Bytes,
    /// Set for a file, whose content is not here.
    pub file: Option<FileStage>,
    /// Hash of its progress marker, if it has one.
    pub marker: Option<Uuid>,
    /// Of the content.
    pub fingerprint: i64,
    /// Its unique key and for how long that suppresses others, in seconds.
    pub window: Option<(Uuid, i64)>,
    /// Its throttle counter and the rule.
    pub throttle: Option<(Uuid, Throttle)>,
}

impl Candidate {
    /// Content bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self.file {
            Some(FileStage::Stored { bytes }) => bytes,
            Some(FileStage::Unread) => 0,
            None => self.data.len() as u64,
        }
    }
}

/// How far a file has come when it is decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStage {
    /// Its content was not read: only checks that need none may decide, and it can't be
    /// accepted.
    Unread,
    /// It is stored under the candidate's id, and can be accepted for as long as
    /// its upload was not given up.
    Stored {
        /// How many bytes it has.
        bytes: u64,
    },
}

/// What the check says of one observation.
#[derive(Clone, Debug)]
pub enum Checked {
    /// The gate decides.
    Candidate(Box<Candidate>),
    /// The caller's fault, with the etag of the definition applied, if any.
    Fault(Fault, String),
}

/// What stays the same over all tries at one batch.
#[derive(Debug)]
pub struct Request {
    /// The observations.
    pub batch: Batch,
    /// The poll of observations that name none.
    pub poll: String,
    /// Bounds on the content.
    pub limits: Limits,
}

/// Checks the observations at `indexes` against one moment's definitions, for as
/// long as `goes_on`, told how many are done, says so. The answers are in the order of
/// `indexes`, which must be ascending.
#[must_use]
pub fn check(
    request: &Request,
    indexes: &[usize],
    definitions: &Snapshot,
    goes_on: impl Fn(usize) -> bool,
) -> Vec<Checked> {
    // How often each content without its own marker came before in the request:
    // counted over the whole request, whatever part of it is asked for.
    let mut occurrences = HashMap::new();
    // Each schema is asked for once, at hand or not.
    let mut schemas = HashMap::new();
    let mut wanted = indexes.iter().copied().peekable();
    let mut checked = Vec::with_capacity(indexes.len());
    for (index, observation) in request.batch.observations.iter().enumerate() {
        let Some(&next) = wanted.peek().filter(|_| goes_on(checked.len())) else { break };
        let content = observation.content.hash();
        let occurrence = (!request.batch.request_id.is_empty() && observation.chkpt.is_empty())
            .then(|| count(&mut occurrences, observation, content));
        if index == next {
            wanted.next();
            checked.push(check_one(request, observation, content, occurrence, definitions, &mut schemas));
        }
    }
    checked
}

/// What a check may take, in nanoseconds, about: for the bytes, and for what they are
/// held against. Beyond measure where a schema is still to be compiled.
#[must_use]
pub fn work(request: &Request, definitions: &Snapshot) -> u64 {
    let of = |observation: &Observation| {
        let bytes = observation.content.bytes().len();
        let definition = definitions.find(&request.batch.organisation, &observation.definition);
        let under_schema = definition.map_or(Some(0), |found| definitions.work_of(found, bytes));
        // Each pointer of unique_by may lead to all of it.
        let pointers = definition
            .filter(|found| found.draft.unique_seconds.is_some())
            .map_or(0, |found| found.unique_by().len() - 1);
        let once = READING + HASHING * pointers as u64;
        under_schema.map_or(u64::MAX, |work| work.saturating_add(once * bytes as u64))
    };
    request.batch.observations.iter().map(of).fold(0, u64::saturating_add)
}

/// By the id of the definition.
type SchemasOfRequest = HashMap<Uuid, Result<Option<Arc<Schema>>, String>>;

type Occurrences<'a> = HashMap<(&'a str, blake3::Hash), u64>;

fn count<'a>(occurrences: &mut Occurrences<'a>, observation: &'a Observation, content: blake3::Hash) -> u64 {
    let count = occurrences.entry((&observation.definition, content)).or_insert(0);
    *count += 1;
    *count
}

fn check_one(
    request: &Request,
    observation: &Observation,
    content: blake3::Hash,
    occurrence: Option<u64>,
    definitions: &Snapshot,
    schemas: &mut SchemasOfRequest,
) -> Checked {
    let organisation = &request.batch.organisation;
    let found = definitions.find(organisation, &observation.definition);
    let etag = || found.map(|definition| definition.etag.clone()).unwrap_or_default();
    let checked = check_readable(observation, &request.limits)
        .and_then(|()| check_fields(observation))
        .and_then(|()| match found {
            None => Err(about_definition(
                "UNKNOWN_DEFINITION",
                format!("there is no definition {}", shown(&observation.definition)),
            )),
            Some(definition) if definition.draft.disabled => Err(about_definition(
                "DISABLED_DEFINITION",
                format!("the definition {} is disabled", shown(&observation.definition)),
            )),
            Some(definition) => Ok(definition),
        })
        .and_then(|definition| {
            let data = data_of(observation, &request.limits)?;
            let schema = schemas.entry(definition.id).or_insert_with(|| definitions.schema_of(definition));
            let schema = schema.clone().map_err(|unusable| {
                about_definition("SCHEMA", format!("the definition's schema can't be used: {unusable}"))
            })?;
            let rules = Rules { organisation, definition, schema };
            let window = match &observation.content {
                Content::File(file) => check_file(observation, file, content, &request.limits, &rules)?,
                _ => check_content(observation, &data, content, &request.limits, &rules)?,
            };
            Ok(candidate(request, observation, definition, data, content, occurrence, window))
        });
    match checked {
        Ok(candidate) => Checked::Candidate(Box::new(candidate)),
        Err(fault) => Checked::Fault(fault, etag()),
    }
}

fn fault(reason: &'static str, details: impl Into<String>) -> Fault {
    Fault { reason, details: details.into(), depends_on_definition: false }
}

fn about_definition(reason: &'static str, details: impl Into<String>) -> Fault {
    Fault { reason, details: details.into(), depends_on_definition: true }
}

/// A document whose fields can't be read is refused for what it is before for
/// what it lacks: too large, not JSON, or not of the shape that is needed.
fn check_readable(observation: &Observation, limits: &Limits) -> Result<(), Fault> {
    let Some(Unreadable { field, rule }) = observation.unreadable else { return Ok(()) };
    parsed(&data_of(observation, limits)?, limits.json)?;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    Err(fault("INVALID_FIELD", format!("{field}{rule}")))
}

fn data_of(observation: &Observation, limits: &Limits) -> Result<Bytes, Fault> {
    let data = match &observation.content {
        Content::Data(data) | Content::Json(data) | Content::Body(Ok(data)) => data.clone(),
        Content::Body(Err(why)) => return Err(fault("INVALID_JSON", why.clone())),
        // What is held of a file was held within the limits.
        Content::File(_) => return Ok(Bytes::new()),
        Content::Absent => {
            return Err(fault("INVALID_FIELD", "content: one of data, json and body is needed"));
        }
    };
    if data.len() > limits.observation_bytes_max {
        return Err(fault(
            "TOO_LARGE",
            format!("the content has {} bytes, up to {} are taken", data.len(), limits.observation_bytes_max),
        ));
    }
    Ok(data)
}

fn candidate(
    request: &Request,
    observation: &Observation,
    definition: &Arc<Definition>,
    data: Bytes,
    content: blake3::Hash,
    occurrence: Option<u64>,
    window: Option<(Uuid, i64)>,
) -> Candidate {
    let organisation = &request.batch.organisation;
    let path = definition.draft.path.as_str();
    let file = match &observation.content {
        Content::File(file) => Some(file),
        _ => None,
    };
    let read = file.and_then(|file| file.read.as_ref());
    let stored_type = read.map(|read| read.media_type.as_str());
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    Candidate {
        organisation: organisation.clone(),
        definition: definition.clone(),
        id: file.map_or_else(Uuid::now_v7, |file| file.id),
        identifier: or(&observation.identifier, path),
        poll: or(&observation.poll, &request.poll),
        task: observation.task.clone(),
        media_type: match (file, stored_type) {
            (None, _) => or(&observation.media_type, TYPE_DEFAULT),
            (Some(_), stored) => or(stored.unwrap_or_default(), FILE_TYPE_DEFAULT),
        },
        data,
        file: file.map(|_| read.map_or(FileStage::Unread, |read| FileStage::Stored { bytes: read.bytes })),
        marker: marker_key(request, observation, path, content, occurrence),
        fingerprint: if file.is_some() && read.is_none() {
            FINGERPRINT_UNKNOWN
        } else {
            hash::fingerprint(&content)
        },
        window,
        throttle: definition.draft.throttle.map(|throttle| {
            let period = throttle.period_seconds.to_le_bytes();
            (hash::key("throttle", &[organisation.as_str().as_bytes(), path.as_bytes(), &period]), throttle)
        }),
    }
}

/// The marker's hash: of the publisher's own chkpt, or of the request's id, the
/// content and its ordinal among equal ones, in domains that can't meet.
fn marker_key(
    request: &Request,
    observation: &Observation,
    path: &str,
    content: blake3::Hash,
    occurrence: Option<u64>,
) -> Option<Uuid> {
    let organisation = request.batch.organisation.as_str().as_bytes();
    if !observation.chkpt.is_empty() {
        return Some(hash::key("chkpt", &[organisation, path.as_bytes(), observation.chkpt.as_bytes()]));
    }
    let occurrence = occurrence?.to_le_bytes();
    let request_id = request.batch.request_id.as_bytes();
    Some(hash::key("request", &[organisation, request_id, path.as_bytes(), content.as_bytes(), &occurrence]))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
