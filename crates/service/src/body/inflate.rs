//! Decompression of gRPC messages, piece by piece, so that whoever takes the pieces can
//! stop at a limit before anything is decoded.

use std::io::{Error, ErrorKind, Read};

use http::HeaderValue;

/// How much is decompressed at a time.
const STEP_BYTES: usize = 64 * 1024;
/// Largest window that a zstd frame may ask for, as a power of two: 8 MiB, as much
/// as levels up to 19 use.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A compression that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    /// The one that `grpc-encoding` names.
    pub(super) fn named(value: &HeaderValue) -> Option<Self> {
        match value.as_bytes() {
            b"gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Decompresses a whole message, and gives it to `take` in pieces.
    ///
    /// # Errors
    /// What `take` says, or that the bytes are not so compressed.
    pub(super) fn inflate<E>(
        self,
        compressed: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
        malformed: impl Fn() -> E,
    ) -> Result<(), E> {
        let mut reader: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(compressed)),
            Self::Zstd => Box::new(zstd_reader(compressed).map_err(|_| malformed())?),
        };
        let mut piece = vec![0; STEP_BYTES];
        loop {
            let read = fill(&mut reader, &mut piece).map_err(|_| malformed())?;
            if read == 0 {
                return Ok(());
            }
            take(&piece[..read])?;
        }
    }
}

fn zstd_reader(compressed: &[u8]) -> Result<impl Read, Error> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(compressed)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// Reads until the buffer is full or there is no more.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn compressed(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }

    fn inflated(encoding: Encoding, compressed: &[u8], max: usize) -> Result<Vec<u8>, &'static str> {
        let mut inflated = Vec::new();
        let take = |piece: &[u8]| {
            inflated.extend_from_slice(piece);
            if inflated.len() > max { Err("too large") } else { Ok(()) }
        };
        encoding.inflate(compressed, take, || "malformed")?;
        Ok(inflated)
    }

    #[test]
    fn what_was_compressed_comes_out_within_the_limit_and_not_beyond() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            for size in [0, 1, STEP_BYTES, STEP_BYTES + 1, 1_000_000] {
                let bytes = vec![7; size];
                let small = compressed(encoding, &bytes);
                assert_eq!(inflated(encoding, &small, size).unwrap(), bytes, "{encoding:?} {size}");
                if size > 0 {
                    assert_eq!(inflated(encoding, &small, size - 1), Err("too large"), "{encoding:?} {size}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_compressed_so_is_malformed() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let cut = compressed(encoding, b"some text that is cut off");
            for bytes in [&cut[..cut.len() - 1], b"nonsense that is long enough"] {
                assert_eq!(inflated(encoding, bytes, 1000), Err("malformed"), "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_zstd_frame_that_asks_for_a_large_window_is_refused() {
        let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        writer.window_log(24).unwrap();
        writer.write_all(&vec![7; 1 << 24]).unwrap();
        assert_eq!(inflated(Encoding::Zstd, &writer.finish().unwrap(), usize::MAX), Err("malformed"));
    }
}
