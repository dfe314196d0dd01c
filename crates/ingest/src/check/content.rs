//! The rules for an observation's content: JSON, schema, and its unique key.

use std::sync::Arc;

use sluice_service::{OrganisationId, text::shown};
use uuid::Uuid;

use super::{about_definition, fault, fields::must_be_json};
use crate::{
    definition::Definition,
    hash, json,
    observation::{File, FileRead, Limits, Observation},
    outcome::Fault,
    schema::{Broken, Schema},
};

/// What a content is held against.
pub(super) struct Rules<'a> {
    pub(super) organisation: &'a OrganisationId,
    pub(super) definition: &'a Definition,
    pub(super) schema: Option<Arc<Schema>>,
}

/// A content as JSON.
pub(super) fn parsed(data: &[u8], bounds: json::Bounds) -> Result<json::Document<'_>, Fault> {
    json::parse_within(data, bounds).map_err(|e| {
        let place = if e.pointer.is_empty() { String::new() } else { format!(" at {}", shown(&e.pointer)) };
        fault("INVALID_JSON", format!("{}{place} (byte {})", e.rule, e.offset))
    })
}

/// JSON, schema and unique key; the content is read at most once.
pub(super) fn check_content(
    observation: &Observation,
    data: &[u8],
    content: blake3::Hash,
    limits: &Limits,
    rules: &Rules<'_>,
) -> Result<Option<(Uuid, i64)>, Fault> {
    let document = if must_be_json(observation) { Some(parsed(data, limits.json)?) } else { None };
    window(document.as_ref(), content, rules)
}

/// A file's content: as an observation's if it is held; else it is kept as it
/// is, unless the definition asks for more than that it is there.
pub(super) fn check_file(
    observation: &Observation,
    file: &File,
    content: blake3::Hash,
    limits: &Limits,
    rules: &Rules<'_>,
) -> Result<Option<(Uuid, i64)>, Fault> {
    let json = must_be_json(observation);
    match &file.read {
        // Its JSON is still to come.
        None if json => Ok(None),
        // Whether the definition takes it is certain already; the key is not.
        None => window(None, content, rules).map(|_| None),
        Some(FileRead { held: Some(data), .. }) => check_content(observation, data, content, limits, rules),
        Some(_) if json && looks_inside(rules) => {
            let rule = "the definition looks into the content, which is done up to";
            let details = format!("{rule} {} bytes", limits.observation_bytes_max);
            Err(about_definition("TOO_LARGE", details))
        }
        Some(_) => window(None, content, rules),
    }
}

/// Schema and unique key of a content that is JSON, or of none that is read.
fn window(
    document: Option<&json::Document<'_>>,
    content: blake3::Hash,
    rules: &Rules<'_>,
) -> Result<Option<(Uuid, i64)>, Fault> {
    let Rules { organisation, definition, schema } = rules;
    if let Some(schema) = schema {
        check_schema(document, schema)?;
    }
    let Some(unique_seconds) = definition.draft.unique_seconds else { return Ok(None) };
    Ok(Some((unique_key(document, content, organisation, definition)?, unique_seconds)))
}

/// Whether a definition asks for more of a content than that it is there.
fn looks_inside(Rules { definition, schema, .. }: &Rules<'_>) -> bool {
    let by_fields = definition.unique_by().any(|pointer| !pointer.is_empty());
    schema.is_some() || (definition.draft.unique_seconds.is_some() && by_fields)
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
        Broken::Untold => {
            about_definition("SCHEMA", "does not meet the schema, and is too large to be told where")
        }
        Broken::TooMuchWork => {
            about_definition("TOO_LARGE", "takes too long to be held against the definition's schema")
        }
    })
}

fn unique_key(
    document: Option<&json::Document<'_>>,
    content: blake3::Hash,
    organisation: &OrganisationId,
    definition: &Definition,
) -> Result<Uuid, Fault> {
    let parts = [organisation.as_str().as_bytes(), definition.draft.path.as_str().as_bytes()];
    let mut hasher = hash::start("unique", &parts);
    for pointer in definition.unique_by() {
        hash::feed(&mut hasher, pointer.as_bytes());
        match document {
            Some(document) => {
                let value = document.root().at(pointer).ok_or_else(|| {
                    about_definition("MISSING_UNIQUE_FIELD", format!("nothing at {pointer} of unique_by"))
                })?;
                hasher.update(b"j");
                value.hash_into(&mut hasher);
            }
            None if pointer.is_empty() => {
                hasher.update(b"b");
                hash::feed(&mut hasher, content.as_bytes());
            }
            None => {
                return Err(about_definition(
                    "MISSING_UNIQUE_FIELD",
                    format!("content that is not JSON has nothing at {pointer} of unique_by"),
                ));
            }
        }
    }
    Ok(hash::finish(&hasher))
}
