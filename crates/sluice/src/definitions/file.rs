//! Definitions as files have them: JSON, named as in the contract, with
//! durations in seconds or as text and a schema as text or as an object.

use serde::Deserialize;
use serde_json::Value;
use sluice_proto::ingest::v1::Definition;

use crate::{
    failure::Failure,
    text::{parse_seconds, to_proto},
};

/// A definition as files have it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    path: String,
    description: String,
    unique: Option<WrittenSeconds>,
    unique_by: Vec<String>,
    throttle_count: u32,
    throttle_period: Option<WrittenSeconds>,
    json_schema: Value,
    storage_config: String,
    disabled: bool,
    etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WrittenSeconds {
    Number(u64),
    Text(String),
}

impl WrittenSeconds {
    fn to_proto(&self) -> Result<prost_types::Duration, Failure> {
        match self {
            Self::Number(seconds) => Ok(to_proto(*seconds)),
            Self::Text(text) => parse_seconds(text).map(to_proto).map_err(Failure::unusable),
        }
    }
}

impl Written {
    fn into_definition(self, organisation: &str) -> Result<Definition, Failure> {
        Ok(Definition {
            organisation: organisation.into(),
            path: self.path,
            description: self.description,
            unique: self.unique.as_ref().map(WrittenSeconds::to_proto).transpose()?,
            unique_by: self.unique_by,
            throttle_count: self.throttle_count,
            throttle_period: self.throttle_period.as_ref().map(WrittenSeconds::to_proto).transpose()?,
            json_schema: match self.json_schema {
                Value::Null => String::new(),
                Value::String(text) => text,
                schema => schema.to_string(),
            },
            storage_config: self.storage_config,
            disabled: self.disabled,
            etag: self.etag,
            ..Definition::default()
        })
    }
}

/// Reads one definition or a list of them.
pub(crate) fn read_definitions(text: &str, organisation: &str) -> Result<Vec<Definition>, Failure> {
    let value: Value = serde_json::from_str(text).map_err(|fault| Failure::unusable(fault.to_string()))?;
    let list = if let Value::Array(list) = value { list } else { vec![value] };
    let written = list.into_iter().map(|one| {
        let written: Written =
            serde_json::from_value(one).map_err(|fault| Failure::unusable(fault.to_string()))?;
        written.into_definition(organisation)
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::proto_seconds;

    #[test]
    fn a_file_holds_one_definition_or_many() {
        let one = read_definitions(r#"{"path":"a/b","unique":"1d","throttle_count":0}"#, "acme").unwrap();
        assert_eq!((one[0].path.as_str(), one[0].organisation.as_str()), ("a/b", "acme"));
        assert_eq!(proto_seconds(one[0].unique.as_ref()), Some(86_400));
        let many = r#"[{"path":"a","unique":60},{"path":"b","json_schema":{"type":"object"}}]"#;
        let many = read_definitions(many, "").unwrap();
        assert_eq!(proto_seconds(many[0].unique.as_ref()), Some(60));
        assert_eq!(many[1].json_schema, r#"{"type":"object"}"#);
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let failure = read_definitions(r#"{"path":"a","uniqe":1}"#, "acme").unwrap_err();
        assert!(failure.to_string().contains("uniqe") && failure.exit() == 2);
    }
}
