//! A schema as far as its price goes: for each of its parts, what it takes at a value,
//! and which other parts the value and those in it meet.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::{
    graph::Graph,
    patterns::Pattern,
    price::{DECODED, DIVISION, GUARD, KEYWORD, LOOKUP, MATCH, NAME, STRING, VISIT},
};

/// What a part of a schema takes. Others are named by their index.
#[derive(Debug, Default)]
pub(super) struct Rule {
    /// At any value.
    pub(super) own: u64,
    /// More for each part that is underway around it.
    pub(super) guard: u64,
    /// At any value that is not one of those told apart at once; see [`compared`].
    pub(super) compared: u64,
    pub(super) integers: bool,
    /// At an object.
    pub(super) object: u64,
    /// At each member of an object, and for 16 bytes of its name.
    pub(super) member: u64,
    pub(super) name: u64,
    /// For 16 bytes of a string.
    pub(super) text: u64,
    /// At an array, for each value in it.
    pub(super) unique: u64,
    /// For the same value: gone through once more to find out what of it was looked at.
    pub(super) here: Vec<usize>,
    /// The same; not gone through for that.
    pub(super) once: Vec<usize>,
    /// For members by their names, and elements by their position.
    pub(super) named: HashMap<String, usize>,
    pub(super) placed: Vec<usize>,
    /// For members and elements whatever they are called.
    pub(super) members: Within,
    pub(super) elements: Within,
    /// For the names of members.
    pub(super) names: Vec<usize>,
    /// Whether it asks what of the value was looked at.
    pub(super) marks: bool,
    /// Whether it gathers all that is wrong before it says that it is.
    pub(super) gathers: bool,
}

/// Parts for the members of an object, or the elements of an array.
#[derive(Debug, Default)]
pub(super) struct Within {
    pub(super) each: Vec<usize>,
    /// For those that have none of their own.
    pub(super) others: Vec<usize>,
    /// For each, and once more to find out what was looked at.
    pub(super) again: Vec<usize>,
}

impl Within {
    pub(super) fn len(&self) -> usize {
        self.each.len() + self.others.len() + self.again.len()
    }
}

/// Makes the rules of a schema, one for each of its parts.
pub(super) struct Pricer<'a, 'g> {
    pub(super) graph: &'g Graph<'a>,
    pub(super) patterns: &'g HashMap<&'a str, Pattern>,
    pub(super) recursive: bool,
}

impl<'a> Pricer<'a, '_> {
    pub(super) fn rules(&self) -> Vec<Rule> {
        (0..self.graph.parts.len()).map(|part| self.rule(part)).collect()
    }

    fn rule(&self, part: usize) -> Rule {
        let mut rule = Rule { own: VISIT, ..Rule::default() };
        let Json::Object(keywords) = self.graph.parts[part].schema else { return rule };
        for (keyword, value) in keywords {
            rule.own += KEYWORD;
            self.keyword(keyword, value, &mut rule);
        }
        if let Some(target) = self.graph.referred(part) {
            rule.once.push(target);
            rule.guard = if self.recursive { GUARD } else { 0 };
        }
        rule
    }

    fn keyword(&self, keyword: &'a str, value: &'a Json, rule: &mut Rule) {
        match (keyword, value) {
            ("allOf" | "anyOf" | "oneOf", Json::Array(parts)) => {
                rule.gathers |= keyword != "allOf";
                rule.here.extend(self.all(parts));
            }
            ("if", part) => rule.here.extend(self.graph.at(part)),
            ("not" | "then" | "else", part) => rule.once.extend(self.graph.at(part)),
            ("dependentSchemas" | "dependencies", Json::Object(parts)) => {
                let names = parts.values().map(|part| part.as_array().map_or(0, Vec::len));
                rule.object += LOOKUP * (parts.len() + names.sum::<usize>()) as u64;
                rule.once.extend(self.all(parts.values()));
            }
            ("properties", Json::Object(parts)) => {
                rule.object += LOOKUP * parts.len() as u64;
                rule.member += LOOKUP;
                let part = |(name, part): (&String, _)| Some((name.clone(), self.graph.at(part)?));
                rule.named.extend(parts.iter().filter_map(part));
            }
            ("patternProperties", Json::Object(parts)) => self.named_by_pattern(parts, rule),
            ("prefixItems" | "items", Json::Array(parts)) => rule.placed.extend(self.all(parts)),
            ("additionalProperties", part) => {
                rule.member += LOOKUP;
                rule.members.others.extend(self.graph.at(part));
            }
            ("items", part) => rule.elements.others.extend(self.graph.at(part)),
            ("additionalItems", part) => rule.elements.each.extend(self.graph.at(part)),
            ("contains", part) => rule.elements.again.extend(self.graph.at(part)),
            ("unevaluatedProperties", part) => {
                rule.marks = true;
                rule.members.again.extend(self.graph.at(part));
            }
            ("unevaluatedItems", part) => {
                rule.marks = true;
                rule.elements.again.extend(self.graph.at(part));
            }
            ("propertyNames", part) => {
                rule.member += NAME;
                rule.names.extend(self.graph.at(part));
            }
            ("pattern", Json::String(pattern)) => {
                rule.own += MATCH;
                rule.text += self.patterns.get(&**pattern).map_or(0, |pattern| pattern.text);
            }
            ("enum", Json::Array(values)) => compared(values, rule),
            ("const", value) => compared(std::slice::from_ref(value), rule),
            ("required", Json::Array(names)) => rule.object += LOOKUP * names.len() as u64,
            ("dependentRequired", Json::Object(lists)) => {
                let names: usize = lists.values().map(|list| list.as_array().map_or(1, Vec::len)).sum();
                rule.object += LOOKUP * (lists.len() + names) as u64;
            }
            ("minLength" | "maxLength", _) => rule.text += STRING,
            // Only other drafts assert these.
            ("contentMediaType" | "contentEncoding", _) if self.graph.drafts => rule.text += DECODED,
            ("multipleOf", _) => rule.own += DIVISION,
            ("uniqueItems", _) => rule.unique += 2 * LOOKUP,
            _ => {}
        }
    }

    fn all(&self, parts: impl IntoIterator<Item = &'a Json>) -> impl Iterator<Item = usize> {
        parts.into_iter().filter_map(|part| self.graph.at(part))
    }

    /// Twice, since `additionalProperties` asks, too. Any name may match.
    fn named_by_pattern(&self, parts: &'a Map<String, Json>, rule: &mut Rule) {
        for (pattern, part) in parts {
            rule.member += 2 * MATCH;
            rule.name += 2 * self.patterns.get(&**pattern).map_or(0, |pattern| pattern.text);
            rule.members.each.extend(self.graph.at(part));
        }
    }
}

/// Values that the schema names: told apart at once if they are all strings, or, of a
/// content that is an integer, all integers. Else they are gone through.
fn compared(values: &[Json], rule: &mut Rule) {
    fn parts(value: &Json) -> u64 {
        match value {
            Json::Array(items) => 1 + items.iter().map(parts).sum::<u64>(),
            Json::Object(members) => 1 + members.values().map(|value| 1 + parts(value)).sum::<u64>(),
            _ => 1,
        }
    }
    rule.text += STRING;
    if values.iter().all(|value| value.is_string() || value.is_null()) {
        rule.own += LOOKUP;
        return;
    }
    rule.integers = rule.compared == 0 && values.iter().all(|value| value.is_i64() || value.is_null());
    rule.compared += LOOKUP * values.iter().map(parts).sum::<u64>();
}
