//! The media type of a file whose publisher gave none, from its first bytes.

/// So many bytes are looked at.
pub const BYTES: usize = 8 * 1024;
const UNKNOWN: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

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
        Some(text) if !text.is_empty() && plain(text) => TEXT,
        _ => UNKNOWN,
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
        ] {
            assert_eq!(media_type(bytes, whole), expected, "{bytes:?}");
        }
    }
}
