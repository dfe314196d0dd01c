//! What can be asked of a document: pointers, equality by hash, and the tree
//! that the schema validator takes.

use std::borrow::Cow;

use super::{Document, Kind, Node, Value, decode};

impl Document<'_> {
    /// How many values it holds, keys included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The whole value.
    #[must_use]
    pub fn root(&self) -> Value<'_> {
        Value { document: self, at: 0 }
    }
}

impl<'a> Value<'a> {
    fn node(self) -> Node {
        self.document.nodes[self.at]
    }

    /// The text as it is written; of a string or key without its quotes.
    pub(crate) fn raw(self) -> &'a str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }

    fn sibling(self, at: usize) -> Self {
        Value { document: self.document, at }
    }

    /// How many values it is, those in it and keys included.
    #[must_use]
    pub fn len(self) -> usize {
        self.node().next as usize - self.at
    }

    /// How many bytes it has as it is written; a string or key without its quotes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.raw().len()
    }

    /// Whether it is a string or key.
    #[must_use]
    pub fn is_string(self) -> bool {
        matches!(self.node().kind, Kind::String | Kind::EscapedString)
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        self.node().kind == Kind::Array
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.node().kind == Kind::Object
    }

    /// Whether it is a number that is written as an integer of up to 18 digits.
    #[must_use]
    pub fn is_short_integer(self) -> bool {
        let digits = self.raw().strip_prefix('-').unwrap_or(self.raw());
        self.node().kind == Kind::Number && digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit())
    }

    /// The elements of an array; none for anything else.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let end = if self.node().kind == Kind::Array { self.node().next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let value = self.sibling(at);
                at = value.node().next as usize;
                value
            })
        })
    }

    /// The text of a string or key.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        decode(self.document.text, self.node())
    }

    /// The members of an object, keys and values; none for anything else.
    pub fn entries(self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> {
        let end = if self.node().kind == Kind::Object { self.node().next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (key, value) = (self.sibling(at), self.sibling(at + 1));
                at = value.node().next as usize;
                (key, value)
            })
        })
    }

    /// The same, the keys as text.
    fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        self.entries().map(|(key, value)| (key.text(), value))
    }

    /// The value a JSON pointer leads to (RFC 6901).
    #[must_use]
    pub fn at(self, pointer: &str) -> Option<Value<'a>> {
        pointer.split('/').skip(1).try_fold(self, |value, token| match token.contains('~') {
            true => value.child(&token.replace("~1", "/").replace("~0", "~")),
            false => value.child(token),
        })
    }

    fn child(self, token: &str) -> Option<Value<'a>> {
        match self.node().kind {
            Kind::Object => self.members().find(|(key, _)| key == token).map(|(_, value)| value),
            Kind::Array if token == "0" || !token.starts_with(['0', '+']) => {
                token.parse().ok().and_then(|index| self.elements().nth(index))
            }
            _ => None,
        }
    }

    /// Feeds the value into a hash so that equal JSON values feed equal bytes:
    /// key order, white space, escapes and the spelling of numbers make no
    /// difference.
    pub fn hash_into(self, hasher: &mut blake3::Hasher) {
        match self.node().kind {
            Kind::Null => drop(hasher.update(b"z")),
            Kind::True => drop(hasher.update(b"t")),
            Kind::False => drop(hasher.update(b"f")),
            Kind::Number => hash_number(self.raw(), hasher),
            Kind::String | Kind::EscapedString => hash_text(b"s", &self.text(), hasher),
            Kind::Array => {
                hasher.update(b"[");
                self.elements().for_each(|value| value.hash_into(hasher));
                hasher.update(b"]");
            }
            Kind::Object => {
                hasher.update(b"{");
                let mut members: Vec<_> = self.members().collect();
                members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                for (key, value) in members {
                    hash_text(b"k", &key, hasher);
                    value.hash_into(hasher);
                }
                hasher.update(b"}");
            }
        }
    }

    /// The value as the JSON Schema validator takes it.
    #[must_use]
    pub fn to_serde(self) -> serde_json::Value {
        match self.node().kind {
            Kind::Null => serde_json::Value::Null,
            Kind::True => serde_json::Value::Bool(true),
            Kind::False => serde_json::Value::Bool(false),
            Kind::Number => self.raw().parse().map_or(serde_json::Value::Null, serde_json::Value::Number),
            Kind::String | Kind::EscapedString => serde_json::Value::String(self.text().into_owned()),
            Kind::Array => self.elements().map(Value::to_serde).collect(),
            Kind::Object => self.members().map(|(key, value)| (key.into_owned(), value.to_serde())).collect(),
        }
    }
}

fn hash_text(tag: &[u8], text: &str, hasher: &mut blake3::Hasher) {
    hasher.update(tag).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
}

/// A number as sign, digits without outer zeros, and decimal exponent: 1, 1.0,
/// 10e-1 and 0.1E1 are all the same.
fn hash_number(number: &str, hasher: &mut blake3::Hasher) {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("+", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        hasher.update(b"n0");
        return;
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let exponent: i64 = exponent.parse::<i64>().unwrap_or(0) - fraction.len() as i64 + trailing as i64;
    hash_text(b"n", sign, hasher);
    hash_text(b"d", significant, hasher);
    hasher.update(&exponent.to_le_bytes());
}
