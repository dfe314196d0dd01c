//! A schema's weight: how many subschemas it unfolds to when every reference is
//! followed. References that meet themselves, and so unfold without end, are refused:
//! with `anyOf` around them a hundred bytes of content could take for ever.

use std::collections::HashMap;

use serde_json::Value;
use sluice_service::text::shown;

/// Deepest chain of subschemas and references.
const DEPTH_MAX: usize = 256;

/// Adds up what a schema unfolds to, each part once.
pub(super) struct Weigher<'a> {
    root: &'a Value,
    /// Regular expressions in it, at most.
    pub(super) patterns: Vec<&'a str>,
    anchors: HashMap<&'a str, &'a Value>,
    /// By place in memory. `None`: being weighed right now.
    known: HashMap<*const Value, Option<u64>>,
}

impl<'a> Weigher<'a> {
    pub(super) fn new(root: &'a Value) -> Result<Self, String> {
        let mut weigher = Self { root, patterns: Vec::new(), anchors: HashMap::new(), known: HashMap::new() };
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
                        ("pattern", Value::String(pattern)) => self.patterns.push(pattern),
                        ("patternProperties", Value::Object(members)) => {
                            self.patterns.extend(members.keys().map(String::as_str));
                        }
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

    pub(super) fn weigh(&mut self, value: &'a Value, depth: usize) -> Result<u64, String> {
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
    pub(super) fn resolve(&self, reference: &str) -> Result<&'a Value, String> {
        let outside = || {
            let place = "a $ref leads to a place in the schema itself, such as #/$defs/x";
            format!("{}: {place}", shown(reference))
        };
        let fragment = reference.strip_prefix('#').ok_or_else(outside)?;
        let found = if fragment.is_empty() || fragment.starts_with('/') {
            self.root.pointer(&percent_decoded(fragment).ok_or_else(outside)?)
        } else {
            self.anchors.get(fragment).copied()
        };
        found.ok_or_else(|| format!("{}: a $ref leads nowhere", shown(reference)))
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
