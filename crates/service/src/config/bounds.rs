//! What numbers among the settings may be; each function says the fault there is.

use std::{fmt::Display, ops::RangeInclusive};

/// More than any process has descriptors for.
const COUNT_MOST: usize = 1 << 20;
/// A year: beyond it clocks overflow sooner than anybody waits.
pub const SECONDS_MOST: u64 = 365 * 24 * 3600;

/// How many of something there may be at the same time: from 1 to 1048576.
#[must_use]
pub fn count(name: &str, value: usize) -> Option<String> {
    within(name, value, 1..=COUNT_MOST)
}

/// How long something may take, in seconds: from 1 to a year.
#[must_use]
pub fn seconds(name: &str, value: u64) -> Option<String> {
    within(name, value, 1..=SECONDS_MOST)
}

/// From one number to another.
#[must_use]
pub fn within<T: Display + PartialOrd>(name: &str, value: T, range: RangeInclusive<T>) -> Option<String> {
    let fault = || format!("{name}: must be from {} to {}", range.start(), range.end());
    (!range.contains(&value)).then(fault)
}

/// So much, or more.
#[must_use]
pub fn at_least<T: Display + PartialOrd>(name: &str, value: T, least: T) -> Option<String> {
    (value < least).then(|| format!("{name}: must be at least {least}"))
}
