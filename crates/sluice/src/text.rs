//! Text for terminals: aligned tables, durations, times. What came from a
//! service is shown with control characters escaped: another tenant's text must
//! not steer the reader's terminal.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;
use serde_json::Value;

use crate::failure::Failure;

/// Units of durations, in seconds, the largest first.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// Longest cell of a table, in characters.
const CELL_CHARS_MAX: usize = 120;

/// Prints a line to standard output, or a text that ends in one. Unlike
/// `println!` it fails when nobody reads any more (`| head`), so that a command
/// ends there instead of panicking.
macro_rules! out {
    ($($part:tt)*) => { $crate::text::print(&format!($($part)*)) };
}
pub(crate) use out;

/// Tells the person at the terminal, a line on standard error. Unlike `eprintln!` it
/// does not panic when nobody reads: then nobody is told.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stderr().lock(), $($part)*));
    }};
}
pub(crate) use say;

/// See [`out!`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let ending = if text.ends_with('\n') { "" } else { "\n" };
    let mut stdout = std::io::stdout().lock();
    let written = write!(stdout, "{text}{ending}").and_then(|()| stdout.flush());
    written.map_err(|fault| Failure::output("standard output", &fault))
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// An object, field by field. What stands in a field is shown whole: it may be a URL.
    pub(crate) fn fields(of: &Value) -> Self {
        let mut table = Self::new(&["FIELD", "VALUE"]);
        for (field, value) in of.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.rows.push(vec![visible(field), visible(&text)]);
        }
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |row: &Vec<String>, at: usize| row.get(at).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> =
            (0..columns).map(|at| self.rows.iter().map(|row| width_of(row, at)).max().unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text as it may be shown: no control characters, not endless.
pub(crate) fn clean(text: &str) -> String {
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => visible(&text[..end]) + "…",
        None => visible(text),
    }
}

/// Text of any length as it may be shown: no control characters.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Reads `90s`, `15m`, `1h30m`, `1d`, `2w` as seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, String> {
    let fault = || format!("`{text}` is not a duration such as 90s, 15m, 12h or 1d");
    let (mut total, mut digits) = (0_u64, String::new());
    for character in text.chars() {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == character).ok_or_else(fault)?;
        let count: u64 = digits.parse().map_err(|_| fault())?;
        digits.clear();
        total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(fault)?;
    }
    if digits.is_empty() && !text.is_empty() { Ok(total) } else { Err(fault()) }
}

/// The same, and a bare number of seconds.
pub(crate) fn parse_seconds_or_bare(text: &str) -> Result<u64, String> {
    text.parse().or_else(|_| parse_seconds(text))
}

/// Seconds as [`parse_seconds`] reads them.
pub(crate) fn seconds(mut total: u64) -> String {
    if total == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    // Weeks are read but never shown: `7d` says more than `1w` among days.
    for (name, unit) in &UNITS[1..] {
        if total >= *unit {
            text.push_str(&format!("{}{name}", total / unit));
            total %= unit;
        }
    }
    text
}

/// A protobuf duration of the contract: whole seconds, never negative.
pub(crate) fn proto_seconds(duration: Option<&prost_types::Duration>) -> Option<u64> {
    duration.and_then(|duration| u64::try_from(duration.seconds).ok())
}

/// Seconds as a protobuf duration.
pub(crate) fn to_proto(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

/// Reads a time: RFC 3339 such as `2026-02-28T12:00:00Z`, or a duration such as
/// `15m`, which means that long ago.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_seconds(text) {
        let then = SystemTime::now().checked_sub(Duration::from_secs(ago));
        return then.map(Timestamp::from).ok_or_else(|| format!("`{text}` is too long ago"));
    }
    let fault = || format!("`{text}` is neither a time such as 2026-02-28T12:00:00Z nor a duration");
    text.parse().map_err(|_| fault())
}

/// A time of the contract, or nothing.
pub(crate) fn time(timestamp: Option<&Timestamp>) -> Option<String> {
    timestamp.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("1d", 86_400), ("1h30m", 5_400), ("1w", 604_800)]
        {
            assert_eq!(parse_seconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "15", "m", "1.5h", "-1s", "1y", "99999999999999999999s", "999999999999999999w"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        assert_eq!([parse_seconds_or_bare("60"), parse_seconds_or_bare("5m")], [Ok(60), Ok(300)]);
        assert!(parse_seconds_or_bare("-1").is_err());
        assert_eq!([seconds(0), seconds(90), seconds(90_000)], ["0s", "1m30s", "1d1h"]);
    }

    #[test]
    fn times_are_read_as_dates_or_as_ago() {
        assert_eq!(parse_time("1970-01-01T00:01:00Z").unwrap().seconds, 60);
        assert!(parse_time("15m").unwrap().seconds > 1_700_000_000);
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn a_table_is_aligned_and_shows_no_control_characters() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["1".into(), "\u{1b}[2Jred".into()]);
        table.row(["1000".into(), "x".into()]);
        assert_eq!(table.to_string(), "ID    NAME\n1     \\u{1b}[2Jred\n1000  x\n");
    }
}
