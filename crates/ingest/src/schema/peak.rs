//! The most that one value of a content may take, wherever it is. It is told from the
//! schema alone, and spares most contents that their price is told exactly. Where
//! references lead back, a content is only so deep; what doubles with each level is
//! beyond measure all the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    graph::{Graph, Leads},
    price::{MARK, STRING},
    rules::{Rule, Within},
    weigh::DEPTH_MAX,
};
use crate::json;

/// Most ways from values to those in them that are looked at.
const WAYS_MAX: usize = 1 << 18;

/// What a value takes, and 16 bytes of a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    value: u64,
    text: u64,
}

/// A value that meets a part of the schema, and all that is for the same value.
struct Met {
    part: usize,
    /// What the value itself takes.
    own: Peak,
    /// What can be in it.
    inside: Vec<Inside>,
}

/// The names of a value's members, or those of its members or elements that meet the same.
struct Inside {
    /// What it takes whatever it meets.
    own: Peak,
    /// The same for each value within that.
    around: Peak,
    /// The parts that it meets, and how often.
    meets: Vec<(usize, u64)>,
    /// Whether there is nothing within that.
    ends: bool,
}

/// A rule, how often a value is held against it, and how often it is to be found out
/// there what of the value was looked at.
type Times<'r> = (&'r Rule, u64, u64);

impl Peak {
    const BEYOND: Self = Self { value: u64::MAX, text: u64::MAX };

    /// The peak of a schema.
    pub(super) fn of(graph: &Graph<'_>, rules: &[Rule]) -> Self {
        let Some(met) = Met::all(graph, rules) else { return Self::BEYOND };
        let mut own = vec![Self::default(); rules.len()];
        met.iter().for_each(|met| own[met.part] = met.own);
        let mut within = vec![Self::default(); rules.len()];
        // What is one level deeper than what was looked at before.
        for _ in 0..json::DEPTH_MAX {
            let before = within.clone();
            for met in &met {
                within[met.part] = met.within(&own, &before);
            }
            if within == before {
                break;
            }
        }
        own[0].larger(within[0])
    }

    /// What a content may take at most that has so many values and bytes of strings.
    pub(super) fn at_most(self, values: u64, bytes: u64) -> u64 {
        // Each string ends within 16 bytes that are not full.
        let pieces = (bytes / 16).saturating_add(values);
        values.saturating_mul(self.value).saturating_add(pieces.saturating_mul(self.text))
    }

    fn times(self, times: u64) -> Self {
        Self { value: self.value.saturating_mul(times), text: self.text.saturating_mul(times) }
    }

    fn and(self, other: Self) -> Self {
        Self { value: self.value.saturating_add(other.value), text: self.text.saturating_add(other.text) }
    }

    fn larger(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), text: self.text.max(other.text) }
    }

    fn sum(peaks: impl Iterator<Item = Self>) -> Self {
        peaks.fold(Self::default(), Self::and)
    }
}

impl Met {
    /// All of them; `None` if there are too many ways between them.
    fn all(graph: &Graph<'_>, rules: &[Rule]) -> Option<Vec<Self>> {
        let (used, _) = graph.order(std::iter::once(0), |leads| leads != Leads::Nowhere);
        let (order, _) = graph.order(0..rules.len(), Leads::stays);
        let mut ranks = vec![0; rules.len()];
        order.into_iter().enumerate().for_each(|(rank, part)| ranks[part] = rank);
        let met: BTreeSet<usize> = used.iter().flat_map(|at| rules[*at].within()).chain([0]).collect();
        let mut left = WAYS_MAX;
        met.into_iter().map(|part| Self::of(rules, &ranks, part, &mut left)).collect()
    }

    fn of(rules: &[Rule], ranks: &[usize], part: usize, left: &mut usize) -> Option<Self> {
        let here = here(rules, ranks, part, left)?;
        let own = Peak::sum(here.iter().map(|(rule, valid, marked)| {
            let value = rule.own + rule.guard * DEPTH_MAX as u64 + rule.compared + rule.object;
            let valid = Peak { value, text: rule.text }.and(rule.in_array()).times(*valid);
            valid.and(MARKED.times(*marked))
        }));
        let names = here.iter().flat_map(|(rule, ..)| rule.named.keys());
        let names: BTreeSet<Option<&String>> = names.map(Some).chain([None]).collect();
        let positions = here.iter().map(|(rule, ..)| rule.placed.len()).max().unwrap_or(0);
        let wide = |within: fn(&Rule) -> &Within| {
            here.iter().map(|(rule, ..)| 1 + within(rule).len()).sum::<usize>()
        };
        let (members, elements) = (wide(|rule| &rule.members), wide(|rule| &rule.elements));
        *left = left.checked_sub(names.len() * members + (positions + 1) * elements)?;
        let mut inside = vec![Inside::name(&here)];
        inside.extend(names.into_iter().map(|name| Inside::member(&here, name)));
        inside.extend((0..=positions).map(|position| Inside::element(&here, position)));
        Some(Self { part, own, inside })
    }

    /// The most that a value in it takes, where it is known of one level less.
    fn within(&self, own: &[Peak], within: &[Peak]) -> Peak {
        self.inside.iter().fold(Peak::default(), |most, inside| {
            let next = most.larger(inside.sum(inside.own, own));
            if inside.ends { next } else { next.larger(inside.sum(inside.around, within)) }
        })
    }
}

/// What is for the same value as a part, the part first.
fn here<'r>(rules: &'r [Rule], ranks: &[usize], part: usize, left: &mut usize) -> Option<Vec<Times<'r>>> {
    let mut here = Vec::new();
    // What leads to another one comes before it.
    let mut next = BTreeMap::from([(ranks[part], (part, 1_u64, 0_u64))]);
    while let Some((_, (part, valid, mut marked))) = next.pop_last() {
        let rule = &rules[part];
        *left = left.checked_sub(1 + rule.here.len() + rule.once.len())?;
        marked = marked.saturating_add(if rule.marks { valid } else { 0 });
        let again = rule.here.iter().map(|part| (part, valid.saturating_add(marked)));
        for (&part, valid) in again.chain(rule.once.iter().map(|part| (part, valid))) {
            let (_, all_valid, all_marked) = next.entry(ranks[part]).or_insert((part, 0, 0));
            *all_valid = all_valid.saturating_add(valid);
            *all_marked = all_marked.saturating_add(marked);
        }
        here.push((rule, valid, marked));
    }
    Some(here)
}

impl Inside {
    fn sum(&self, peak: Peak, of: &[Peak]) -> Peak {
        self.meets.iter().fold(peak, |sum, (part, times)| sum.and(of[*part].times(*times)))
    }

    fn name(here: &[Times<'_>]) -> Self {
        let own = here.iter().map(|(rule, valid, marked)| {
            let asked = Peak { value: rule.member, text: rule.name }.times(valid.saturating_add(*marked));
            asked.and(MARKED.times(*marked))
        });
        let meets = here.iter().flat_map(|(rule, valid, _)| rule.names.iter().map(|at| (*at, *valid)));
        Self { own: Peak::sum(own), around: Peak::default(), meets: meets.collect(), ends: true }
    }

    /// A member with that name, or with one that no rule names.
    fn member(here: &[Times<'_>], name: Option<&String>) -> Self {
        let mut meets = Vec::new();
        for (rule, valid, marked) in here {
            let named = name.and_then(|name| rule.named.get(name));
            rule.members.meets(named, *valid, *marked, &mut meets);
        }
        Self { own: Peak::default(), around: Peak::default(), meets, ends: false }
    }

    fn element(here: &[Times<'_>], position: usize) -> Self {
        let (mut meets, mut around, mut marks) = (Vec::new(), Peak::default(), Peak::default());
        for (rule, valid, marked) in here {
            rule.elements.meets(rule.placed.get(position), *valid, *marked, &mut meets);
            around = around.and(rule.in_array().times(*valid));
            marks = marks.and(MARKED.times(*marked));
        }
        Self { own: around.and(marks), around, meets, ends: false }
    }
}

/// What it takes to find out of one value whether it was looked at.
const MARKED: Peak = Peak { value: MARK, text: 0 };

impl Rule {
    /// What each value takes that is in an array, or is the array.
    fn in_array(&self) -> Peak {
        Peak { value: self.unique, text: if self.unique > 0 { STRING } else { 0 } }
    }

    /// The parts for values in a value, and for names.
    fn within(&self) -> impl Iterator<Item = usize> {
        let lists =
            [&self.members, &self.elements].map(|within| [&within.each, &within.others, &within.again]);
        let lists = lists.into_iter().flatten().chain([&self.placed, &self.names]);
        lists.flatten().chain(self.named.values()).copied()
    }
}

impl Within {
    /// Adds what a member or element meets that has this one of its own.
    fn meets(&self, own: Option<&usize>, valid: u64, marked: u64, meets: &mut Vec<(usize, u64)>) {
        let others = if own.is_some() { &[][..] } else { &self.others };
        meets.extend(own.into_iter().chain(&self.each).chain(others).map(|at| (*at, valid)));
        meets.extend(self.again.iter().map(|at| (*at, valid.saturating_add(marked))));
    }
}
