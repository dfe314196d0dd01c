//! One pass over the bytes, by recursive descent of bounded depth.

use std::borrow::Cow;

use super::{Bounds, Document, JsonError, Kind, Node, decode};

/// Reads a whole text.
///
/// # Errors
/// The first rule that is broken.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, JsonError> {
    parse_within(bytes, Bounds::default())
}

/// Reads a whole text that goes no further than the bounds.
///
/// # Errors
/// As [`parse`].
pub fn parse_within(bytes: &[u8], bounds: Bounds) -> Result<Document<'_>, JsonError> {
    let error = |rule, offset, too_large| JsonError {
        rule: Cow::Borrowed(rule),
        pointer: String::new(),
        offset,
        too_large,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| error("not UTF-8", e.valid_up_to(), false))?;
    if u32::try_from(bytes.len()).is_err() {
        return Err(error("longer than 4 GiB", 0, true));
    }
    let nodes = Vec::with_capacity(bytes.len() / 16 + 4);
    let mut reader = Reader { text, bytes, at: 0, keys: 0, bounds, nodes };
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
    /// Met so far.
    keys: usize,
    bounds: Bounds,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn error(&self, rule: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { rule: rule.into(), pointer: String::new(), offset: self.at, too_large: false }
    }

    fn too_large(&self, rule: String) -> JsonError {
        JsonError { too_large: true, ..self.error(rule) }
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
            Some(b'{') if depth < self.bounds.depth_max => self.object(depth + 1),
            Some(b'[') if depth < self.bounds.depth_max => self.array(depth + 1),
            Some(b'{' | b'[') => {
                Err(self.too_large(format!("nested deeper than {} levels", self.bounds.depth_max)))
            }
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
                self.keys += 1;
                if self.keys > self.bounds.keys_max {
                    return Err(self.too_large(format!("more than {} keys", self.bounds.keys_max)));
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
        if self.at - start > self.bounds.string_bytes_max {
            return Err(
                self.too_large(format!("a string of more than {} bytes", self.bounds.string_bytes_max))
            );
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
