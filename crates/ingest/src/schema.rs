//! JSON Schemas that are safe to run on anybody's content: nothing outside of
//! the document is referred to, patterns match in linear time, and the work is
//! bounded. A schema's weight is the number of subschemas it unfolds to when
//! every reference is followed; one value of the content costs that much at
//! most. References that meet themselves, and so unfold without end, are refused:
//! with `anyOf` around them a hundred bytes of content could take for ever.

use std::collections::HashMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::json;

/// Longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Most subschemas a schema may unfold to.
pub const WEIGHT_MAX: u64 = 10_000;
/// Deepest chain of subschemas and references.
const DEPTH_MAX: usize = 256;
/// Most work for one content: its values times the schema's weight.
const WORK_MAX: u64 = 50_000_000;
/// What one pattern may take when it is compiled, in bytes; the next size is tried
/// where one doesn't do.
const PATTERN_BYTES: [usize; 3] = [16 << 10, 256 << 10, 1 << 20];
/// What all patterns of a schema may take: the fewer they are, the larger each may be.
const PATTERNS_BYTES_MAX: usize = 8 << 20;
/// What a compiled subschema takes, in bytes, about.
const SUBSCHEMA_BYTES: u64 = 512;

/// A schema in force.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    weight: u64,
    bytes: u64,
}

/// What a content breaks.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The rule, for people, and the JSON pointer to the value.
    Rule(String, String),
    /// Too many values for this schema.
    TooMuchWork,
}

impl Schema {
    /// Compiles a schema; empty text is none.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn compile(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("must be up to {SCHEMA_BYTES_MAX} bytes"));
        }
        let document =
            json::parse(text.as_bytes()).map_err(|e| format!("not JSON: {} at {}", e.rule, e.pointer))?;
        let schema = document.root().to_serde();
        let mut weigher = Weigher::new(&schema)?;
        let weight = weigher.weigh(&schema, 0)?;
        if weight > WEIGHT_MAX {
            return Err(format!("unfolds to more than {WEIGHT_MAX} subschemas"));
        }
        let (validator, patterns_bytes) = build(&schema, weigher.patterns)?;
        let bytes = (4 * text.len() + 2 * patterns_bytes) as u64 + weight * SUBSCHEMA_BYTES;
        Ok(Some(Self { validator, weight, bytes }))
    }

    /// What it takes in memory, about, as long as one thread at a time matches with it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many subschemas it unfolds to, at least 1.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Holds a content against the schema.
    ///
    /// # Errors
    /// What it breaks first.
    pub fn check(&self, content: &json::Document<'_>) -> Result<(), Broken> {
        if self.weight.saturating_mul(content.len() as u64) > WORK_MAX {
            return Err(Broken::TooMuchWork);
        }
        self.validator
            .validate(&content.root().to_serde())
            .map_err(|broken| Broken::Rule(broken.to_string(), broken.instance_path().to_string()))
    }
}

/// Compiles a schema with so many patterns; says what these may take together.
fn build(schema: &Value, patterns: usize) -> Result<(Validator, usize), String> {
    let mut refused = format!("has more than {} patterns", PATTERNS_BYTES_MAX / PATTERN_BYTES[0]);
    for bytes in PATTERN_BYTES {
        if patterns * bytes > PATTERNS_BYTES_MAX {
            break;
        }
        let options = PatternOptions::regex().size_limit(bytes).dfa_size_limit(bytes);
        let built =
            jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(options).build(schema);
        match built {
            Ok(validator) => return Ok((validator, patterns * bytes)),
            Err(fault) => refused = format!("not a usable JSON Schema (draft 2020-12): {fault}"),
        }
        if patterns == 0 {
            break;
        }
        refused = format!("{refused}; {patterns} patterns may take {bytes} bytes compiled each");
    }
    Err(refused)
}

/// Adds up what a schema unfolds to, each part once.
struct Weigher<'a> {
    root: &'a Value,
    /// Regular expressions in it, at most.
    patterns: usize,
    anchors: HashMap<&'a str, &'a Value>,
    /// By place in memory. `None`: being weighed right now.
    known: HashMap<*const Value, Option<u64>>,
}

impl<'a> Weigher<'a> {
    fn new(root: &'a Value) -> Result<Self, String> {
        let mut weigher = Self { root, patterns: 0, anchors: HashMap::new(), known: HashMap::new() };
        weigher.survey(root)?;
        Ok(weigher)
    }

    /// Finds anchors, and refuses what makes references mean something else.
    fn survey(&mut self, value: &'a Value) -> Result<(), String> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.survey(item)),
            Value::Object(members) => {
                for (key, member) in members {
                    match (key.as_str(), member) {
                        ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                            return Err(format!("{key} is not taken"));
                        }
                        ("$id", Value::String(_)) if !std::ptr::eq(value, self.root) => {
                            return Err("$id is taken at the top only".into());
                        }
                        ("pattern", Value::String(_)) => self.patterns += 1,
                        ("patternProperties", Value::Object(members)) => self.patterns += members.len(),
                        ("$anchor", Value::String(name)) => drop(self.anchors.insert(name, value)),
                        _ => {}
                    }
                    self.survey(member)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn weigh(&mut self, value: &'a Value, depth: usize) -> Result<u64, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested and referred deeper than {DEPTH_MAX} levels"));
        }
        let place = std::ptr::from_ref(value);
        match self.known.get(&place) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => return Err("a $ref leads back to itself".into()),
            None => {}
        }
        let weight = match value {
            Value::Object(members) => {
                self.known.insert(place, None);
                let mut weight = 1_u64;
                for (key, member) in members {
                    let part = match (key.as_str(), member) {
                        ("$ref", Value::String(reference)) => {
                            let target = self.resolve(reference)?;
                            self.weigh(target, depth + 1)?
                        }
                        // Counts where it is referred to. Only at the top, where it
                        // can't be the name of a property.
                        ("$defs" | "definitions", _) if std::ptr::eq(value, self.root) => {
                            self.weigh(member, depth + 1)?;
                            0
                        }
                        _ => self.weigh(member, depth + 1)?,
                    };
                    weight = weight.saturating_add(part);
                }
                weight
            }
            Value::Array(items) => {
                let mut weight = 0_u64;
                for item in items {
                    weight = weight.saturating_add(self.weigh(item, depth + 1)?);
                }
                weight
            }
            _ => 0,
        };
        if value.is_object() {
            self.known.insert(place, Some(weight));
        }
        Ok(weight)
    }

    /// What a reference leads to: within the document, by pointer or anchor.
    fn resolve(&self, reference: &str) -> Result<&'a Value, String> {
        let outside =
            || format!("{reference}: a $ref leads to a place in the schema itself, such as #/$defs/x");
        let fragment = reference.strip_prefix('#').ok_or_else(outside)?;
        let found = if fragment.is_empty() || fragment.starts_with('/') {
            self.root.pointer(&percent_decoded(fragment).ok_or_else(outside)?)
        } else {
            self.anchors.get(fragment).copied()
        };
        found.ok_or_else(|| format!("{reference}: a $ref leads nowhere"))
    }
}

/// A URI fragment's text (RFC 3986), or `None` if it is malformed.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<u64, String> {
        Schema::compile(text).map(|schema| schema.map_or(0, |schema| schema.weight()))
    }

    fn check(schema: &str, content: &str) -> Result<(), Broken> {
        let schema = Schema::compile(schema).unwrap().unwrap();
        schema.check(&json::parse(content.as_bytes()).unwrap())
    }

    #[test]
    fn references_within_the_document_are_followed() {
        let schema = r##"{"$defs":{"a b":{"type":"string"},"n":{"$anchor":"num","type":"number"}},
            "properties":{"x":{"$ref":"#/$defs/a%20b"},"y":{"$ref":"#num"}}}"##;
        assert!(check(schema, r#"{"x":"s","y":1}"#).is_ok());
        assert!(matches!(check(schema, r#"{"x":1}"#), Err(Broken::Rule(_, place)) if place == "/x"));
        assert!(check(schema, r#"{"y":"s"}"#).is_err());
    }

    #[test]
    fn references_that_lead_outside_or_nowhere_are_refused() {
        for reference in [
            "https://example.com/schema.json",
            "file:///etc/passwd",
            "other.json",
            "#/$defs/absent",
            "#absent",
            "#/%zz",
        ] {
            assert!(compile(&format!(r#"{{"$ref":"{reference}"}}"#)).is_err(), "{reference}");
        }
        assert!(compile(r#"{"$ref":"https://json-schema.org/draft/2020-12/schema"}"#).is_err());
        assert!(compile(r##"{"$dynamicRef":"#x"}"##).is_err());
        assert!(compile(r#"{"$id":"https://example.com/top"}"#).is_ok());
        assert!(compile(r#"{"$defs":{"a":{"$id":"https://example.com/inner"}}}"#).is_err());
    }

    #[test]
    fn references_that_unfold_without_end_are_refused() {
        for endless in [
            r##"{"$ref":"#"}"##,
            r##"{"anyOf":[{"type":"integer"},{"properties":{"x":{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}}}]}"##,
            r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
            r##"{"properties":{"children":{"items":{"$ref":"#"}}}}"##,
        ] {
            assert_eq!(compile(endless), Err("a $ref leads back to itself".into()), "{endless}");
        }
    }

    #[test]
    fn a_schema_unfolds_up_to_its_bound() {
        // Doubles with each level, without any cycle.
        let doubling = |levels: usize| {
            let next =
                |n: usize| format!(r##"{{"anyOf":[{{"$ref":"#/$defs/d{n}"}},{{"$ref":"#/$defs/d{n}"}}]}}"##);
            let defs: Vec<String> = (0..levels).map(|n| format!(r#""d{n}":{}"#, next(n + 1))).collect();
            format!(r##"{{"$defs":{{{},"d{levels}":{{}}}},"$ref":"#/$defs/d0"}}"##, defs.join(","))
        };
        assert!(compile(&doubling(8)).is_ok());
        assert_eq!(compile(&doubling(40)), Err(format!("unfolds to more than {WEIGHT_MAX} subschemas")));
        let hidden = doubling(20).replacen(
            "\"$ref\":\"#/$defs/d0\"",
            r##""properties":{"definitions":{"$ref":"#/$defs/d0"}}"##,
            1,
        );
        assert!(hidden.contains("properties") && compile(&hidden).is_err(), "{hidden}");
        let wide = |n: u64| format!(r#"{{"anyOf":[{}]}}"#, vec!["{}"; usize::try_from(n).unwrap()].join(","));
        assert_eq!(compile(&wide(WEIGHT_MAX - 1)), Ok(WEIGHT_MAX));
        assert!(compile(&wide(WEIGHT_MAX)).is_err());
    }

    #[test]
    fn patterns_are_bounded_in_number_and_size() {
        let each = |count: usize, pattern: &str| {
            let properties: Vec<String> =
                (0..count).map(|n| format!(r#""p{n}":{{"pattern":"{pattern}"}}"#)).collect();
            format!(r#"{{"properties":{{{}}}}}"#, properties.join(","))
        };
        assert!(compile(&each(512, "^a+$")).is_ok());
        assert_eq!(compile(&each(513, "^a+$")), Err("has more than 512 patterns".into()));
        // A letter is one of 140,000: five of them in a row take more than 16 KiB.
        let (medium, large) = (r"\\p{L}{5}", r"\\p{L}{20}");
        for (most, pattern) in [(32, medium), (8, large)] {
            assert_eq!(compile(&each(most, pattern)).err(), None);
            let refused = compile(&each(most + 1, pattern)).unwrap_err();
            assert!(refused.contains("bytes compiled each"), "{refused}");
        }
        assert!(compile(&each(1, r"\\p{L}{40}")).is_err());
        let names: Vec<String> = (0..513).map(|n| format!(r#""^{n}":{{}}"#)).collect();
        let by_name = format!(r#"{{"patternProperties":{{{}}}}}"#, names.join(","));
        assert_eq!(compile(&by_name), Err("has more than 512 patterns".into()));
    }

    #[test]
    fn work_is_bounded_on_both_sides() {
        let schema = format!(r#"{{"items":{{"anyOf":[{}]}}}}"#, vec!["{}"; 4998].join(","));
        let content = |items: usize| format!("[{}]", vec!["1"; items].join(","));
        // A weight of 5,000 leaves room for 10,000 values.
        assert_eq!(compile(&schema), Ok(5000));
        assert_eq!(check(&schema, &content(9_999)), Ok(()));
        assert_eq!(check(&schema, &content(10_000)), Err(Broken::TooMuchWork));
    }

    #[test]
    fn a_chain_of_references_is_bounded() {
        let chain = |levels: usize| {
            let defs: Vec<String> =
                (0..levels).map(|n| format!(r##""d{n}":{{"$ref":"#/$defs/d{}"}}"##, n + 1)).collect();
            format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{levels}":{{}}}}}}"##, defs.join(","))
        };
        assert_eq!(compile(&chain(200)).err(), None);
        assert!(compile(&chain(300)).is_err());
    }
}
