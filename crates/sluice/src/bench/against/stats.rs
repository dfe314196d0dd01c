//! Medians and spread: on a noisy machine one figure alone means little.

use serde_json::{Value, json};

/// The median of some values, the smallest and the largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        // Of an even number, the mean of the two in the middle.
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }

    /// The values of two runs of rounds, round by round.
    pub(super) fn of_ratios(above: &[f64], below: &[f64]) -> Option<Self> {
        Self::of(above.iter().zip(below).map(|(above, below)| above / below.max(1e-9)))
    }

    pub(super) fn to_json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }

    /// With so many decimals, the spread in brackets if there is one.
    pub(super) fn show(self, decimals: usize, unit: &str) -> String {
        let Self { median, min, max } = self;
        let number = |value: f64| thousands(&format!("{value:.decimals$}"));
        if min == max {
            return format!("{}{unit}", number(median));
        }
        format!("{}{unit} ({}..{})", number(median), number(min), number(max))
    }
}

/// A number with commas between thousands.
fn thousands(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let mut shown = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    fraction.into_iter().for_each(|fraction| shown.extend(['.'].into_iter().chain(fraction.chars())));
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Spread::of([3.0, 1.0, 10.0]).unwrap();
        assert_eq!(odd, Spread { median: 3.0, min: 1.0, max: 10.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ratios = Spread::of_ratios(&[10.0, 20.0, 30.0], &[10.0, 10.0, 10.0]).unwrap();
        assert_eq!(ratios, Spread { median: 2.0, min: 1.0, max: 3.0 });
    }

    #[test]
    fn numbers_are_shown_with_their_spread() {
        assert_eq!(
            Spread { median: 17500.4, min: 950.0, max: 1_234_567.0 }.show(0, "/s"),
            "17,500/s (950..1,234,567)"
        );
        assert_eq!(Spread::of([0.256]).unwrap().show(2, ""), "0.26");
        assert_eq!(Spread::of([1000.5]).unwrap().show(1, " ms"), "1,000.5 ms");
    }
}
