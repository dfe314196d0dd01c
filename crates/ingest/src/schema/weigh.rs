//! A schema's weight: how many subschemas it unfolds to when every reference is
//! followed, or, where a reference leads back to where it came from, how many the
//! library compiles. It compiles what is referred to once, however it is come by, with
//! one exception: `unevaluatedProperties` and `unevaluatedItems` have all that concerns
//! the same value compiled once more for themselves, and what such a part contains again
//! with all that is marked in there, and so on until one is met that is underway.

use std::collections::BTreeSet;

use super::{
    WEIGHT_MAX,
    graph::{Graph, Leads, Part},
};

/// Deepest chain of subschemas and references, in levels of JSON.
pub(super) const DEPTH_MAX: usize = 256;
/// References that the library follows at once when it compiles; the next ones wait.
const NESTED_MAX: usize = 8;
/// Values of plain data that weigh as much as a subschema.
const DATA: u64 = 16;
/// How much deeper the library's calls are for a level of what it compiles for marks.
const MARKED: usize = 2;

/// What a schema weighs.
pub(super) struct Weight {
    pub(super) subschemas: u64,
    /// Whether a reference leads back to where it came from, so that what it takes to
    /// hold a content against it is bounded by the content alone.
    pub(super) recursive: bool,
}

impl Weight {
    /// # Errors
    /// Why it is too large, or without end.
    pub(super) fn of(graph: &Graph<'_>) -> Result<Self, String> {
        let everything = 0..graph.parts.len();
        let (here, endless) = graph.order(everything, Leads::stays);
        if endless {
            return Err("a $ref leads back to where it came from without going into the value, \
                        as properties and items do"
                .into());
        }
        let (used, recursive) = graph.order(std::iter::once(0), |leads| leads != Leads::Nowhere);
        let (order, follows): (_, fn(Leads) -> bool) = match recursive {
            true => (&here, Leads::stays),
            false => (&used, |leads| leads != Leads::Nowhere),
        };
        let mut depths = vec![0; graph.parts.len()];
        let mut weights = vec![0_u64; graph.parts.len()];
        for &part in order {
            let ways = graph.parts[part].ways.iter().filter(|way| follows(way.leads));
            let (mut depth, mut weight) = (0, u64::from(graph.parts[part].schema.is_object()));
            for way in ways {
                depth = depth.max(way.levels + depths[way.to]);
                weight = weight.saturating_add(weights[way.to]);
            }
            (depths[part], weights[part]) = (depth, weight);
        }
        let mut depth = depths.iter().copied().max().unwrap_or(0);
        let mut subschemas = weights[0];
        if recursive {
            let compiled = Compiled::of(graph)?;
            subschemas = compiled.parts.max(used.len() as u64);
            depth = depth.max(compiled.depth);
        }
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if subschemas > WEIGHT_MAX {
            return Err(too_much());
        }
        Ok(Self { subschemas, recursive })
    }
}

fn too_deep() -> String {
    format!("nested and referred deeper than {DEPTH_MAX} levels")
}

fn too_much() -> String {
    format!("unfolds to more than {WEIGHT_MAX} subschemas")
}

/// What the library compiles of a schema, at most.
struct Compiled<'g, 'a> {
    graph: &'g Graph<'a>,
    parts: u64,
    depth: usize,
    /// Parts that what is being compiled contains, where that has been compiled.
    seen: BTreeSet<usize>,
    /// Parts that are being compiled for marks.
    marking: Vec<usize>,
}

impl<'g, 'a> Compiled<'g, 'a> {
    fn of(graph: &'g Graph<'a>) -> Result<Self, String> {
        let mut compiled = Self { graph, parts: 0, depth: 0, seen: BTreeSet::new(), marking: Vec::new() };
        let referred = (0..graph.parts.len()).filter_map(|part| graph.referred(part));
        let whole: BTreeSet<usize> = referred.chain([0]).collect();
        for &part in &whole {
            compiled.seen.clear();
            compiled.compile(part, 0, false)?;
        }
        compiled.depth += nested(graph);
        Ok(compiled)
    }

    fn count(&mut self, part: usize, depth: usize) -> Result<&'g Part<'a>, String> {
        let part = &self.graph.parts[part];
        self.parts += 1 + part.data / DATA;
        if !self.marking.is_empty() {
            self.depth = self.depth.max(depth);
        }
        if self.parts > WEIGHT_MAX {
            return Err(too_much());
        }
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        Ok(part)
    }

    /// A part with all that it contains; for marks, somewhere else than where it is.
    fn compile(&mut self, at: usize, depth: usize, elsewhere: bool) -> Result<(), String> {
        if !elsewhere && !self.seen.insert(at) {
            return Ok(());
        }
        let part = self.count(at, depth)?;
        for way in part.ways.iter().filter(|way| !matches!(way.leads, Leads::Referred | Leads::Nowhere)) {
            self.compile(way.to, depth + way.levels, elsewhere)?;
        }
        for _ in 0..part.marks {
            self.mark(at, depth, elsewhere)?;
        }
        Ok(())
    }

    /// What concerns the same value as a part does.
    fn mark(&mut self, at: usize, depth: usize, elsewhere: bool) -> Result<(), String> {
        self.marking.push(at);
        let part = self.count(at, depth)?;
        for way in &part.ways {
            let deeper = depth + MARKED * way.levels;
            match way.leads {
                Leads::Referred if !self.marking.contains(&way.to) => self.mark(way.to, deeper, true)?,
                Leads::Here => {
                    self.compile(way.to, deeper, elsewhere)?;
                    self.mark(way.to, deeper, elsewhere)?;
                }
                Leads::Again => self.compile(way.to, deeper, elsewhere)?,
                Leads::Referred | Leads::Inside | Leads::Nowhere => {}
            }
        }
        self.marking.pop();
        Ok(())
    }
}

/// How deep it goes without marks where so many references are followed at once.
fn nested(graph: &Graph<'_>) -> usize {
    let contains = |leads| !matches!(leads, Leads::Referred | Leads::Nowhere);
    let (order, _) = graph.order(0..graph.parts.len(), contains);
    let mut before = vec![0; graph.parts.len()];
    for _ in 0..=NESTED_MAX {
        let mut depths = vec![0; graph.parts.len()];
        for &part in &order {
            let deeper = graph.parts[part].ways.iter().map(|way| match way.leads {
                Leads::Nowhere => 0,
                Leads::Referred => 1 + before[way.to],
                _ => way.levels + depths[way.to],
            });
            depths[part] = deeper.max().unwrap_or(0);
        }
        before = depths;
    }
    before.into_iter().max().unwrap_or(0)
}
