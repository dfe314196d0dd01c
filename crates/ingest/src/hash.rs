//! The narrow keys of the gate's tables: 128 bits of BLAKE3 over parts that are
//! length-prefixed and begin with a domain, so that no two kinds of key and no
//! two ways to cut the parts can meet. The organisation always leads.

use uuid::Uuid;

/// A key over parts.
#[must_use]
pub fn key(domain: &str, parts: &[&[u8]]) -> Uuid {
    finish(&start(domain, parts))
}

/// Begins a key whose last part is fed in by the caller.
#[must_use]
pub fn start(domain: &str, parts: &[&[u8]]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    feed(&mut hasher, domain.as_bytes());
    for part in parts {
        feed(&mut hasher, part);
    }
    hasher
}

/// Feeds one length-prefixed part.
pub fn feed(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
}

/// The first 128 bits.
#[must_use]
pub fn finish(hasher: &blake3::Hasher) -> Uuid {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Uuid::from_bytes(bytes)
}

/// The hash of a content, kept beside its marker.
#[must_use]
pub fn content(data: &[u8]) -> blake3::Hash {
    blake3::hash(data)
}

/// 64 bits of a content's hash: enough to notice that a resend differs.
#[must_use]
pub fn fingerprint(content: &blake3::Hash) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *content.as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_can_not_be_cut_differently() {
        assert_ne!(key("m", &[b"ab", b"c"]), key("m", &[b"a", b"bc"]));
        assert_ne!(key("m", &[b"a"]), key("w", &[b"a"]));
        assert_ne!(key("m", &[b"a", b""]), key("m", &[b"a"]));
    }
}
