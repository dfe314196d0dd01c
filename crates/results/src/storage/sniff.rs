//! The media type of a file whose publisher gave none, from its first bytes.

/// So many bytes are looked at.
pub const BYTES: usize = 8 * 1024;
const UNKNOWN: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The type that the first bytes say, of a file that is `whole` or goes on.
#[must_use]
pub fn media_type(first: &[u8], whole: bool) -> &'static str {
    if let Some(found) = infer::get(first) {
        return found.mime_type();
    }
    let text = match std::str::from_utf8(first) {
        Ok(text) => Some(text),
        // A character may have been cut in two.
        Err(fault) if !whole && fault.error_len().is_none() => {
            std::str::from_utf8(&first[..fault.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let plain = |text: &str| text.chars().all(|c| !c.is_control() || "\t\n\r\u{c}".contains(c));
    match text {
        Some(text) if !text.is_empty() && plain(text) => {
            if is_json(text, whole) {
                JSON
            } else {
                TEXT
            }
        }
        _ => UNKNOWN,
    }
}

/// Whether a text is an object or an array, or may become one. Several values, one a line,
/// are none of both.
fn is_json(text: &str, whole: bool) -> bool {
    // Into a tree: what is read to be ignored is not told to end too early within a number.
    text.trim_ascii_start().starts_with(['{', '['])
        && match serde_json::from_str::<serde_json::Value>(text) {
            Ok(_) => true,
            Err(fault) => !whole && fault.is_eof(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_type() {
        for (bytes, whole, expected) in [
            (&b"%PDF-1.7\n"[..], true, "application/pdf"),
            (b"\x89PNG\r\n\x1a\n", true, "image/png"),
            (b"\x1f\x8b\x08", true, "application/gzip"),
            (b"hello\n", true, TEXT),
            ("h\u{e9}".as_bytes(), true, TEXT),
            (&"h\u{e9}".as_bytes()[..2], false, TEXT),
            (&"h\u{e9}".as_bytes()[..2], true, UNKNOWN),
            (b"\x00\x01\x02", true, UNKNOWN),
            (b"", true, UNKNOWN),
            (b"{}", true, JSON),
            (b" \r\n\t[1, {\"a\": null}]\n", true, JSON),
            (b"{\"a\":[1", false, JSON),
            (b"{\"a\":[1", true, TEXT),
            // One value a line, and INI.
            (b"{\"a\":1}\n{\"a\":2}\n", true, TEXT),
            (b"{\"a\":1}\n{\"a\"", false, TEXT),
            (b"[section]\nkey=value\n", true, TEXT),
            (b"[section", false, TEXT),
            (b"1", true, TEXT),
            (b"\"{}\"", true, TEXT),
            (b"{a:1}", false, TEXT),
        ] {
            assert_eq!(media_type(bytes, whole), expected, "{bytes:?}");
        }
    }

    #[test]
    fn json_is_json_wherever_it_was_cut() {
        let text =
            r#"{"a": [-1.5e-3, 0, 12], "\u00e9\ud83d\ude00\n": [true, false, null, {}, []], "é": "é"} "#;
        for end in 1..text.len() {
            assert_eq!(media_type(&text.as_bytes()[..end], false), JSON, "{end} bytes");
        }
        let end = text.trim_end().len();
        assert_eq!(media_type(&text.as_bytes()[..end], true), JSON);
        assert_eq!(media_type(&text.as_bytes()[..end - 1], true), TEXT);
    }
}
