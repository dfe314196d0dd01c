//! What became of all lines: counts by outcome and reason, with an example of
//! each.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use sluice_proto::ingest::v1::{Outcome, PublicationOutcome};

use crate::text::{Table, clean};

/// How one line ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The line's number, from 1.
    pub(crate) line: u64,
    pub(crate) outcome: Outcome,
    pub(crate) reason: String,
    pub(crate) ingest_id: String,
    pub(crate) chkpt: String,
    pub(crate) details: String,
    pub(crate) original_outcome: Outcome,
}

impl Ended {
    /// What the service answered for a line.
    pub(crate) fn of(line: u64, outcome: PublicationOutcome) -> Self {
        Self {
            line,
            outcome: outcome.outcome(),
            original_outcome: outcome.original_outcome(),
            reason: outcome.reason,
            ingest_id: outcome.ingest_id,
            chkpt: outcome.chkpt,
            details: outcome.details,
        }
    }

    /// Whether it came to an end that is not the publisher's fault.
    pub(crate) fn is_clean(&self) -> bool {
        !matches!(self.outcome, Outcome::Error | Outcome::Retry | Outcome::Unspecified)
    }

    /// The outcome as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "outcome": outcome_name(self.outcome),
            "reason": self.reason,
            "ingest_id": self.ingest_id,
            "chkpt": self.chkpt,
            "details": self.details,
            "original_outcome": match self.original_outcome {
                Outcome::Unspecified => "",
                original => outcome_name(original),
            },
        })
    }

    /// What to tell beside the outcome's name: ids and details. May be empty.
    pub(crate) fn more(&self) -> String {
        let id = match self.outcome {
            Outcome::Success => self.ingest_id.clone(),
            Outcome::Duplicate => {
                format!("was {} {}", outcome_name(self.original_outcome), self.ingest_id)
            }
            Outcome::Suppressed => format!("equal to {}", self.ingest_id),
            _ => String::new(),
        };
        let parts = [id.trim_end(), &self.details];
        clean(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
    }
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    example: String,
}

/// Counts over all lines.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    // In the order in which the outcomes are shown.
    groups: BTreeMap<(usize, String), Group>,
    unclean: u64,
}

/// The outcomes in the order in which they are shown.
pub(crate) const OUTCOMES: [Outcome; 6] = [
    Outcome::Success,
    Outcome::Duplicate,
    Outcome::Suppressed,
    Outcome::Throttled,
    Outcome::Retry,
    Outcome::Error,
];

/// An outcome's name: lower case.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::Retry => "retry",
        Outcome::Error => "error",
        Outcome::Suppressed => "suppressed",
        Outcome::Throttled => "throttled",
        Outcome::Duplicate => "duplicate",
        Outcome::Unspecified => "unspecified",
    }
}

impl Summary {
    /// Counts one line.
    pub(crate) fn add(&mut self, ended: &Ended) {
        let place = OUTCOMES.iter().position(|one| *one == ended.outcome).unwrap_or(OUTCOMES.len());
        let group = self.groups.entry((place, ended.reason.clone())).or_default();
        group.count += 1;
        if group.count == 1 {
            group.example = example(ended);
        }
        self.unclean += u64::from(!ended.is_clean());
    }

    /// How many lines ended so.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        let place = OUTCOMES.iter().position(|one| *one == outcome);
        self.groups.iter().filter(|((at, _), _)| Some(*at) == place).map(|(_, group)| group.count).sum()
    }

    /// How many lines there were.
    pub(crate) fn total(&self) -> u64 {
        self.groups.values().map(|group| group.count).sum()
    }

    /// Whether every line came to an end that is not the publisher's fault.
    pub(crate) fn is_clean(&self) -> bool {
        self.unclean == 0
    }

    /// The counts on one line, for a progress bar.
    pub(crate) fn line(&self) -> String {
        let counted = OUTCOMES.iter().map(|outcome| (*outcome, self.count(*outcome)));
        let shown = counted.filter(|(_, count)| *count > 0);
        shown
            .map(|(outcome, count)| format!("{} {count}", outcome_name(outcome)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Outcomes, counts, reasons and an example of each.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&["OUTCOME", "COUNT", "REASON", "EXAMPLE"]);
        for ((place, reason), group) in &self.groups {
            let outcome = OUTCOMES.get(*place).copied().unwrap_or(Outcome::Unspecified);
            table.row([
                outcome_name(outcome).to_owned(),
                group.count.to_string(),
                if reason.is_empty() { "-".to_owned() } else { reason.clone() },
                group.example.clone(),
            ]);
        }
        table
    }

    /// One line and the table.
    pub(crate) fn report(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(1e-3);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.total() as f64 / seconds;
        let noun = if self.total() == 1 { "observation" } else { "observations" };
        format!("{} {noun} in {seconds:.1} s, {rate:.0}/s\n\n{}", self.total(), self.table())
    }
}

fn example(ended: &Ended) -> String {
    let more = ended.more();
    if more.is_empty() { format!("line {}", ended.line) } else { format!("line {}: {more}", ended.line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(line: u64, outcome: Outcome, reason: &str) -> Ended {
        Ended {
            line,
            outcome,
            reason: reason.into(),
            ingest_id: "id".into(),
            chkpt: String::new(),
            details: String::new(),
            original_outcome: Outcome::Success,
        }
    }

    #[test]
    fn outcomes_are_counted_by_reason_with_the_first_as_example() {
        let mut summary = Summary::default();
        for line in 1..=3 {
            summary.add(&ended(line, Outcome::Success, ""));
        }
        summary.add(&ended(4, Outcome::Error, "SCHEMA"));
        summary.add(&ended(5, Outcome::Error, "INVALID_JSON"));
        assert_eq!((summary.total(), summary.count(Outcome::Error)), (5, 2));
        assert!(!summary.is_clean());
        assert_eq!(summary.line(), "success 3, error 2");
        let table = summary.table().to_string();
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[1].starts_with("success") && rows[1].contains("line 1: id"), "{table}");
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn what_was_never_decided_is_not_clean() {
        let mut summary = Summary::default();
        summary.add(&ended(1, Outcome::Duplicate, "CHKPT"));
        assert!(summary.is_clean());
        summary.add(&ended(2, Outcome::Retry, "NOT_KEPT"));
        assert!(!summary.is_clean());
    }
}
