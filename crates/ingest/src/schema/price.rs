//! What it takes to hold a content against a schema, in nanoseconds, about: told from
//! the content and the schema beforehand, since a check can't be broken off. It goes
//! where the validator would go, except that it assumes that nothing is cut short, and
//! counts what is done there.

use super::{
    rules::{Rule, Within},
    weigh::DEPTH_MAX,
};
use crate::json;

/// A visit to a value with a schema.
pub(super) const VISIT: u64 = 20;
/// What a keyword takes at a value.
pub(super) const KEYWORD: u64 = 20;
/// More for a keyword that divides.
pub(super) const DIVISION: u64 = 300;
/// Asking an object for a member, or comparing with a value that the schema names.
pub(super) const LOOKUP: u64 = 20;
/// Asking a pattern for anything, however short.
pub(super) const MATCH: u64 = 100;
/// Making a value of a member's name.
pub(super) const NAME: u64 = 80;
/// Telling of an object's member, or an array's element, whether it was looked at.
pub(super) const MARK: u64 = 50;
/// Going over 16 bytes of a string to count, hash or compare them.
pub(super) const STRING: u64 = 2;
/// Decoding 16 bytes of a string, and reading them as JSON.
pub(super) const DECODED: u64 = 400;
/// Where references lead back, each asks those that are underway whether it is one of them.
pub(super) const GUARD: u64 = 1;

/// What a value takes: to be valid, and to find out what of it was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    valid: u64,
    marked: u64,
}

impl Cost {
    const MAX: Self = Self { valid: u64::MAX, marked: u64::MAX };

    fn add(&mut self, valid: u64, marked: u64) {
        self.valid = self.valid.saturating_add(valid);
        self.marked = self.marked.saturating_add(marked);
    }
}

/// The price of one content.
pub(super) struct Price<'r> {
    /// Where it is more than was asked for, no more is known of it than that.
    pub(super) total: u64,
    /// Of the largest part that is gathered from.
    pub(super) gathered: u64,
    /// Bytes of the names that lead to a value, where most do.
    pub(super) longest_path: u64,
    rules: &'r [Rule],
    /// What is left before it is too much in any case.
    left: u64,
    /// How many parts of the schema are underway. The validator's calls are as deep, and
    /// take up to 4 KiB each where they are not compiled for speed.
    underway: usize,
    path: u64,
}

impl<'r> Price<'r> {
    /// Of a content under a schema, if it is up to so much.
    pub(super) fn of(content: json::Value<'_>, rules: &'r [Rule], max: u64) -> Self {
        let mut price =
            Self { total: 0, gathered: 0, longest_path: 0, rules, left: max, underway: 0, path: 0 };
        price.total = price.cost(content, 0).valid;
        price
    }

    fn cost(&mut self, value: json::Value<'_>, at: usize) -> Cost {
        let rule = &self.rules[at];
        let own = rule.own + rule.guard * self.underway as u64;
        // All of it is paid at least once, so once this is too much, the rest doesn't matter.
        let left = self.left.checked_sub(own).filter(|_| self.underway <= DEPTH_MAX);
        self.left = left.unwrap_or(0);
        if left.is_none() {
            return Cost::MAX;
        }
        self.underway += 1;
        let mut cost = Cost { valid: own, marked: MARK };
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
            let part = self.cost(value, *part);
            gathered = gathered.saturating_add(part.valid);
            cost.add(part.valid, part.marked.saturating_add(part.valid));
        }
        for part in &rule.once {
            let part = self.cost(value, *part);
            cost.add(part.valid, part.marked);
        }
        if rule.gathers {
            self.gathered = self.gathered.max(gathered);
        }
        if rule.marks {
            cost.valid = cost.valid.saturating_add(cost.marked);
        }
        self.underway -= 1;
        cost
    }

    fn array(&mut self, value: json::Value<'_>, rule: &'r Rule, cost: &mut Cost) {
        if rule.unique > 0 {
            cost.add(rule.unique * value.len() as u64 + pieces(value) * STRING, 0);
        }
        if rule.elements.len() == 0 && rule.placed.is_empty() && !rule.marks {
            return;
        }
        for (position, element) in value.elements().enumerate() {
            cost.add(0, MARK);
            self.within(element, rule.placed.get(position), &rule.elements, cost);
        }
    }

    fn object(&mut self, value: json::Value<'_>, rule: &'r Rule, cost: &mut Cost) {
        cost.add(rule.object, 0);
        for (name, member) in value.entries() {
            let asked = rule.member + rule.name.saturating_mul(pieces(name));
            cost.add(asked, asked.saturating_add(MARK));
            for part in &rule.names {
                cost.add(self.cost(name, *part).valid, 0);
            }
            self.path += name.bytes() as u64;
            self.longest_path = self.longest_path.max(self.path);
            let named = if rule.named.is_empty() { None } else { rule.named.get(&*name.text()) };
            self.within(member, named, &rule.members, cost);
            self.path -= name.bytes() as u64;
        }
    }

    /// A member or element, and the part that is for it alone.
    fn within(&mut self, value: json::Value<'_>, own: Option<&usize>, within: &Within, cost: &mut Cost) {
        let others = if own.is_some() { &[][..] } else { &within.others };
        for part in own.into_iter().chain(&within.each).chain(others) {
            cost.add(self.cost(value, *part).valid, 0);
        }
        for part in &within.again {
            let part = self.cost(value, *part).valid;
            cost.add(part, part);
        }
    }
}

/// A string in pieces of 16 bytes, the last one as if it were full.
fn pieces(string: json::Value<'_>) -> u64 {
    string.bytes() as u64 / 16 + 1
}
