//! What it takes to hold a content against a schema, in nanoseconds, about: told from
//! the content and the schema beforehand, since a check can't be broken off. It goes
//! where the validator would go, except that it assumes that nothing is cut short, and
//! counts what is done there.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value as Json};

use super::{Weigher, patterns::Pattern};
use crate::json;

/// A visit to a value with a schema.
const VISIT: u64 = 20;
/// What a keyword takes at a value.
const KEYWORD: u64 = 20;
/// More for a keyword that divides.
const DIVISION: u64 = 300;
/// Asking an object for a member, or comparing with a value that the schema names.
const LOOKUP: u64 = 20;
/// Asking a pattern for anything, however short.
const MATCH: u64 = 100;
/// Making a value of a member's name.
const NAME: u64 = 80;
/// Telling of an object's member, or an array's element, whether it was looked at.
const MARK: u64 = 50;
/// Going over 16 bytes of a string to count, hash or compare them.
const STRING: u64 = 2;

/// A schema as far as its price goes.
#[derive(Debug, Default)]
pub(super) struct Rule {
    /// At any value.
    own: u64,
    /// At any value that is not one of those told apart at once; see [`compared`].
    compared: u64,
    integers: bool,
    /// At an object.
    object: u64,
    /// At each member of an object, and for 16 bytes of its name.
    member: u64,
    name: u64,
    /// For 16 bytes of a string.
    text: u64,
    /// At an array, for each value in it.
    unique: u64,
    /// Rules for the same value.
    here: Vec<Arc<Rule>>,
    /// For members by their names, and for elements by their position.
    named: HashMap<String, Arc<Rule>>,
    placed: Vec<Arc<Rule>>,
    /// For all members and elements.
    each: Vec<Arc<Rule>>,
    /// For all members and elements that nothing else has looked at: to find these, all
    /// that is `here` is gone through once more.
    rest: Vec<Arc<Rule>>,
    marks: bool,
    /// For the names of members.
    names: Vec<Arc<Rule>>,
    /// Whether it gathers all that is wrong before it says that it is.
    gathers: bool,
    peak: Peak,
}

/// The most that one value may take, wherever it is, and for 16 bytes of a string: in
/// itself, and to find out what of it was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Peak {
    value: u64,
    text: u64,
    marked_value: u64,
    marked_text: u64,
}

/// What a value takes: to be valid, and to find out what of it was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    valid: u64,
    marked: u64,
}

/// Makes the rules of a schema, each part of it once.
pub(super) struct Pricer<'a, 'w> {
    pub(super) weigher: &'w Weigher<'a>,
    pub(super) patterns: &'w HashMap<&'a str, Pattern>,
    known: HashMap<*const Json, Arc<Rule>>,
}

impl<'a, 'w> Pricer<'a, 'w> {
    pub(super) fn new(weigher: &'w Weigher<'a>, patterns: &'w HashMap<&'a str, Pattern>) -> Self {
        Self { weigher, patterns, known: HashMap::new() }
    }

    /// The rule of a part of the schema. None of its references leads back to itself.
    pub(super) fn rule(&mut self, schema: &'a Json) -> Result<Arc<Rule>, String> {
        let Json::Object(keywords) = schema else {
            return Ok(Arc::new(Rule { own: VISIT, ..Rule::default() }.peaked()));
        };
        let place = std::ptr::from_ref(schema);
        if let Some(known) = self.known.get(&place) {
            return Ok(known.clone());
        }
        let mut rule = Rule { own: VISIT, ..Rule::default() };
        for (keyword, value) in keywords {
            rule.own += KEYWORD;
            self.keyword(keyword, value, &mut rule)?;
        }
        let rule = Arc::new(rule.peaked());
        self.known.insert(place, rule.clone());
        Ok(rule)
    }

    fn keyword(&mut self, keyword: &'a str, value: &'a Json, rule: &mut Rule) -> Result<(), String> {
        match (keyword, value) {
            ("$ref", Json::String(reference)) => {
                let target = self.weigher.resolve(reference)?;
                rule.here.push(self.rule(target)?);
            }
            ("allOf" | "anyOf" | "oneOf", Json::Array(parts)) => {
                rule.gathers |= keyword != "allOf";
                self.all(parts, &mut rule.here)?;
            }
            ("not" | "if" | "then" | "else", part) => rule.here.push(self.rule(part)?),
            ("dependentSchemas" | "dependencies", Json::Object(parts)) => {
                rule.object += LOOKUP * parts.len() as u64;
                for part in parts.values() {
                    match part {
                        Json::Array(names) => rule.object += LOOKUP * names.len() as u64,
                        part => rule.here.push(self.rule(part)?),
                    }
                }
            }
            ("properties", Json::Object(parts)) => {
                rule.object += LOOKUP * parts.len() as u64;
                rule.member += LOOKUP;
                for (name, part) in parts {
                    rule.named.insert(name.clone(), self.rule(part)?);
                }
            }
            ("patternProperties", Json::Object(parts)) => self.named_by_pattern(parts, rule)?,
            ("prefixItems" | "items", Json::Array(parts)) => self.all(parts, &mut rule.placed)?,
            ("additionalProperties" | "items" | "additionalItems" | "contains", part) => {
                rule.member += LOOKUP;
                rule.each.push(self.rule(part)?);
            }
            ("unevaluatedProperties" | "unevaluatedItems", part) => {
                rule.marks = true;
                rule.rest.push(self.rule(part)?);
            }
            ("propertyNames", part) => {
                rule.member += NAME;
                rule.names.push(self.rule(part)?);
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
            ("multipleOf", _) => rule.own += DIVISION,
            ("uniqueItems", _) => rule.unique += 2 * LOOKUP,
            _ => {}
        }
        Ok(())
    }

    fn all(&mut self, parts: &'a [Json], into: &mut Vec<Arc<Rule>>) -> Result<(), String> {
        for part in parts {
            into.push(self.rule(part)?);
        }
        Ok(())
    }

    /// Twice, since `additionalProperties` asks, too. Any name may match.
    fn named_by_pattern(&mut self, parts: &'a Map<String, Json>, rule: &mut Rule) -> Result<(), String> {
        for (pattern, part) in parts {
            rule.member += 2 * MATCH;
            rule.name += 2 * self.patterns.get(&**pattern).map_or(0, |pattern| pattern.text);
            rule.each.push(self.rule(part)?);
        }
        Ok(())
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

impl Rule {
    /// The same, with its peak.
    fn peaked(mut self) -> Self {
        let sum = |rules: &[Arc<Rule>]| rules.iter().map(|rule| rule.peak).fold(Peak::default(), Peak::and);
        let strings = if self.unique > 0 { STRING } else { 0 };
        let own = Peak::of(self.own + self.compared + self.object, self.text);
        let name = Peak::of(self.member, self.name).and(sum(&self.names));
        // The values of an array are hashed for each array around them.
        let named = self.named.values().chain(&self.placed).map(|rule| rule.peak);
        let child = named.fold(Peak::default(), Peak::larger).and(sum(&self.each)).and(sum(&self.rest));
        let child = child.and(Peak::of(self.unique, strings));
        let here = sum(&self.here);
        let mut peak = own.larger(name).larger(child).and(here);
        let rest = sum(&self.rest);
        // Of the values within, nothing is marked here.
        peak.marked_value = (MARK + self.member).saturating_add(here.marked_value);
        peak.marked_value = peak.marked_value.saturating_add(here.value).saturating_add(rest.value);
        peak.marked_text = self.name.saturating_add(here.marked_text);
        peak.marked_text = peak.marked_text.saturating_add(here.text).saturating_add(rest.text);
        if self.marks {
            peak.value = peak.value.saturating_add(peak.marked_value);
            peak.text = peak.text.saturating_add(peak.marked_text);
        }
        self.peak = peak;
        self
    }

    /// What a content may take at most that has so many values and bytes of strings.
    pub(super) fn at_most(&self, values: u64, bytes: u64) -> u64 {
        // Each string ends within 16 bytes that are not full.
        let pieces = (bytes / 16).saturating_add(values);
        values.saturating_mul(self.peak.value).saturating_add(pieces.saturating_mul(self.peak.text))
    }
}

impl Peak {
    fn of(value: u64, text: u64) -> Self {
        Self { value, text, ..Self::default() }
    }

    fn larger(self, other: Self) -> Self {
        Self {
            value: self.value.max(other.value),
            text: self.text.max(other.text),
            marked_value: self.marked_value.max(other.marked_value),
            marked_text: self.marked_text.max(other.marked_text),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            value: self.value.saturating_add(other.value),
            text: self.text.saturating_add(other.text),
            marked_value: self.marked_value.saturating_add(other.marked_value),
            marked_text: self.marked_text.saturating_add(other.marked_text),
        }
    }
}

impl Cost {
    const MAX: Self = Self { valid: u64::MAX, marked: u64::MAX };

    fn add(&mut self, valid: u64, marked: u64) {
        self.valid = self.valid.saturating_add(valid);
        self.marked = self.marked.saturating_add(marked);
    }
}

/// The price of one content.
pub(super) struct Price {
    /// Visits that are left before it is too much in any case.
    visits: u64,
    /// Of the largest part that is gathered from.
    pub(super) gathered: u64,
}

impl Price {
    /// A price of up to so much; what is more is not counted to the end.
    pub(super) fn up_to(max: u64) -> Self {
        Self { visits: max / VISIT, gathered: 0 }
    }

    /// Of a content under a rule.
    pub(super) fn of(&mut self, content: json::Value<'_>, rule: &Rule) -> u64 {
        self.cost(content, rule).valid
    }

    fn cost(&mut self, value: json::Value<'_>, rule: &Rule) -> Cost {
        let Some(visits) = self.visits.checked_sub(1) else { return Cost::MAX };
        self.visits = visits;
        let mut cost = Cost { valid: rule.own, marked: MARK };
        if !(rule.integers && value.is_short_integer()) {
            cost.add(rule.compared, 0);
        }
        if value.is_string() {
            cost.add(pieces(value) * rule.text, 0);
        } else if value.is_array() {
            self.array(value, rule, &mut cost);
        } else if value.is_object() {
            self.object(value, rule, &mut cost);
        }
        let mut gathered = 0_u64;
        for part in &rule.here {
            let part = self.cost(value, part);
            gathered = gathered.saturating_add(part.valid);
            cost.add(part.valid, part.marked.saturating_add(part.valid));
        }
        if rule.gathers {
            self.gathered = self.gathered.max(gathered);
        }
        if rule.marks {
            cost.valid = cost.valid.saturating_add(cost.marked);
        }
        cost
    }

    fn array(&mut self, value: json::Value<'_>, rule: &Rule, cost: &mut Cost) {
        if rule.unique > 0 {
            cost.add(rule.unique * value.len() as u64 + pieces(value) * STRING, 0);
        }
        if rule.each.is_empty() && rule.placed.is_empty() && !rule.marks {
            return;
        }
        for (at, element) in value.elements().enumerate() {
            cost.add(0, MARK);
            for part in rule.placed.get(at).into_iter().chain(&rule.each) {
                cost.add(self.cost(element, part).valid, 0);
            }
            self.rest(element, rule, cost);
        }
    }

    fn object(&mut self, value: json::Value<'_>, rule: &Rule, cost: &mut Cost) {
        cost.add(rule.object, 0);
        for (name, member) in value.entries() {
            let asked = rule.member + rule.name.saturating_mul(pieces(name));
            cost.add(asked, asked.saturating_add(MARK));
            let named = if rule.named.is_empty() { None } else { rule.named.get(&*name.text()) };
            for part in named.into_iter().chain(&rule.each) {
                cost.add(self.cost(member, part).valid, 0);
            }
            for part in &rule.names {
                cost.add(self.cost(name, part).valid, 0);
            }
            self.rest(member, rule, cost);
        }
    }

    fn rest(&mut self, value: json::Value<'_>, rule: &Rule, cost: &mut Cost) {
        for part in &rule.rest {
            let part = self.cost(value, part).valid;
            cost.add(part, part);
        }
    }
}

/// A string in pieces of 16 bytes, the last one as if it were full.
fn pieces(string: json::Value<'_>) -> u64 {
    string.bytes() as u64 / 16 + 1
}
