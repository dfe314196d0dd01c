//! Frames, however the body is cut.

use std::sync::Arc;

use super::*;
use crate::{
    budget::{Budget, Measures},
    shares::Owner,
};

pub(crate) fn frame(flag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), payload].concat()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

struct Run {
    frames: Frames,
    account: Account,
    budget: Arc<Budget>,
}

impl Run {
    fn new(budget: usize, bytes_max: usize, single: bool) -> Self {
        let budget = Budget::new(budget, Measures::default());
        let frames = Frames::new(Some(Encoding::Gzip), None, bytes_max, single);
        Self { frames, account: Account::open(budget.clone(), Owner::Nobody), budget }
    }

    /// Passes a whole body through in pieces of a size; what comes out.
    fn pass(&mut self, body: &[u8], size: usize) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::new();
        for piece in body.chunks(size) {
            self.frames.push(Bytes::copy_from_slice(piece));
            out.extend(self.advance()?);
        }
        if self.frames.end() {
            out.extend(self.advance()?);
        }
        Ok(out)
    }

    fn advance(&mut self) -> Result<Vec<u8>, Stop> {
        let mut out = Vec::new();
        loop {
            self.frames.advance(&self.account)?;
            let Some(bytes) = self.frames.pop() else { return Ok(out) };
            out.extend(bytes);
            out.extend(std::iter::from_fn(|| self.frames.pop()).flatten());
        }
    }
}

fn reason(stop: Result<Vec<u8>, Stop>) -> &'static str {
    match stop.unwrap_err() {
        Stop::NoRoom(_) => "no room",
        Stop::Refused(error) => error.reason(),
    }
}

#[test]
fn messages_come_out_as_they_went_in_or_decompressed() {
    let long = vec![7; 5000];
    let sent = [
        frame(0, b"plain"),
        frame(0, b""),
        frame(1, &gzip(b"compressed")),
        frame(0, &long),
        frame(1, &gzip(&long)),
        frame(1, &gzip(b"")),
        frame(0, b"last"),
    ];
    let expected = [&b"plain"[..], b"", b"compressed", &long, &long, b"", b"last"].map(|text| frame(0, text));
    let bytes = 5 + 10 + 5000 + 5000 + 4;
    for size in [1, 2, 3, 5, 6, 7, 100, 4999, 100_000] {
        let mut run = Run::new(100_000, 5000, false);
        assert_eq!(run.pass(&sent.concat(), size).unwrap(), expected.concat(), "in pieces of {size}");
        assert!(!run.frames.is_partial() && !run.frames.is_awaited());
        assert_eq!(run.budget.used(), bytes, "all of it decompressed, nothing else");
        run.account.settle();
        assert_eq!(run.budget.used(), 0);
    }
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header_or_as_it_grows() {
    assert!(Run::new(1000, 10, true).pass(&frame(0, &[7; 10]), 100).is_ok());
    assert_eq!(reason(Run::new(1000, 10, true).pass(&frame(0, &[7; 11]), 5)), "REQUEST_TOO_LARGE");
    let small = |size| frame(1, &gzip(&vec![7; size]));
    assert!(Run::new(1_000_000, 100_000, true).pass(&small(100_000), 100).is_ok());
    let mut run = Run::new(1_000_000, 100_000, true);
    assert_eq!(reason(run.pass(&small(100_001), 100)), "REQUEST_TOO_LARGE");
    assert!(run.budget.used() < 1000, "what was decompressed is gone");
}

#[test]
fn what_finds_no_room_goes_on_where_it_stood_once_there_is() {
    for message in [frame(0, &[7; 80]), frame(1, &gzip(&[7; 80]))] {
        let mut run = Run::new(200, 80, false);
        // Of somebody else: each may have as much as is free.
        let acme = Owner::Organisation("acme".parse().unwrap());
        let other = Account::open(run.budget.clone(), acme);
        other.grow(150).unwrap();
        run.frames.push([frame(0, b"first"), message].concat().into());
        assert!(matches!(run.frames.advance(&run.account), Err(Stop::NoRoom(_))));
        let first: Vec<u8> = std::iter::from_fn(|| run.frames.pop()).flatten().collect();
        assert!(first.starts_with(&frame(0, b"first")), "what came before is passed on");
        drop(other);
        run.account.settle();
        run.frames.advance(&run.account).unwrap();
        let rest: Vec<u8> = std::iter::from_fn(|| run.frames.pop()).flatten().collect();
        assert_eq!([first, rest].concat(), [frame(0, b"first"), frame(0, &[7; 80])].concat());
        assert_eq!(run.budget.used(), 80);
    }
}

#[test]
fn the_only_message_is_passed_on_with_the_end() {
    for message in [frame(0, b"message"), frame(1, &gzip(b"message"))] {
        let mut run = Run::new(100, 50, true);
        run.frames.push(message.into());
        let before = run.advance().unwrap();
        assert!(before.len() <= HEADER_BYTES, "{before:?}");
        run.frames.push(Bytes::new());
        assert_eq!(run.advance().unwrap(), b"");
        assert!(run.frames.is_awaited() && run.frames.end());
        assert_eq!([before, run.advance().unwrap()].concat(), frame(0, b"message"));
        assert!(!run.frames.is_partial());
    }
}

#[test]
fn what_is_no_frame_is_malformed() {
    for flag in [0, 1] {
        let first = if flag == 0 { frame(0, b"a") } else { frame(1, &gzip(b"a")) };
        let two = [first, frame(0, b"b")].concat();
        for size in [1, 6, 100] {
            assert_eq!(reason(Run::new(100, 50, true).pass(&two, size)), "MALFORMED_REQUEST", "{size}");
        }
    }
    for bad in [frame(2, b"a"), frame(1, b"not gzip")] {
        assert_eq!(reason(Run::new(100, 10, false).pass(&bad, 100)), "MALFORMED_REQUEST");
    }
    let mut run = Run::new(100, 10, false);
    run.pass(&frame(0, b"abc")[..7], 100).unwrap();
    assert!(run.frames.is_partial());
}
