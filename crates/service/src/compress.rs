//! Compression of what is kept. Each thread keeps its context: to make one costs more
//! than to compress a small batch with it.

use std::{cell::RefCell, io};

use zstd::bulk::Compressor;

/// Zstandard's fastest ordinary level: the database is what takes the time.
const LEVEL: i32 = 1;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses bytes to one Zstandard frame (RFC 8878).
///
/// # Errors
/// If there is no memory.
pub fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL)?),
        };
        compressor.compress(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_comes_back() {
        for size in [0, 1, 600, 1 << 20, 600] {
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let frame = compress(&bytes).unwrap();
            assert_eq!(zstd::bulk::decompress(&frame, size).unwrap(), bytes);
        }
    }
}
