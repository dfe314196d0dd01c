//! A strict JSON reader (RFC 8259) that borrows. It exists because the rules of
//! the contract need what no general parser keeps: duplicate keys, U+0000 and
//! lone surrogates are refused with the place they stand at, and numbers are
//! compared by their exact decimal value, not as doubles. One pass yields a flat
//! tape of nodes over the original bytes; schema, unique key and pointer look-ups
//! all read the tape.

mod reader;
mod value;

use std::borrow::Cow;

pub use reader::{parse, parse_within};

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 128;

/// How far a text may go. Operators may set less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deepest nesting, up to [`DEPTH_MAX`].
    pub depth_max: usize,
    /// Most keys in all of its objects together.
    pub keys_max: usize,
    /// Longest string or key, in bytes as it is written, without the quotes.
    pub string_bytes_max: usize,
}

impl Default for Bounds {
    /// No other bounds than the reader's own.
    fn default() -> Self {
        Self { depth_max: DEPTH_MAX, keys_max: usize::MAX, string_bytes_max: usize::MAX }
    }
}

/// Why a text is not acceptable JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The rule that is broken, for people.
    pub rule: Cow<'static, str>,
    /// JSON pointer (RFC 6901) to the value that breaks it.
    pub pointer: String,
    /// Byte offset where the reader stopped.
    pub offset: usize,
    /// Whether it goes further than the bounds; else it is not acceptable within any.
    pub too_large: bool,
}

impl JsonError {
    fn inside(mut self, token: &str) -> Self {
        let escaped = token.replace('~', "~0").replace('/', "~1");
        self.pointer.insert_str(0, &escaped);
        self.pointer.insert(0, '/');
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    True,
    False,
    Number,
    /// Span without the quotes.
    String,
    /// A string with escapes in it.
    EscapedString,
    Array,
    /// Keys and values in turn.
    Object,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    start: u32,
    end: u32,
    /// Index of the node after this value and all that is in it.
    next: u32,
}

/// A JSON text and its tape.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// One value in a document.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    document: &'a Document<'a>,
    at: usize,
}

/// The text of a string node.
fn decode(text: &str, node: Node) -> Cow<'_, str> {
    let raw = &text[node.start as usize..node.end as usize];
    if node.kind != Kind::EscapedString {
        return Cow::Borrowed(raw);
    }
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        decoded.push_str(&rest[..at]);
        let (character, used) = unescape(&rest[at..]);
        decoded.push(character);
        rest = &rest[at + used..];
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The character of the escape that the text starts with, and its length. The
/// reader has checked it.
fn unescape(text: &str) -> (char, usize) {
    let hex = |from: usize| {
        text.get(from..from + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let simple = |character| (character, 2);
    match text.as_bytes().get(1) {
        Some(b'b') => simple('\u{8}'),
        Some(b'f') => simple('\u{c}'),
        Some(b'n') => simple('\n'),
        Some(b'r') => simple('\r'),
        Some(b't') => simple('\t'),
        Some(b'u') => match hex(2) {
            high @ 0xd800..=0xdbff => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (hex(8).wrapping_sub(0xdc00) & 0x3ff);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            code => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        },
        Some(&other) => simple(char::from(other)),
        None => (char::REPLACEMENT_CHARACTER, text.len()),
    }
}

/// Whether a text is a JSON pointer (RFC 6901).
#[must_use]
pub fn is_pointer(text: &str) -> bool {
    let well_escaped = text.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    well_escaped && (text.is_empty() || text.starts_with('/'))
}

#[cfg(test)]
mod tests;
