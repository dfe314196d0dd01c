//! A strict JSON reader (RFC 8259) that borrows. It exists because the rules of
//! the contract need what no general parser keeps: duplicate keys, U+0000 and
//! lone surrogates are refused with the place they stand at, and numbers are
//! compared by their exact decimal value, not as doubles. One pass yields a flat
//! tape of nodes over the original bytes; schema, unique key and pointer look-ups
//! all read the tape.

use std::borrow::Cow;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 128;

/// Why a text is not acceptable JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The rule that is broken, for people.
    pub rule: &'static str,
    /// JSON pointer (RFC 6901) to the value that breaks it.
    pub pointer: String,
    /// Byte offset where the reader stopped.
    pub offset: usize,
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

/// Reads a whole text.
///
/// # Errors
/// The first rule that is broken.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, JsonError> {
    let error = |rule, offset| JsonError { rule, pointer: String::new(), offset };
    let text = std::str::from_utf8(bytes).map_err(|e| error("not UTF-8", e.valid_up_to()))?;
    if u32::try_from(bytes.len()).is_err() {
        return Err(error("longer than 4 GiB", 0));
    }
    let mut reader = Reader { text, bytes, at: 0, nodes: Vec::with_capacity(bytes.len() / 16 + 4) };
    reader.white_space();
    reader.value(0)?;
    reader.white_space();
    if reader.at < bytes.len() {
        return Err(reader.error("something follows the value"));
    }
    Ok(Document { text, nodes: reader.nodes })
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn error(&self, rule: &'static str) -> JsonError {
        JsonError { rule, pointer: String::new(), offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    #[allow(clippy::cast_possible_truncation)] // the text's length fits in u32, so do all positions
    fn push(&mut self, kind: Kind, start: usize, end: usize) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next: at as u32 + 1 });
        at
    }

    #[allow(clippy::cast_possible_truncation)]
    fn close(&mut self, container: usize) {
        self.nodes[container].end = self.at as u32;
        self.nodes[container].next = self.nodes.len() as u32;
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') if depth < DEPTH_MAX => self.object(depth + 1),
            Some(b'[') if depth < DEPTH_MAX => self.array(depth + 1),
            Some(b'{' | b'[') => Err(self.error("nested deeper than 128 levels")),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            Some(_) => Err(self.error("a value was expected")),
            None => Err(self.error("the text ends too early")),
        }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("a value was expected"));
        }
        self.push(kind, self.at, self.at + word.len());
        self.at += word.len();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let container = self.push(Kind::Array, self.at, self.at);
        self.at += 1;
        self.white_space();
        let mut index = 0_usize;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.white_space();
                self.value(depth).map_err(|e| e.inside(&index.to_string()))?;
                index += 1;
                if !self.comma_or(b']')? {
                    break;
                }
            }
        }
        self.close(container);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let container = self.push(Kind::Object, self.at, self.at);
        self.at += 1;
        self.white_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.white_space();
                if self.peek() != Some(b'"') {
                    return Err(self.error("a key was expected"));
                }
                let key = self.string()?;
                self.white_space();
                if self.peek() != Some(b':') {
                    return Err(self.error("a colon was expected"));
                }
                self.at += 1;
                self.white_space();
                self.value(depth).map_err(|e| e.inside(&decode(self.text, self.nodes[key])))?;
                if !self.comma_or(b'}')? {
                    break;
                }
            }
        }
        self.close(container);
        self.refuse_duplicate_keys(container)
    }

    /// Whether another element follows; otherwise the container was closed.
    fn comma_or(&mut self, close: u8) -> Result<bool, JsonError> {
        self.white_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => Err(self.error("a comma or the end of the array or object was expected")),
            None => Err(self.error("the text ends too early")),
        }
    }

    fn refuse_duplicate_keys(&self, container: usize) -> Result<(), JsonError> {
        let mut keys: Vec<Cow<'_, str>> = Vec::with_capacity(8);
        let mut at = container + 1;
        while at < self.nodes[container].next as usize {
            keys.push(decode(self.text, self.nodes[at]));
            at = self.nodes[at + 1].next as usize;
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.error("a key stands twice").inside(&pair[0])),
            None => Ok(()),
        }
    }

    fn string(&mut self) -> Result<usize, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::String;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    kind = Kind::EscapedString;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.error("a control character stands in a string")),
                Some(_) => self.at += 1,
                None => return Err(self.error("the text ends too early")),
            }
        }
        let node = self.push(kind, start, self.at);
        self.at += 1;
        Ok(node)
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                match self.hex4()? {
                    0 => Err(self.error("U+0000 stands in a string")),
                    0xdc00..=0xdfff => Err(self.error("a lone surrogate stands in a string")),
                    0xd800..=0xdbff => self.low_surrogate(),
                    _ => Ok(()),
                }
            }
            _ => Err(self.error("unknown escape")),
        }
    }

    fn low_surrogate(&mut self) -> Result<(), JsonError> {
        let lone = self.error("a lone surrogate stands in a string");
        if !self.bytes[self.at..].starts_with(b"\\u") {
            return Err(lone);
        }
        self.at += 2;
        match self.hex4()? {
            0xdc00..=0xdfff => Ok(()),
            _ => Err(lone),
        }
    }

    fn hex4(&mut self) -> Result<u16, JsonError> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let value = value.ok_or_else(|| self.error("four hex digits were expected"))?;
        self.at += 4;
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a digit was expected"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let plain = !matches!(self.peek(), Some(b'e' | b'E'));
        if !plain {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        // Without an exponent, up to 300 digits are always in a double's range.
        let text = &self.text[start..self.at];
        if (!plain || text.len() > 300) && !is_in_range(text) {
            return Err(self.error("a number is out of range"));
        }
        self.push(Kind::Number, start, self.at);
        Ok(())
    }
}

/// Whether a number has a finite double near it and an exponent that can be
/// calculated with.
fn is_in_range(number: &str) -> bool {
    let exponent = number.split_once(['e', 'E']).map_or("0", |(_, exponent)| exponent);
    number.parse::<f64>().is_ok_and(f64::is_finite) && exponent.parse::<i32>().is_ok()
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

impl Document<'_> {
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

    fn raw(self) -> &'a str {
        let node = self.node();
        &self.document.text[node.start as usize..node.end as usize]
    }

    fn sibling(self, at: usize) -> Self {
        Value { document: self.document, at }
    }

    fn text(self) -> Cow<'a, str> {
        decode(self.document.text, self.node())
    }

    /// The elements of an array; none for anything else.
    fn elements(self) -> impl Iterator<Item = Value<'a>> {
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

    /// The members of an object; none for anything else.
    fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        let end = if self.node().kind == Kind::Object { self.node().next as usize } else { 0 };
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (key, value) = (self.sibling(at), self.sibling(at + 1));
                at = value.node().next as usize;
                (key.text(), value)
            })
        })
    }

    /// The value a JSON pointer's tokens lead to (RFC 6901).
    #[must_use]
    pub fn at(self, tokens: &[String]) -> Option<Value<'a>> {
        let Some((token, rest)) = tokens.split_first() else { return Some(self) };
        let child = match self.node().kind {
            Kind::Object => self.members().find(|(key, _)| key == token).map(|(_, value)| value),
            Kind::Array if token == "0" || !token.starts_with(['0', '+']) => {
                token.parse().ok().and_then(|index| self.elements().nth(index))
            }
            _ => None,
        };
        child?.at(rest)
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

/// The tokens of a JSON pointer (RFC 6901), or `None` if it is malformed.
#[must_use]
pub fn pointer_tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let well_escaped =
        |token: &str| token.split('~').skip(1).all(|after| after.starts_with('0') || after.starts_with('1'));
    pointer
        .strip_prefix('/')?
        .split('/')
        .map(|token| well_escaped(token).then(|| token.replace("~1", "/").replace("~0", "~")))
        .collect()
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
