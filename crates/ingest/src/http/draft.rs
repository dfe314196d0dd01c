//! A definition as JSON, up to the value that both surfaces check.

use serde_json::Value;
use sluice_service::{Error, OrganisationId, Violations, text::shown};

use crate::{definition::RawDraft, json as strict};

/// What is shown and can't be written; taken back so that what was got can be
/// put again.
const SHOWN_ONLY: [&str; 4] = ["id", "account_id", "date_created", "date_updated"];
/// What Alert Logic's SDK wraps a definition in, since its contract names no fields.
const WRAPPER: &str = "data";

/// A definition as written, and the etag that the present one must have.
#[derive(Debug)]
pub struct Given {
    /// The definition.
    pub raw: RawDraft,
    /// Empty: whatever the present one has.
    pub etag: String,
}

/// Reads a definition. `path` is the query's; it may stand in either place. An object
/// whose only member is an object `data` stands for that. The etag of what was got from
/// another account, or is system-wide, says nothing of the one that is written.
///
/// # Errors
/// INVALID_ARGUMENT: no strict JSON object; or every field that is unknown or of
/// the wrong type.
pub fn read(body: &[u8], organisation: Option<OrganisationId>, path: Option<String>) -> Result<Given, Error> {
    let document = strict::parse(body).map_err(|e| {
        Error::invalid_body(format!("not JSON: {} at {:?} (byte {})", e.rule, e.pointer, e.offset))
    })?;
    let object = unwrapped(document.root());
    let Value::Object(fields) = object.to_serde() else {
        return Err(Error::invalid_body("must be a JSON object: a definition"));
    };
    let mut reader = Reader { faults: Violations::default() };
    let mut given = Given { raw: RawDraft { organisation, ..RawDraft::default() }, etag: String::new() };
    for (name, value) in &fields {
        if !value.is_null() {
            reader.field(name, value, object, &mut given);
        }
    }
    let account = given.raw.organisation.as_ref().map(OrganisationId::as_str);
    if fields.get("account_id").is_some_and(|shown| shown.as_str() != account) {
        given.etag.clear();
    }
    match (path, given.raw.path.is_empty()) {
        (Some(path), false) if path != given.raw.path => reader.fault("path", "is another one in the query"),
        (Some(path), _) => given.raw.path = path,
        (None, _) => {}
    }
    reader.faults.none_or(given)
}

/// What stands in a wrapper.
fn unwrapped(value: strict::Value<'_>) -> strict::Value<'_> {
    let mut members = value.entries();
    match (members.next(), members.next()) {
        (Some((key, within)), None) if key.text() == WRAPPER && within.is_object() => within,
        _ => value,
    }
}

/// Collects what is wrong, each with its field.
struct Reader {
    faults: Violations,
}

impl Reader {
    fn fault(&mut self, field: &str, description: &str) {
        self.faults.add(shown(field), description);
    }

    /// The value as the field needs it, or its default and a fault.
    fn want<T: Default>(&mut self, field: &str, value: Option<T>, description: &str) -> T {
        value.unwrap_or_else(|| {
            self.fault(field, description);
            T::default()
        })
    }

    fn text(&mut self, field: &str, value: &Value) -> String {
        self.want(field, value.as_str().map(str::to_owned), "must be a string")
    }

    /// One field of an object.
    fn field(&mut self, name: &str, value: &Value, object: strict::Value<'_>, given: &mut Given) {
        let raw = &mut given.raw;
        let seconds = || value.as_i64().ok_or_else(|| "must be whole seconds".to_owned());
        match name {
            "path" => raw.path = self.text(name, value),
            "description" => raw.description = self.text(name, value),
            "storage_config" => raw.storage_config = self.text(name, value),
            "etag" => given.etag = self.text(name, value),
            "unique" => raw.unique = Some(seconds()),
            "throttle_period" => raw.throttle_period = Some(seconds()),
            "throttle_count" => {
                let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
                raw.throttle_count = self.want(name, count, "must be a whole number up to 4294967295");
            }
            "unique_by" => {
                let texts = value.as_array().and_then(|list| {
                    list.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
                });
                raw.unique_by = self.want(name, texts, "must be a list of JSON pointers");
            }
            "json_schema" => {
                let written = || object.at("/json_schema").map(|schema| schema.raw().to_owned());
                let text = value.as_str().map(str::to_owned).or_else(written);
                raw.json_schema = self.want(name, text, "must be a JSON Schema, as an object or a string");
            }
            "disabled" => raw.disabled = self.want(name, value.as_bool(), "must be true or false"),
            shown if SHOWN_ONLY.contains(&shown) => {}
            unknown => self.fault(unknown, "unknown field"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(body: &str) -> Result<Given, Vec<String>> {
        read(body.as_bytes(), None, Some("a/b".into()))
            .map_err(|error| error.violations().iter().map(|v| v.field.clone()).collect())
    }

    #[test]
    fn every_field_is_read() {
        let body = r#" { "description": "d", "unique": 60, "unique_by": ["/a"], "throttle_count": 2,
            "throttle_period": 5, "json_schema": { "type" : "object" }, "disabled": true, "etag": "e",
            "storage_config": null, "id": "x", "date_created": "y" } "#;
        let Given { raw, etag } = given(body).unwrap();
        assert_eq!((raw.path.as_str(), raw.description.as_str(), etag.as_str()), ("a/b", "d", "e"));
        assert_eq!((raw.unique, raw.throttle_count, raw.throttle_period), (Some(Ok(60)), 2, Some(Ok(5))));
        assert_eq!((raw.json_schema.as_str(), raw.disabled), (r#"{ "type" : "object" }"#, true));
        assert_eq!(given(r#"{"json_schema":"{}"}"#).unwrap().raw.json_schema, "{}");
    }

    #[test]
    fn a_definition_may_come_wrapped() {
        let Given { raw, etag } =
            given(r#" {"data": { "json_schema": { "type" : "object" }, "etag": "e" }} "#).unwrap();
        assert_eq!((raw.json_schema.as_str(), etag.as_str()), (r#"{ "type" : "object" }"#, "e"));
        assert_eq!(given(r#"{"data":{"colour":1}}"#).unwrap_err(), ["colour"]);
        assert_eq!(given(r#"{"data":{"data":{}}}"#).unwrap_err(), ["data"], "once");
        assert_eq!(given(r#"{"data":{},"unique":1}"#).unwrap_err(), ["data"]);
        assert_eq!(given(r#"{"data":"x"}"#).unwrap_err(), ["data"]);
    }

    #[test]
    fn an_etag_counts_for_the_account_it_was_shown_for() {
        let etag = |organisation: Option<&str>, body: &str| {
            let organisation = organisation.map(|name| name.parse().unwrap());
            read(body.as_bytes(), organisation, None).unwrap().etag
        };
        let (shown, system_wide) =
            (r#"{"etag":"e","account_id":"acme"}"#, r#"{"etag":"e","account_id":null}"#);
        assert_eq!([etag(Some("acme"), shown), etag(None, system_wide)], ["e", "e"]);
        assert_eq!(
            [etag(None, shown), etag(Some("globex"), shown), etag(Some("acme"), system_wide)],
            [""; 3]
        );
        assert_eq!(etag(Some("acme"), r#"{"etag":"e"}"#), "e");
    }

    #[test]
    fn what_is_wrong_is_all_named() {
        let body =
            r#"{"path":"c","description":1,"throttle_count":-1,"unique_by":"/a","disabled":"no","colour":1}"#;
        let fields = given(body).unwrap_err();
        assert_eq!(fields, ["colour", "description", "disabled", "throttle_count", "unique_by", "path"]);
        for bad in ["", "[]", "1", "{\"a\":1,\"a\":1}", "{"] {
            assert_eq!(read(bad.as_bytes(), None, None).unwrap_err().reason(), "INVALID_BODY", "{bad}");
        }
    }
}
