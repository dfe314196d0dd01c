//! What the rounds of a scenario gave, as JSON and as tables that can be pasted
//! into a page.

use serde_json::{Map, Value, json};

use super::stats::Spread;
use crate::bench::report::{Percentiles, Report};

/// One side's rounds.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) rounds: Vec<Report>,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    AtLeast(f64),
    Below(f64),
}

/// One figure that has a target.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: Spread,
    pub(super) bound: Bound,
}

/// One scenario.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) scenario: &'static str,
    /// What was done.
    pub(super) what: String,
    pub(super) sluice: Option<Side>,
    /// What it is compared with.
    pub(super) floor: Option<Side>,
    /// The first one, if it has no unit, is the ratio.
    pub(super) figures: Vec<Figure>,
}

impl Side {
    pub(super) fn named(name: &'static str) -> Self {
        Self { name, rounds: Vec::new() }
    }

    pub(super) fn each(&self, value: impl Fn(&Report) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(value).collect()
    }

    pub(super) fn rates(&self) -> Vec<f64> {
        self.each(|round| Some(round.per_second()))
    }

    fn median(&self, value: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        Spread::of(self.each(value)).map(|spread| spread.median)
    }

    /// CPU seconds of everything per 100,000: generator, ingest, results, PostgreSQL.
    fn cpu(&self) -> [f64; 4] {
        let per = |report: &Report, seconds: f64| Some(seconds * 1e5 / count(report.done()).max(1.0));
        [
            self.median(|round| per(round, round.used.cpu.generator)),
            self.median(|round| per(round, round.used.cpu.ingest)),
            self.median(|round| per(round, round.used.cpu.results)),
            self.median(|round| per(round, round.used.cpu.postgres)),
        ]
        .map(Option::unwrap_or_default)
    }

    fn wal(&self) -> Option<f64> {
        self.median(|round| Some(count(round.used.wal_bytes?) / count(round.done()).max(1.0)))
    }

    fn generator_share(&self) -> f64 {
        self.median(|round| Some(round.used.cpu.generator_share(round.elapsed))).unwrap_or_default()
    }

    fn percentiles(&self, of: impl Fn(&Report) -> Option<Percentiles>) -> Option<Percentiles> {
        let median = |part: fn(Percentiles) -> f64| self.median(|round| of(round).map(part));
        Some(Percentiles {
            p50: median(|p| p.p50)?,
            p95: median(|p| p.p95)?,
            p99: median(|p| p.p99)?,
            max: median(|p| p.max)?,
        })
    }

    fn to_json(&self) -> Value {
        let [generator, ingest, results, postgres] = self.cpu();
        json!({
            "name": self.name,
            "rounds": self.rounds.len(),
            "per_second": Spread::of(self.rates()).map(Spread::to_json),
            "latency_ms": self.percentiles(|round| round.latency).map(Percentiles::to_json),
            "publish_to_available_ms": self.percentiles(|round| round.available).map(Percentiles::to_json),
            "cpu_seconds_per_100000": {
                "generator": generator, "ingest": ingest, "results": results, "postgres": postgres,
            },
            "wal_bytes_per_observation": self.wal(),
            "generator_cpu_share": self.generator_share(),
        })
    }

    /// One row of the table of details.
    fn details(&self, scenario: &str) -> String {
        let ms = |percentiles: Option<Percentiles>| {
            percentiles.map_or(String::new(), |p| format!("{:.1} / {:.1} / {:.1}", p.p50, p.p95, p.p99))
        };
        let [generator, ingest, results, postgres] = self.cpu();
        let services =
            if ingest + results > 0.005 { format!("{ingest:.2} / {results:.2}") } else { String::new() };
        format!(
            "| {scenario} | {} | {} | {} | {services} | {postgres:.2} | {generator:.2} ({:.0} %) | {} |",
            self.name,
            ms(self.percentiles(|round| round.latency)),
            ms(self.percentiles(|round| round.available)),
            100.0 * self.generator_share(),
            self.wal().map_or(String::new(), |bytes| format!("{bytes:.0}")),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

impl Figure {
    /// Whether the median meets the target.
    pub(super) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.value.median >= bound,
            Bound::Below(bound) => self.value.median < bound,
        }
    }

    fn target(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {bound}{}", self.unit),
            Bound::Below(bound) => format!("below {bound}{}", self.unit),
        }
    }

    fn to_json(&self) -> Value {
        let bound = match self.bound {
            Bound::AtLeast(bound) => json!({"at_least": bound}),
            Bound::Below(bound) => json!({"below": bound}),
        };
        json!({
            "name": self.name, "unit": self.unit.trim(), "value": self.value.to_json(),
            "target": bound, "met": self.is_met(),
        })
    }
}

impl Outcome {
    /// Whether every target is met.
    pub(super) fn is_met(&self) -> bool {
        self.figures.iter().all(Figure::is_met)
    }

    /// Whether the rounds mean anything.
    pub(super) fn is_clean(&self) -> bool {
        [&self.sluice, &self.floor].into_iter().flatten().all(|side| side.rounds.iter().all(Report::is_clean))
    }

    pub(super) fn to_json(&self) -> Value {
        // The one that is furthest from its target speaks for all.
        let ratios = self.figures.iter().filter(|figure| figure.unit.is_empty());
        let ratio = ratios.min_by(|a, b| a.margin().total_cmp(&b.margin()));
        let side = |side: &Option<Side>| side.as_ref().map(Side::to_json);
        let mut json = Map::new();
        json.insert("scenario".into(), self.scenario.into());
        json.insert("what".into(), self.what.as_str().into());
        json.insert("ratio".into(), ratio.map(|figure| figure.value.median).into());
        json.insert("sluice".into(), side(&self.sluice).into());
        json.insert("floor".into(), side(&self.floor).into());
        json.insert("figures".into(), self.figures.iter().map(Figure::to_json).collect());
        json.insert("met".into(), self.is_met().into());
        json.insert("clean".into(), self.is_clean().into());
        Value::Object(json)
    }
}

impl Figure {
    /// How far above what is asked for; below 1 the target is missed.
    fn margin(&self) -> f64 {
        match self.bound {
            Bound::AtLeast(bound) => self.value.median / bound,
            Bound::Below(bound) => bound / self.value.median.max(1e-9),
        }
    }
}

/// The table of figures, and the one of details.
pub(super) fn tables(outcomes: &[Outcome]) -> String {
    let rate = |side: &Option<Side>| {
        let spread = side.as_ref().and_then(|side| Spread::of(side.rates()));
        spread.map_or(String::new(), |spread| spread.show(0, "/s"))
    };
    let mut lines = vec![
        "| # | what | Sluice | compared with | | target | |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for outcome in outcomes {
        let against = outcome.floor.as_ref().map_or(String::new(), |side| format!("{}: ", side.name));
        for (at, figure) in outcome.figures.iter().enumerate() {
            let (what, sluice, floor) = if at == 0 {
                (outcome.what.clone(), rate(&outcome.sluice), against.clone() + &rate(&outcome.floor))
            } else {
                <(String, String, String)>::default()
            };
            let decimals = if figure.unit == " MiB" { 0 } else { 2 };
            lines.push(format!(
                "| {} | {what} | {sluice} | {floor} | {} {} | {} | {} |",
                outcome.scenario,
                figure.name,
                figure.value.show(decimals, figure.unit),
                figure.target(),
                if figure.is_met() { "met" } else { "**missed**" },
            ));
        }
    }
    lines.push(String::new());
    lines.push(
        "| # | side | call p50 / p95 / p99, ms | publish to available, ms | CPU s per 100,000: ingest / results | PostgreSQL | generator (share of machine) | WAL bytes each |"
            .to_owned(),
    );
    lines.push("| --- | --- | --- | --- | --- | --- | --- | --- |".to_owned());
    for outcome in outcomes {
        let sides = [&outcome.sluice, &outcome.floor].into_iter().flatten();
        lines.extend(sides.filter(|side| !side.rounds.is_empty()).map(|side| side.details(outcome.scenario)));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: &'static str, value: f64, bound: Bound) -> Figure {
        Figure { name: "ratio", unit, value: Spread::of([value]).unwrap(), bound }
    }

    #[test]
    fn targets_hold_on_both_sides_of_their_bounds() {
        assert!(figure("", 1.0, Bound::AtLeast(1.0)).is_met());
        assert!(!figure("", 0.99, Bound::AtLeast(1.0)).is_met());
        assert!(figure("", 99.9, Bound::Below(100.0)).is_met());
        assert!(!figure("", 100.0, Bound::Below(100.0)).is_met());
    }

    #[test]
    fn the_ratio_is_the_one_that_is_worst_off() {
        let figures = vec![
            figure("", 1.5, Bound::Below(2.5)),
            figure("", 3.0, Bound::Below(2.5)),
            figure(" ms", 500.0, Bound::Below(1.0)),
        ];
        let outcome = Outcome { scenario: "S5", what: "x".into(), sluice: None, floor: None, figures };
        let json = outcome.to_json();
        assert_eq!((json["ratio"].as_f64(), json["met"].as_bool()), (Some(3.0), Some(false)));
        let table = tables(&[outcome]);
        assert!(
            table.contains("3.00") && table.contains("**missed**") && table.contains("below 2.5"),
            "{table}"
        );
    }
}
