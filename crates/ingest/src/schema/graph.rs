//! A schema as a graph: its subschemas, and which of them each leads to. Plain data in
//! it (`const`, `enum`, `default`, `examples`, what nobody knows) is no part of it,
//! unless a reference leads there.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use sluice_service::text::shown;

/// A schema, and all that it contains and refers to. The root is the first part.
pub(super) struct Graph<'a> {
    pub(super) parts: Vec<Part<'a>>,
    /// Regular expressions in it.
    pub(super) patterns: Vec<&'a str>,
    /// Whether a subschema names a draft of its own.
    pub(super) drafts: bool,
    /// By place in memory. A place counts once it is known as a schema, so that one
    /// that only holds schemas (`properties`) may be referred to as a schema, too.
    known: HashMap<*const Json, usize>,
    /// `None`: more than one place has that name.
    anchors: HashMap<&'a str, Option<&'a Json>>,
    /// References that are still to be followed, and where they are.
    references: Vec<(usize, &'a str)>,
}

/// A subschema.
pub(super) struct Part<'a> {
    pub(super) schema: &'a Json,
    pub(super) ways: Vec<Way>,
    /// How many of its keywords ask what of a value was looked at.
    pub(super) marks: usize,
    /// How many values of plain data it has.
    pub(super) data: u64,
}

/// A way from a subschema to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) to: usize,
    pub(super) leads: Leads,
    /// How much deeper it is, in levels of JSON.
    pub(super) levels: usize,
}

/// What a subschema is for, as seen from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// The same value, by a reference.
    Referred,
    /// The same value.
    Here,
    /// Values in it, or names of its members.
    Inside,
    /// The same; compiled once more where it is to be found out what was looked at.
    Again,
    /// Nothing; it is kept to be referred to.
    Nowhere,
}

impl<'a> Graph<'a> {
    /// # Errors
    /// What makes references lead elsewhere, or nowhere.
    pub(super) fn read(root: &'a Json) -> Result<Self, String> {
        let mut graph = Self {
            parts: Vec::new(),
            patterns: Vec::new(),
            drafts: false,
            known: HashMap::new(),
            anchors: HashMap::new(),
            references: Vec::new(),
        };
        graph.add(root)?;
        // Only what is a schema anyway has a name, not what becomes one by a reference.
        let anchors = std::mem::take(&mut graph.anchors);
        while let Some((from, reference)) = graph.references.pop() {
            let target = resolve(root, &anchors, reference)?;
            let to = graph.add(target)?;
            graph.parts[from].ways.push(Way { to, leads: Leads::Referred, levels: 1 });
        }
        Ok(graph)
    }

    /// The part that is at a place.
    pub(super) fn at(&self, place: &'a Json) -> Option<usize> {
        self.known.get(&std::ptr::from_ref(place)).copied()
    }

    /// Where the only reference of a part leads.
    pub(super) fn referred(&self, part: usize) -> Option<usize> {
        self.parts[part].ways.iter().find(|way| way.leads == Leads::Referred).map(|way| way.to)
    }

    /// Adds a place, and all that it contains, if it is not known yet.
    fn add(&mut self, place: &'a Json) -> Result<usize, String> {
        let mut next = self.parts.len();
        let first = self.place(place);
        while next < self.parts.len() {
            let schema = self.parts[next].schema;
            if let Json::Object(keywords) = schema {
                self.survey(next, schema, keywords)?;
                let (contained, data) = contained(keywords);
                for (leads, levels, within) in contained {
                    let way = Way { to: self.place(within), leads, levels };
                    self.parts[next].ways.push(way);
                }
                self.parts[next].data = data;
            }
            next += 1;
        }
        Ok(first)
    }

    fn place(&mut self, schema: &'a Json) -> usize {
        *self.known.entry(schema).or_insert_with(|| {
            self.parts.push(Part { schema, ways: Vec::new(), marks: 0, data: 0 });
            self.parts.len() - 1
        })
    }

    /// Finds anchors, patterns, and references, and refuses what makes these mean
    /// something else.
    fn survey(&mut self, at: usize, schema: &'a Json, keywords: &'a Map<String, Json>) -> Result<(), String> {
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$dynamicRef" | "$recursiveRef", Json::String(_)) => {
                    return Err(format!("{keyword} is not taken"));
                }
                ("$id", Json::String(_)) if at > 0 => return Err("$id is taken at the top only".into()),
                ("$schema", Json::String(draft)) if at > 0 => {
                    // In draft 4 an `id` without `$` says where references lead.
                    if draft.contains("/draft-04/") {
                        return Err("the $schema of draft 4 is taken at the top only".into());
                    }
                    self.drafts = true;
                }
                ("$ref", Json::String(reference)) => self.references.push((at, reference)),
                ("$anchor", Json::String(name)) => {
                    let named = self.anchors.entry(name).or_insert(Some(schema));
                    *named = named.filter(|named| std::ptr::eq(*named, schema));
                }
                ("unevaluatedProperties" | "unevaluatedItems", _) => self.parts[at].marks += 1,
                ("pattern", Json::String(pattern)) => self.patterns.push(pattern),
                ("patternProperties", Json::Object(members)) => {
                    self.patterns.extend(members.keys().map(String::as_str));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The parts that can be reached, those first that others lead to, and whether one
    /// leads back to itself.
    pub(super) fn order(
        &self,
        from: impl Iterator<Item = usize>,
        follows: impl Fn(Leads) -> bool,
    ) -> (Vec<usize>, bool) {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Never,
            Underway,
            Done,
        }
        let (mut order, mut goes_round) = (Vec::new(), false);
        let mut seen = vec![Seen::Never; self.parts.len()];
        for start in from {
            let mut underway = Vec::new();
            if seen[start] == Seen::Never {
                seen[start] = Seen::Underway;
                underway.push((start, 0));
            }
            while let Some((part, next)) = underway.pop() {
                let Some(way) = self.parts[part].ways.get(next) else {
                    seen[part] = Seen::Done;
                    order.push(part);
                    continue;
                };
                underway.push((part, next + 1));
                match seen[way.to] {
                    _ if !follows(way.leads) => {}
                    Seen::Never => {
                        seen[way.to] = Seen::Underway;
                        underway.push((way.to, 0));
                    }
                    Seen::Underway => goes_round = true,
                    Seen::Done => {}
                }
            }
        }
        (order, goes_round)
    }
}

impl Leads {
    /// Whether it is for the same value.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Referred | Self::Here)
    }
}

type Contained<'a> = Vec<(Leads, usize, &'a Json)>;

/// The subschemas that one contains, and how many levels of JSON deeper they are; and
/// how many values there are beside them.
fn contained(keywords: &Map<String, Json>) -> (Contained<'_>, u64) {
    let (mut contained, mut data) = (Vec::new(), 0);
    for (keyword, value) in keywords {
        let (leads, parts) = match (keyword.as_str(), value) {
            ("allOf" | "anyOf" | "oneOf", Json::Array(parts)) => (Leads::Here, parts.iter().collect()),
            ("dependentSchemas" | "dependencies", Json::Object(parts)) => {
                (Leads::Here, parts.values().filter(|part| !part.is_array()).collect())
            }
            ("properties", Json::Object(parts)) => (Leads::Inside, parts.values().collect()),
            ("prefixItems" | "items", Json::Array(parts)) => (Leads::Inside, parts.iter().collect()),
            ("patternProperties", Json::Object(parts)) => (Leads::Again, parts.values().collect()),
            ("$defs" | "definitions", Json::Object(parts)) => (Leads::Nowhere, parts.values().collect()),
            (keyword, part) => {
                match single(keyword) {
                    Some(leads) => contained.push((leads, 1, part)),
                    None => data += values(part),
                }
                continue;
            }
        };
        let parts: Vec<_> = parts;
        contained.extend(parts.into_iter().map(|part| (leads, 2, part)));
    }
    (contained, data)
}

/// Keywords whose value is a subschema itself.
fn single(keyword: &str) -> Option<Leads> {
    Some(match keyword {
        "not" | "if" | "then" | "else" => Leads::Here,
        "items" | "additionalItems" | "propertyNames" => Leads::Inside,
        "additionalProperties" | "contains" | "unevaluatedProperties" | "unevaluatedItems" => Leads::Again,
        "contentSchema" => Leads::Nowhere,
        _ => return None,
    })
}

fn values(data: &Json) -> u64 {
    1 + match data {
        Json::Array(items) => items.iter().map(values).sum(),
        Json::Object(members) => members.values().map(values).sum(),
        _ => 0,
    }
}

/// What a reference leads to: within the document, by pointer or anchor.
fn resolve<'a>(
    root: &'a Json,
    anchors: &HashMap<&'a str, Option<&'a Json>>,
    reference: &str,
) -> Result<&'a Json, String> {
    let refused = |why: &str| format!("{}: a $ref {why}", shown(reference));
    let outside = || refused("leads to a place in the schema itself, such as #/$defs/x");
    let fragment = fragment(root, reference).ok_or_else(outside)?;
    let found = if fragment.is_empty() || fragment.starts_with('/') {
        root.pointer(&percent_decoded(fragment).ok_or_else(outside)?)
    } else {
        let named = anchors.get(fragment).copied();
        named.map(|place| place.ok_or_else(|| refused("has to lead to one place"))).transpose()?
    };
    found.ok_or_else(|| refused("leads nowhere"))
}

/// What a reference says of a place in the document itself: all of it, or what follows
/// the document's own `$id`.
fn fragment<'r>(root: &Json, reference: &'r str) -> Option<&'r str> {
    if let Some(fragment) = reference.strip_prefix('#') {
        return Some(fragment);
    }
    let own = root.get("$id").and_then(Json::as_str)?.trim_end_matches('#');
    match reference.strip_prefix(own).filter(|_| !own.is_empty())? {
        "" => Some(""),
        // Where there are two, either may be meant.
        rest => rest.strip_prefix('#').filter(|fragment| !fragment.contains('#')),
    }
}

/// A URI fragment's text (RFC 3986), or `None` if it is malformed.
fn percent_decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits =
                std::str::from_utf8(tail.get(..2)?).ok().filter(|digits| !digits.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
