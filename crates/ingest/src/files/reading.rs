//! What is found out about a file while its bytes pass: how many they are, their
//! hashes, and, of a file whose content may have to be looked into, the bytes
//! themselves, for as long as they are no more than an observation may have.

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::observation::FileRead;

/// The bytes so far.
pub struct Reading {
    bytes: u64,
    blake3: blake3::Hasher,
    md5: Md5,
    held: Option<Vec<u8>>,
    held_max: usize,
}

impl Reading {
    /// None so far. With `held_max`, up to so many bytes are held.
    #[must_use]
    pub fn new(held_max: Option<usize>) -> Self {
        Self {
            bytes: 0,
            blake3: blake3::Hasher::new(),
            md5: Md5::new(),
            held: held_max.map(|_| Vec::new()),
            held_max: held_max.unwrap_or_default(),
        }
    }

    /// Takes the next bytes. Whether they made the file too large to be held.
    pub fn take(&mut self, chunk: &[u8]) -> bool {
        self.bytes += chunk.len() as u64;
        self.blake3.update(chunk);
        self.md5.update(chunk);
        let Some(held) = &mut self.held else { return false };
        if held.len() + chunk.len() > self.held_max {
            self.held = None;
            return true;
        }
        held.extend_from_slice(chunk);
        false
    }

    /// How many bytes there were so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// MD5 of the bytes so far, lower-case hex.
    #[must_use]
    pub fn checksum(&self) -> String {
        hex::encode(self.md5.clone().finalize())
    }

    /// What is known of the bytes so far. What was held is handed out.
    pub fn read(&mut self) -> FileRead {
        FileRead {
            hash: self.blake3.finalize(),
            bytes: self.bytes,
            held: self.held.take().map(Bytes::from),
            media_type: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_up_to_the_bound() {
        let mut reading = Reading::new(Some(5));
        assert!(!reading.take(b"abc") && !reading.take(b"de"));
        assert_eq!(reading.read().held.as_deref(), Some(&b"abcde"[..]));
        let mut reading = Reading::new(Some(5));
        assert!(!reading.take(b"abc"));
        assert!(reading.take(b"def"), "too large now");
        assert!(!reading.take(b"g"), "it is said once");
        let read = reading.read();
        assert_eq!((read.held, read.bytes), (None, 7));
        assert_eq!(read.hash, blake3::hash(b"abcdefg"));
    }

    #[test]
    fn an_empty_file_is_one() {
        let mut reading = Reading::new(None);
        assert_eq!(reading.checksum(), "d41d8cd98f00b204e9800998ecf8427e");
        let read = reading.read();
        assert_eq!((read.bytes, read.held), (0, None));
        assert_eq!(Reading::new(Some(0)).read().held, Some(Bytes::new()));
    }
}
