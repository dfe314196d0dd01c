//! Where the bytes come from: a file, read once for its checksum and once for
//! each try, or something that can be read only once.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use indicatif::ProgressBar;
use md5::{Digest as _, Md5};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    failure::{Context, Failure},
    files::open_input,
    progress,
};

/// Bytes of a chunk. Four are on their way at most.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNKS_AHEAD: usize = 4;

/// What is published.
pub(super) struct Source {
    path: PathBuf,
    reader: Option<Box<dyn Read + Send>>,
    /// Bytes, when known before.
    size: Option<u64>,
}

/// A piece of a source on its way.
pub(super) enum Piece {
    Chunk(Bytes),
    /// All was read. Without it the end of the pieces is a failure.
    End,
}

/// What was read, and so sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// MD5, lower-case hex.
    pub(super) checksum: String,
    pub(super) size: u64,
}

/// A source that is being read on a thread of its own.
pub(super) struct Reading {
    pub(super) pieces: mpsc::Receiver<Piece>,
    /// What was sent; `None` if nobody wanted the rest.
    pub(super) ends: JoinHandle<io::Result<Option<Sent>>>,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let path = path.to_owned();
        if path == Path::new("-") {
            return Ok(Self { path, reader: Some(Box::new(io::stdin())), size: None });
        }
        let (file, size) = open_input(&path)?;
        Ok(Self { path, reader: Some(Box::new(file)), size })
    }

    /// Whether it can be read again.
    pub(super) fn can_be_read_again(&self) -> bool {
        self.size.is_some()
    }

    /// Bytes, when known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The MD5 of a source that can be read again.
    pub(super) async fn checksum(&self) -> Result<Option<String>, Failure> {
        if !self.can_be_read_again() {
            return Ok(None);
        }
        let (path, bar) = (self.path.clone(), progress::bytes(self.size, "checksum"));
        let work = tokio::task::spawn_blocking(move || {
            let mut file = File::open(&path).context(path.display())?;
            let sum = checksum_of(&mut file, &bar).context(path.display());
            bar.finish_and_clear();
            sum
        });
        work.await.context("reader")?.map(Some)
    }

    /// Begins to read from the start.
    pub(super) fn read(&mut self) -> Result<Reading, Failure> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => Box::new(File::open(&self.path).context(self.path.display())?),
        };
        let (to, pieces) = mpsc::channel(CHUNKS_AHEAD);
        Ok(Reading { pieces, ends: tokio::task::spawn_blocking(move || read(reader, &to)) })
    }
}

fn checksum_of(reader: &mut impl Read, bar: &ProgressBar) -> io::Result<String> {
    let (mut md5, mut buffer) = (Md5::new(), vec![0; CHUNK_BYTES]);
    loop {
        let count = fill(reader, &mut buffer)?;
        if count == 0 {
            return Ok(hex::encode(md5.finalize()));
        }
        md5.update(&buffer[..count]);
        bar.inc(count as u64);
    }
}

fn read(mut reader: impl Read, to: &mpsc::Sender<Piece>) -> io::Result<Option<Sent>> {
    let (mut md5, mut size) = (Md5::new(), 0);
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        let count = fill(&mut reader, &mut chunk)?;
        chunk.truncate(count);
        md5.update(&chunk);
        size += count as u64;
        let piece = if count == 0 { Piece::End } else { Piece::Chunk(chunk.freeze()) };
        if to.blocking_send(piece).is_err() {
            return Ok(None);
        }
        if count == 0 {
            return Ok(Some(Sent { checksum: hex::encode(md5.finalize()), size }));
        }
    }
}

/// Reads until the buffer is full or nothing more comes.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(reader: impl Read + Send + 'static) -> (Vec<usize>, bool, io::Result<Option<Sent>>) {
        let (to, mut pieces) = mpsc::channel(CHUNKS_AHEAD);
        let ends = tokio::task::spawn_blocking(move || read(reader, &to));
        let (mut sizes, mut ended) = (vec![], false);
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Chunk(bytes) => sizes.push(bytes.len()),
                Piece::End => ended = true,
            }
        }
        (sizes, ended, ends.await.unwrap())
    }

    #[tokio::test]
    async fn chunks_are_full_but_for_the_last_and_the_end_is_said() {
        let (sizes, ended, sent) = pieces(io::repeat(7).take(2 * CHUNK_BYTES as u64 + 1)).await;
        assert_eq!((sizes, ended), (vec![CHUNK_BYTES, CHUNK_BYTES, 1], true));
        assert_eq!(sent.unwrap().unwrap().size, 2 * CHUNK_BYTES as u64 + 1);
        let (sizes, ended, sent) = pieces(io::empty()).await;
        assert_eq!((sizes, ended), (vec![], true));
        assert_eq!(sent.unwrap().unwrap().checksum, "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[tokio::test]
    async fn a_fault_never_looks_like_the_end() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let (_, ended, sent) = pieces(io::repeat(1).take(10).chain(Broken)).await;
        assert!(!ended && sent.is_err());
    }

    #[test]
    fn a_file_can_be_read_again_and_a_device_can_not() {
        assert!(Source::open(Path::new(file!())).is_err(), "tests run in the crate's folder");
        assert!(Source::open(Path::new("Cargo.toml")).unwrap().can_be_read_again());
        assert!(!Source::open(Path::new("/dev/null")).unwrap().can_be_read_again());
        assert_eq!(Source::open(Path::new("src")).err().unwrap().exit(), 2);
    }
}
