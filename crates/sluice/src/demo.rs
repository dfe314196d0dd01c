//! `sluice demo`: the whole pair at work on a sample file, from nothing to
//! nothing, with every claim checked on the way.

use std::{
    collections::HashMap,
    io::Cursor,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use sluice_proto::{
    ingest::v1::{Outcome, PutDefinitionRequest},
    results::v1::{
        AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, ListResultsRequest, Result as Record,
        result::State,
    },
};
use sluice_service::shutdown;
use tokio_util::sync::CancellationToken;

use crate::{
    definitions::read_definitions,
    failure::{Context, Failure},
    private::{Options, PrivatePair},
    publish::{Ended, Plan, Published, Summary, outcome_name, publish},
    results::{fetch, table},
    target::Target,
    text::out,
};

/// A few hundred observations such as security tools make, with the mishaps
/// that happen to such tools.
const SAMPLE: &str = include_str!("../samples/security-observations.jsonl");
/// The rules for them.
const DEFINITIONS: &str = include_str!("../samples/definitions.json");
/// What becomes of the sample, published in its order on an empty pair.
const EXPECTED: [(Outcome, u64); 5] = [
    (Outcome::Success, 181),
    (Outcome::Duplicate, 13),
    (Outcome::Suppressed, 91),
    (Outcome::Throttled, 28),
    (Outcome::Error, 7),
];
/// How long an accepted observation may take to become a result.
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// So many results are shown, and so many are acknowledged one by one.
const SHOWN: usize = 5;
const ACKNOWLEDGED_SINGLY: usize = 3;

/// What the demo may do.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Never install PostgreSQL's server programs.
    #[arg(long)]
    no_install: bool,
}

/// Runs the demo.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let stop = shutdown::on_signal().context("signals")?;
    out!("Starting PostgreSQL and both services on free ports, in a folder that goes afterwards.")?;
    let pair = tokio::select! {
        pair = PrivatePair::start(Options::temporary(!args.no_install)) => pair?,
        () = stop.cancelled() => return Ok(ExitCode::FAILURE),
    };
    let demo = Demo::new(Target::of(&pair.ready()));
    let shown = tokio::select! {
        shown = demo.show() => shown,
        () = stop.cancelled() => Err(Failure::new("stopped before the end")),
    };
    pair.stop().await;
    shown?;
    let sluice = crate::invocation();
    out!(
        "
All of it held. To go on with a pair that stays:
  {sluice} dev                 keeps its data, and says how to call it
  {sluice} publish FILE.jsonl  publishes your own observations to it
  {sluice} bench               measures this machine
  {sluice} --help              the rest"
    )?;
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    target: Target,
    /// The ids of the accepted lines.
    accepted: Arc<Mutex<HashMap<String, u64>>>,
}

impl Demo {
    fn new(target: Target) -> Self {
        Self { target, accepted: Arc::default() }
    }

    async fn show(&self) -> Result<(), Failure> {
        self.put_definitions().await?;

        heading("Publish the sample: each observation has one outcome, and it is final")?;
        let summary = self.publish().await?;
        check_counts(&summary)?;

        heading("What was accepted is there as results, each exactly once")?;
        let results = self.wait_for_results().await?;
        out!("{}", table(&results[..SHOWN.min(results.len())]))?;
        out!("… and {} more.", results.len().saturating_sub(SHOWN))?;

        heading("Download one and compare it with its line")?;
        self.download(&results).await?;

        heading("Acknowledge them: some one by one, the rest at once")?;
        self.acknowledge(&results).await?;

        heading("Publish the same file again, as a publisher does that lost its place")?;
        let again = self.publish().await?;
        let errors = again.count(Outcome::Error);
        let decided = summary.total() - errors;
        expect("duplicates of the second publication", again.count(Outcome::Duplicate), decided)?;
        expect("new results", self.list(&[]).await?.len() as u64, 0)?;
        out!("Nothing new came of it.")?;
        Ok(())
    }

    async fn put_definitions(&self) -> Result<(), Failure> {
        let definitions = read_definitions(DEFINITIONS, &self.target.organisation)?;
        let mut client = self.target.definitions()?;
        heading("The rules")?;
        for definition in definitions {
            out!("{:30} {}", definition.path, definition.description)?;
            client.put_definition(PutDefinitionRequest { definition: Some(definition) }).await?;
        }
        Ok(())
    }

    async fn publish(&self) -> Result<Summary, Failure> {
        let accepted = self.accepted.clone();
        let remember = move |ended: &Ended| {
            if ended.outcome == Outcome::Success {
                let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                accepted.insert(ended.ingest_id.clone(), ended.line);
            }
        };
        // One request at a time: the lines are decided in their order.
        let plan = Plan {
            definition: None,
            batch: 50,
            concurrency: 1,
            retry_for: Duration::from_secs(60),
            tell: Arc::new(remember),
        };
        let started = Instant::now();
        let sample = Cursor::new(SAMPLE);
        let Published { summary, fault } =
            publish(&self.target, sample, Some(SAMPLE.len() as u64), &plan, &CancellationToken::new())
                .await?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        out!("{}", summary.report(started.elapsed()))?;
        Ok(summary)
    }

    async fn list(&self, states: &[State]) -> Result<Vec<Record>, Failure> {
        let mut client = self.target.results()?;
        let mut request = ListResultsRequest {
            states: states.iter().map(|state| i32::from(*state)).collect(),
            page_size: 100,
            ..ListResultsRequest::default()
        };
        let mut all = Vec::new();
        loop {
            let page = client.list_results(request.clone()).await?.into_inner();
            all.extend(page.results);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn wait_for_results(&self) -> Result<Vec<Record>, Failure> {
        let expected = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).len();
        let deadline = Instant::now() + VISIBLE_WITHIN;
        loop {
            let results = self.list(&[]).await?;
            if results.len() >= expected || Instant::now() > deadline {
                expect("results", results.len() as u64, expected as u64)?;
                return Ok(results);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn download(&self, results: &[Record]) -> Result<(), Failure> {
        let result = results.last().ok_or_else(|| Failure::new("there is no result to download"))?;
        let line = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).get(&result.id).copied();
        let line = line.ok_or_else(|| Failure::new(format!("{} was never told", result.id)))?;
        let at = usize::try_from(line - 1).context("line")?;
        let published = SAMPLE.lines().nth(at).ok_or_else(|| Failure::new("no such line"))?;
        let mut data = Vec::new();
        fetch(&mut self.target.results()?, "", &result.id, &mut data, &ProgressBar::hidden()).await?;
        if data != published.as_bytes() {
            return Err(Failure::new(format!("{} is not line {line} of the sample", result.id)));
        }
        out!("{}: {} bytes, MD5 {}, line {line} to the byte.", result.id, data.len(), result.checksum)?;
        Ok(())
    }

    async fn acknowledge(&self, results: &[Record]) -> Result<(), Failure> {
        let mut client = self.target.results()?;
        let (singly, rest) = results.split_at(ACKNOWLEDGED_SINGLY.min(results.len()));
        for result in singly {
            for first in [true, false] {
                let request =
                    AcknowledgeResultRequest { id: result.id.clone(), ..AcknowledgeResultRequest::default() };
                let answer = client.acknowledge_result(request).await?.into_inner();
                if answer.changed != first {
                    return Err(Failure::new(format!("{} was not acknowledged just once", result.id)));
                }
            }
            out!("{}: acknowledged, and again without effect.", result.id)?;
        }
        let ids = rest.iter().map(|result| result.id.clone()).collect();
        let request = BatchAcknowledgeResultsRequest { ids, ..BatchAcknowledgeResultsRequest::default() };
        let changed = client.batch_acknowledge_results(request).await?.into_inner().ids.len();
        expect("results acknowledged at once", changed as u64, rest.len() as u64)?;
        out!("{changed} more in one call.")?;
        expect("results still available", self.list(&[]).await?.len() as u64, 0)?;
        let consumed = self.list(&[State::Consumed]).await?.len();
        expect("results consumed", consumed as u64, results.len() as u64)?;
        out!("The default list is empty now; {consumed} are kept as consumed.")?;
        Ok(())
    }
}

fn heading(text: &str) -> Result<(), Failure> {
    out!("\n== {text}")
}

fn check_counts(summary: &Summary) -> Result<(), Failure> {
    for (outcome, count) in EXPECTED {
        expect(&format!("observations answered {}", outcome_name(outcome)), summary.count(outcome), count)?;
    }
    expect("observations", summary.total(), SAMPLE.lines().count() as u64)
}

fn expect(what: &str, found: u64, expected: u64) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(Failure::new(format!("{found} {what}, but {expected} were expected")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_accounted_for() {
        let total: u64 = EXPECTED.iter().map(|(_, count)| count).sum();
        assert_eq!(total, SAMPLE.lines().count() as u64);
        assert!(EXPECTED.iter().all(|(_, count)| *count > 0), "every outcome but retry occurs");
    }

    #[test]
    fn the_sample_names_no_real_address() {
        let documentation = ["192.0.2.", "198.51.100.", "203.0.113."];
        let of_digits = |part: &&str| part.chars().all(|c| c.is_ascii_digit() || c == '.');
        let addresses = SAMPLE
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(of_digits)
            .filter(|part| part.split('.').filter(|number| !number.is_empty()).count() == 4);
        for address in addresses {
            assert!(documentation.iter().any(|range| address.starts_with(range)), "{address}");
        }
    }
}
