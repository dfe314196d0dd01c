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
        let reason = if e.too_large { "TOO_LARGE" } else { "INVALID_JSON" };
        fault(reason, format!("{}{place} (byte {})", e.rule, e.offset))
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
    // In whichever order they stand in the definition, and however often: it is the same rule.
    let mut pointers: Vec<&str> = definition.unique_by().collect();
    pointers.sort_unstable();
    pointers.dedup();
    for pointer in pointers {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::definition::RawDraft;

    #[test]
    fn json_is_taken_up_to_its_bounds() {
        let bounds = json::Bounds { depth_max: 3, keys_max: 2, string_bytes_max: 4 };
        let told = |text: &str| match parsed(text.as_bytes(), bounds) {
            Ok(_) => None,
            Err(fault) => Some((fault.reason, fault.details)),
        };
        for good in ["[[[]]]", r#"{"a":1,"b":2}"#, r#"["1234"]"#] {
            assert_eq!(told(good), None, "{good}");
        }
        for (large, details) in [
            ("[[[[]]]]", "nested deeper than 3 levels at /0/0/0 (byte 3)"),
            (r#"{"a":1,"b":2,"c":3}"#, "more than 2 keys (byte 13)"),
            (r#"["12345"]"#, "a string of more than 4 bytes at /0 (byte 7)"),
        ] {
            assert_eq!(told(large), Some(("TOO_LARGE", details.into())), "{large}");
        }
        // A number that can't be kept exactly is none within any bounds.
        assert_eq!(told("[1e400]").unwrap().0, "INVALID_JSON");
    }

    #[test]
    fn the_order_of_pointers_makes_no_difference() {
        let document = json::parse(br#"{"a":1,"b":2,"keys":3}"#).unwrap();
        let by = |pointers: &[&str]| {
            let unique_by = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
            let raw = RawDraft { path: "p".into(), unique_by, ..RawDraft::default() };
            let definition = Definition::of("etag", raw.check(Duration::from_secs(60)).unwrap());
            let organisation = "acme".parse().unwrap();
            unique_key(Some(&document), hash::content(b""), &organisation, &definition).unwrap()
        };
        let both = by(&["/a", "/b"]);
        assert_eq!([by(&["/b", "/a"]), by(&["/b", "/a", "/b"])], [both; 2]);
        assert_eq!(by(&["/keys", "/keys"]), by(&[]));
        assert!(by(&["/a"]) != both && by(&["/a"]) != by(&["/b"]));
    }
}
