//! JSON Schemas that are safe to run on anybody's content: nothing outside of
//! the document is referred to, patterns match in linear time, and the work is
//! bounded: in memory by the schema's weight, and in time by the price of each content
//! under it. A check can't be broken off, so one that may take longer than a second is
//! not begun.

mod graph;
mod patterns;
mod peak;
mod price;
mod rules;
mod weigh;

use std::{
    cell::LazyCell,
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use sluice_service::text::shown;

use crate::json;
use graph::Graph;
use patterns::Pattern;
use peak::Peak;
use price::Price;
use rules::{Pricer, Rule};
use weigh::Weight;

/// Longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Most subschemas a schema may unfold to.
pub const WEIGHT_MAX: u64 = 10_000;
/// What the check of one content may take, in nanoseconds, about.
const WORK_MAX: u64 = 1_000_000_000;
/// The same of the part whose every fault is gathered before one of them is told; each
/// takes about a kilobyte meanwhile, and says where it is.
const GATHERED_MAX: u64 = 1_000_000;
const FAULT_BYTES: u64 = 1024;
/// What one pattern may take when it is compiled, in bytes; the next size is tried
/// where one doesn't do.
const PATTERN_BYTES: [usize; 3] = [16 << 10, 256 << 10, 1 << 20];
/// What all patterns of a schema may take: the fewer they are, the larger each may be.
const PATTERNS_BYTES_MAX: usize = 8 << 20;
/// What the caches of all patterns of a schema may take, and that of one of them.
const CACHES_BYTES_MAX: usize = 4 << 20;
const CACHE_BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;
/// What a compiled subschema takes, in bytes, about.
const SUBSCHEMA_BYTES: u64 = 512;

/// A schema in force.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    rules: Vec<Rule>,
    /// Whether only a content bounds how deep a check goes; see [`Weight::recursive`].
    recursive: bool,
    peak: Peak,
    bytes: u64,
    /// What its slowest pattern takes for 16 bytes of text, in nanoseconds.
    slowest: u64,
}

/// What a content breaks.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The rule, for people, and the JSON pointer to the value.
    Rule(String, String),
    /// One that takes too much to be told.
    Untold,
    /// Holding it against this schema could take too long.
    TooMuchWork,
}

impl Schema {
    /// Compiles a schema. No pattern is too slow here: one that is kept may have been put
    /// by an earlier build with other limits, and what it takes is counted for each content.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("must be up to {SCHEMA_BYTES_MAX} bytes"));
        }
        let document = json::parse(text.as_bytes())
            .map_err(|e| format!("not JSON: {} at {}", e.rule, shown(&e.pointer)))?;
        let schema = document.root().to_serde();
        let graph = Graph::read(&schema)?;
        let Weight { subschemas, recursive } = Weight::of(&graph)?;
        let count = graph.patterns.len();
        let cache_bytes = (CACHES_BYTES_MAX / count.max(1)).clamp(*CACHE_BYTES.start(), *CACHE_BYTES.end());
        let marks = graph.parts.iter().any(|part| part.marks > 0);
        let held = (recursive && marks).then(|| held(&schema, &graph));
        let (validator, compiled_bytes) = build(held.as_ref().unwrap_or(&schema), count, cache_bytes)?;
        let mut patterns = HashMap::new();
        for &pattern in &graph.patterns {
            patterns.entry(pattern).or_insert_with(|| Pattern::measure(pattern, count, cache_bytes));
        }
        let rules = Pricer { graph: &graph, patterns: &patterns, recursive }.rules();
        let peak = Peak::of(&graph, &rules);
        let slowest = patterns.values().map(|pattern| pattern.text).max().unwrap_or(0);
        let caches_bytes: usize = patterns.values().map(|pattern| pattern.bytes).sum();
        let bytes = (8 * text.len() + compiled_bytes + caches_bytes) as u64 + subschemas * SUBSCHEMA_BYTES;
        Ok(Self { validator, rules, recursive, peak, bytes, slowest })
    }

    /// Whether a schema may be put.
    ///
    /// # Errors
    /// Why not.
    pub fn accept(text: &str) -> Result<(), String> {
        if Self::compile(text)?.slowest > Pattern::TEXT_MAX {
            return Err(
                "a pattern takes too long to match: use smaller counts, or maxLength beside it".into()
            );
        }
        Ok(())
    }

    /// What it takes in memory, about, as long as one thread at a time matches with it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a content of so many bytes may take at most, in nanoseconds, about.
    #[must_use]
    pub fn work(&self, bytes: usize) -> u64 {
        // A value and what separates it from the next have at least two bytes.
        self.peak.at_most(bytes as u64 / 2 + 1, bytes as u64).min(WORK_MAX)
    }

    /// Holds a content against the schema.
    ///
    /// # Errors
    /// What it breaks first.
    pub fn check(&self, content: &json::Document<'_>) -> Result<(), Broken> {
        let root = content.root();
        let at_most = self.peak.at_most(content.len() as u64, root.bytes() as u64);
        // Told at most once, and for most contents never.
        let price = LazyCell::new(|| Price::of(root, &self.rules, WORK_MAX));
        if (self.recursive || at_most > WORK_MAX) && price.total > WORK_MAX {
            return Err(Broken::TooMuchWork);
        }
        // A batch is not to fail for one content that the library fails at.
        catch_unwind(AssertUnwindSafe(|| self.hold(root, at_most, || (price.gathered, price.longest_path))))
            .unwrap_or_else(|_| {
                let rule = "can't be held against the schema: the way its references lead is not followed";
                Err(Broken::Rule(rule.into(), String::new()))
            })
    }

    /// The same, where it takes no more than `at_most`. `gathered` tells what of that may be
    /// gathered about faults, and bytes of the longest way to one.
    fn hold(
        &self,
        content: json::Value<'_>,
        at_most: u64,
        gathered: impl FnOnce() -> (u64, u64),
    ) -> Result<(), Broken> {
        let value = content.to_serde();
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        // Most contents are small, and then that is all there is to gather.
        let is_too_much = |gathered: u64, path_bytes: u64| {
            gathered.saturating_mul(1 + path_bytes / FAULT_BYTES) > GATHERED_MAX
        };
        if is_too_much(at_most, content.bytes() as u64) {
            let (gathered, longest_path) = gathered();
            if is_too_much(gathered, longest_path) {
                return Err(Broken::Untold);
            }
        }
        self.validator
            .validate(&value)
            .map_err(|broken| Broken::Rule(broken.to_string(), broken.instance_path().to_string()))
    }
}

/// The same schema with a property that no content has, since U+0000 is refused, and that
/// refers to all that is referred to. References that lead back hold only weakly what
/// they lead to; where `unevaluatedProperties` or `unevaluatedItems` have parts compiled
/// for themselves, nothing else may hold it, and the library panics when it gets there.
fn held(schema: &Value, graph: &Graph<'_>) -> Value {
    let references = graph.parts.iter().filter_map(|part| part.schema.get("$ref")?.as_str());
    let references: BTreeSet<&str> = references.collect();
    let all: Vec<Value> = references.into_iter().map(|to| serde_json::json!({"$ref": to})).collect();
    let mut schema = schema.clone();
    let root = schema.as_object_mut();
    let properties = root.map(|root| root.entry("properties").or_insert_with(|| serde_json::json!({})));
    if let Some(Value::Object(properties)) = properties {
        properties.insert("\0".into(), serde_json::json!({"allOf": all}));
    }
    schema
}

/// Compiles a schema with so many patterns, each with a cache of so many bytes; says
/// what these may take together when they are compiled.
fn build(schema: &Value, patterns: usize, cache_bytes: usize) -> Result<(Validator, usize), String> {
    let mut refused = format!("has more than {} patterns", PATTERNS_BYTES_MAX / PATTERN_BYTES[0]);
    for bytes in PATTERN_BYTES {
        if patterns * bytes > PATTERNS_BYTES_MAX {
            break;
        }
        let options = PatternOptions::regex().size_limit(bytes).dfa_size_limit(cache_bytes);
        // A subschema may name another draft, in which `format` is asserted.
        let built = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(false)
            .with_pattern_options(options)
            .build(schema);
        match built {
            Ok(validator) => return Ok((validator, patterns * bytes)),
            Err(fault) => {
                let fault = shown(&fault.to_string());
                refused = format!("not a usable JSON Schema (draft 2020-12): {fault}");
            }
        }
        if patterns == 0 {
            break;
        }
        refused = format!("{refused}; {patterns} patterns may take {bytes} bytes compiled each");
    }
    Err(refused)
}

#[cfg(test)]
mod tests;
