//! Everything that can be decided about an observation without the database:
//! fields, definition, JSON, schema, and the keys the gate works with. Pure.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use sluice_service::OrganisationId;
use uuid::Uuid;

use crate::{
    definition::{Definition, Throttle},
    hash, json,
    observation::{
        Batch, Content, FIELD_BYTES_MAX, Limits, Observation, TYPE_BYTES_MAX, TYPE_DEFAULT, Unreadable,
    },
    outcome::Fault,
    registry::Snapshot,
    schema::{Broken, Schema},
};

/// What reading a byte costs, in subschemas.
const READING_WEIGHT: u64 = 16;

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
    /// The content.
    pub data: Bytes,
    /// Hash of its progress marker, if it has one.
    pub marker: Option<Uuid>,
    /// Of the content.
    pub fingerprint: i64,
    /// Its unique key and for how long that suppresses others, in seconds.
    pub window: Option<(Uuid, i64)>,
    /// Its throttle counter and the rule.
    pub throttle: Option<(Uuid, Throttle)>,
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
/// long as `still_wanted` says that somebody waits for it. The answers are in the order
/// of `indexes`, which must be ascending.
#[must_use]
pub fn check(
    request: &Request,
    indexes: &[usize],
    definitions: &Snapshot,
    still_wanted: impl Fn() -> bool,
) -> Vec<Checked> {
    // How often each content without its own marker came before in the request:
    // counted over the whole request, whatever part of it is asked for.
    let mut occurrences = HashMap::new();
    let mut wanted = indexes.iter().copied().peekable();
    let mut checked = Vec::with_capacity(indexes.len());
    for (index, observation) in request.batch.observations.iter().enumerate() {
        let Some(&next) = wanted.peek().filter(|_| still_wanted()) else { break };
        let content = hash::content(observation.content.bytes());
        let occurrence = (!request.batch.request_id.is_empty() && observation.chkpt.is_empty())
            .then(|| count(&mut occurrences, observation, content));
        if index == next {
            wanted.next();
            checked.push(check_one(request, observation, content, occurrence, definitions));
        }
    }
    checked
}

/// About how much work a check is: bytes, and more for each subschema that is
/// held against them.
#[must_use]
pub fn work(request: &Request, definitions: &Snapshot) -> u64 {
    let of = |observation: &Observation| {
        let definition = definitions.find(&request.batch.organisation, &observation.definition);
        let weight = definition.and_then(|definition| definition.schema()).map_or(0, Schema::weight);
        (READING_WEIGHT + weight).saturating_mul(observation.content.bytes().len() as u64)
    };
    request.batch.observations.iter().map(of).fold(0, u64::saturating_add)
}

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
            let window = check_content(observation, &data, organisation, definition)?;
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

/// A caller's text cut to a length that is fit for a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).filter(|c| !c.is_control()).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A document whose fields can't be read is refused for what it is before for
/// what it lacks: too large, not JSON, or not of the shape that is needed.
fn check_readable(observation: &Observation, limits: &Limits) -> Result<(), Fault> {
    let Some(Unreadable { field, rule }) = observation.unreadable else { return Ok(()) };
    parsed(&data_of(observation, limits)?)?;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    Err(fault("INVALID_FIELD", format!("{field}{rule}")))
}

fn check_fields(observation: &Observation) -> Result<(), Fault> {
    let fields = [
        ("chkpt", &observation.chkpt, FIELD_BYTES_MAX),
        ("identifier", &observation.identifier, FIELD_BYTES_MAX),
        ("poll", &observation.poll, FIELD_BYTES_MAX),
        ("task", &observation.task, FIELD_BYTES_MAX),
        ("type", &observation.media_type, TYPE_BYTES_MAX),
    ];
    for (name, text, bytes_max) in fields {
        if text.len() > bytes_max {
            return Err(fault("INVALID_FIELD", format!("{name}: must be up to {bytes_max} bytes")));
        }
        if text.contains('\0') {
            return Err(fault("INVALID_FIELD", format!("{name}: must not hold U+0000")));
        }
    }
    if !observation.media_type.is_empty() && !is_media_type(&observation.media_type) {
        return Err(fault("INVALID_FIELD", "type: must be a media type such as application/json (RFC 9110)"));
    }
    Ok(())
}

/// `type/subtype` of token characters, then anything printable (RFC 9110, 8.3.1).
fn is_media_type(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parameters_clean = parameters.bytes().all(|b| (b' '..=b'~').contains(&b) || b == b'\t');
    parameters_clean
        && essence
            .trim_end_matches([' ', '\t'])
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Whether a media type's data has to be JSON.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty()
        || essence == "application/json"
        || essence == "text/json"
        || essence.ends_with("+json")
}

fn data_of(observation: &Observation, limits: &Limits) -> Result<Bytes, Fault> {
    let data = match &observation.content {
        Content::Data(data) | Content::Json(data) | Content::Body(Ok(data)) => data.clone(),
        Content::Body(Err(why)) => return Err(fault("INVALID_JSON", why.clone())),
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

fn parsed(data: &[u8]) -> Result<json::Document<'_>, Fault> {
    json::parse(data).map_err(|e| {
        let place = if e.pointer.is_empty() { String::new() } else { format!(" at {}", shown(&e.pointer)) };
        fault("INVALID_JSON", format!("{}{place} (byte {})", e.rule, e.offset))
    })
}

/// JSON, schema and unique key; the content is read at most once.
fn check_content(
    observation: &Observation,
    data: &[u8],
    organisation: &OrganisationId,
    definition: &Definition,
) -> Result<Option<(Uuid, i64)>, Fault> {
    let given_as_json = matches!(observation.content, Content::Json(_) | Content::Body(_));
    let must_be_json = given_as_json || is_json(&observation.media_type);
    let document = if must_be_json { Some(parsed(data)?) } else { None };
    if let Some(schema) = definition.schema() {
        check_schema(document.as_ref(), schema)?;
    }
    let Some(unique_seconds) = definition.draft.unique_seconds else { return Ok(None) };
    let key = unique_key(document.as_ref(), data, organisation, definition)?;
    Ok(Some((key, unique_seconds)))
}

/// A definition with a schema takes JSON only: nothing else can meet it.
fn check_schema(document: Option<&json::Document<'_>>, schema: &Schema) -> Result<(), Fault> {
    let Some(document) = document else {
        return Err(about_definition("SCHEMA", "the definition takes JSON that meets its schema"));
    };
    schema.check(document).map_err(|broken| match broken {
        Broken::Rule(rule, place) => {
            about_definition("SCHEMA", format!("{} at {:?}", shown(&rule), shown(&place)))
        }
        Broken::TooMuchWork => about_definition(
            "TOO_LARGE",
            format!("{} values are too many for a schema of {} subschemas", document.len(), schema.weight()),
        ),
    })
}

fn unique_key(
    document: Option<&json::Document<'_>>,
    data: &[u8],
    organisation: &OrganisationId,
    definition: &Definition,
) -> Result<Uuid, Fault> {
    let parts = [organisation.as_str().as_bytes(), definition.draft.path.as_str().as_bytes()];
    let mut hasher = hash::start("unique", &parts);
    for pointer in definition.unique_by() {
        hash::feed(&mut hasher, pointer.text.as_bytes());
        match document {
            Some(document) => {
                let value = document.root().at(&pointer.tokens).ok_or_else(|| {
                    about_definition(
                        "MISSING_UNIQUE_FIELD",
                        format!("nothing at {} of unique_by", pointer.text),
                    )
                })?;
                hasher.update(b"j");
                value.hash_into(&mut hasher);
            }
            None if pointer.tokens.is_empty() => {
                hasher.update(b"b");
                hash::feed(&mut hasher, data);
            }
            None => {
                return Err(about_definition(
                    "MISSING_UNIQUE_FIELD",
                    format!("content that is not JSON has nothing at {} of unique_by", pointer.text),
                ));
            }
        }
    }
    Ok(hash::finish(&hasher))
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
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    Candidate {
        organisation: organisation.clone(),
        definition: definition.clone(),
        id: Uuid::now_v7(),
        identifier: or(&observation.identifier, path),
        poll: or(&observation.poll, &request.poll),
        task: observation.task.clone(),
        media_type: or(&observation.media_type, TYPE_DEFAULT),
        data,
        marker: marker_key(request, observation, path, content, occurrence),
        fingerprint: hash::fingerprint(&content),
        window,
        throttle: definition.draft.throttle.map(|throttle| {
            let period = throttle.period_seconds.to_le_bytes();
            (hash::key("throttle", &[organisation.as_str().as_bytes(), path.as_bytes(), &period]), throttle)
        }),
    }
}

/// The marker's hash: of the publisher's own chkpt, or of the request's id, the
/// content and its how-manieth occurrence, in domains that can't meet.
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
