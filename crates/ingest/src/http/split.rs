//! Cuts a JSON list into the bytes of its elements without judging them: one
//! flat pass that counts brackets and skips strings. What is in an element is
//! left to the check, so that an element that is no good (a key that stands
//! twice, U+0000, 1e400, 10,000 levels, a typing error) spoils only itself. A
//! body whose brackets or strings do not end, or that is no list, is refused.

use std::ops::Range;

/// A list and where its elements lie.
pub type Spans = Vec<Range<usize>>;

/// The elements of a list, each without the white space around it; at most one
/// more than `elements_max`, which is enough to know that they are too many.
///
/// # Errors
/// Why it is no list.
pub fn elements(body: &[u8], elements_max: usize) -> Result<Spans, &'static str> {
    let mut scanner = Scanner { body, at: 0 };
    scanner.white_space();
    if scanner.next() != Some(b'[') {
        return Err("must be a JSON list of observations");
    }
    let mut spans = Spans::new();
    loop {
        let (span, end) = scanner.value(b']')?;
        let only_white_space = span.is_empty();
        match (only_white_space, end, spans.is_empty()) {
            (true, b']', true) => {}
            (true, _, _) => return Err("an observation was expected between the commas"),
            (false, _, _) => spans.push(span),
        }
        if spans.len() > elements_max {
            return Ok(spans);
        }
        if end == b']' {
            break;
        }
    }
    scanner.white_space();
    if scanner.at == body.len() { Ok(spans) } else { Err("something follows the list") }
}

/// Where a member's key, with its quotes, and its value lie.
pub type Member = (Range<usize>, Range<usize>);

/// It does not look like an object; the check knows better why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoObject;

/// The members of an object, one after the other: an object may have millions, so
/// nobody keeps them all. Ends with the first fault.
pub fn members(object: &[u8]) -> Members<'_> {
    Members { scanner: Scanner { body: object, at: 0 }, state: State::Before }
}

/// See [`members`].
pub struct Members<'a> {
    scanner: Scanner<'a>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Ended,
}

impl Members<'_> {
    /// The next one; `None`: there are no more.
    fn member(&mut self) -> Option<Result<Member, NoObject>> {
        let scanner = &mut self.scanner;
        let first = self.state == State::Before;
        if self.state == State::Ended || (first && scanner.next() != Some(b'{')) {
            return first.then_some(Err(NoObject));
        }
        scanner.white_space();
        if first && scanner.peek() == Some(b'}') {
            return None;
        }
        let start = scanner.at;
        if scanner.next() != Some(b'"') || scanner.string().is_err() {
            return Some(Err(NoObject));
        }
        let key = start..scanner.at;
        scanner.white_space();
        if scanner.next() != Some(b':') {
            return Some(Err(NoObject));
        }
        let Ok((value, end)) = scanner.value(b'}') else { return Some(Err(NoObject)) };
        self.state = if end == b'}' { State::Ended } else { State::Within };
        Some(Ok((key, value)))
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member, NoObject>;

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.member();
        if !matches!(member, Some(Ok(_))) {
            self.state = State::Ended;
        }
        member
    }
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The rest of a string whose first quote was taken.
    fn string(&mut self) -> Result<(), &'static str> {
        loop {
            match self.next() {
                Some(b'"') => return Ok(()),
                Some(b'\\') => drop(self.next()),
                Some(_) => {}
                None => return Err("a string does not end"),
            }
        }
    }

    /// Everything up to a comma or `close` outside of all brackets, without the
    /// white space around it, and which of the two it was; that one is taken.
    fn value(&mut self, close: u8) -> Result<(Range<usize>, u8), &'static str> {
        self.white_space();
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.next().ok_or("the body ends within the list")? {
                b'"' => self.string()?,
                b'[' | b'{' => depth += 1,
                end @ (b',' | b']' | b'}') if depth == 0 => {
                    if end != b',' && end != close {
                        return Err("a bracket is closed that was not opened");
                    }
                    let given = &self.body[start..self.at - 1];
                    let trailing = given.iter().rev().take_while(|b| b" \t\n\r".contains(b)).count();
                    return Ok((start..self.at - 1 - trailing, end));
                }
                b']' | b'}' => depth -= 1,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &str) -> Result<Vec<&str>, &'static str> {
        Ok(elements(body.as_bytes(), 1000)?.into_iter().map(|span| &body[span]).collect())
    }

    #[test]
    fn elements_are_the_bytes_as_sent() {
        assert_eq!(split(" [ ] ").unwrap(), [""; 0]);
        assert_eq!(
            split("[\n {\"a\": [1, {}]} ,\"],[\\\"\" , 1e400\t]\n").unwrap(),
            [r#"{"a": [1, {}]}"#, r#""],[\"""#, "1e400"]
        );
        // No good, and left to the check.
        assert_eq!(split("[tru, {\"a\" 1}, {]]").unwrap(), ["tru", "{\"a\" 1}", "{]"]);
        assert_eq!(split("[tru,{\"a\" 1} 2]").unwrap(), ["tru", "{\"a\" 1} 2"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in [
            "", "{}", "null", "[", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1}", "[\"a]", "[] []", "[1]]", "[{]",
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_nesting_takes_no_stack() {
        let bomb = format!("[{}{},1]", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(split(&bomb).unwrap().len(), 2);
        assert!(split(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn too_many_are_not_counted_to_the_end() {
        assert_eq!(elements(b"[1,2,3,4,5", 3).unwrap().len(), 4);
    }

    #[test]
    fn members_are_keys_and_values() {
        let text = r#"{ "a" : "x" , "b\"" : {"a":[1,2]} , "c":3}"#;
        let members = |text: &str| super::members(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let told: Vec<_> = members(text).unwrap().into_iter().map(|(k, v)| (&text[k], &text[v])).collect();
        assert_eq!(told, [(r#""a""#, r#""x""#), (r#""b\"""#, r#"{"a":[1,2]}"#), (r#""c""#, "3")]);
        assert_eq!(members("{}"), Ok(Vec::new()));
        for bad in ["", "[1]", "{a:1}", "{\"a\"}", "1", "{\"a\":1", "{\"a\":1,}", "{\"a\":1,2}"] {
            assert_eq!(members(bad), Err(NoObject), "{bad}");
        }
    }

    #[test]
    fn a_fault_is_told_once_and_then_it_ends() {
        let told: Vec<_> = members(b"{\"a\":1,b").collect();
        assert_eq!(told, [Ok((1..4, 5..6)), Err(NoObject)]);
    }
}
