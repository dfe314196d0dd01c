//! `sluice file publish`: one file of any size becomes one observation. It is
//! streamed, so memory does not grow with it, and its MD5 is checked on the way.

mod source;
mod upload;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use indicatif::HumanBytes;
use sluice_proto::ingest::v1::{FileMetadata, Outcome};

use crate::{
    failure::Failure,
    publish::{Ended, outcome_name},
    target::TargetArgs,
    text::{Table, clean, out, parse_seconds_or_bare, say},
};
use source::Source;
use upload::{Uploaded, Uploader};

/// Files as observations.
#[derive(Debug, clap::Subcommand)]
pub enum FileCommand {
    /// Publish one file of any size as one observation.
    Publish(PublishArgs),
}

/// What to publish and how.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// The file; `-` for standard input, which can be read only once, so that its
    /// MD5 is not declared before and nothing is sent again.
    path: PathBuf,
    /// The path of its definition.
    #[arg(long)]
    definition: String,
    /// Progress marker: with it, publishing the same again is harmless.
    #[arg(long)]
    chkpt: Option<String>,
    /// A name for the content [default: the definition's path].
    #[arg(long)]
    identifier: Option<String>,
    /// Id of the run that gathered it [default: one made for this call].
    #[arg(long)]
    poll: Option<String>,
    /// Id of the unit of work in the run.
    #[arg(long)]
    task: Option<String>,
    /// Media type [default: found from the first bytes].
    #[arg(long = "type", value_name = "TYPE")]
    media_type: Option<String>,
    /// Read the file once only: declare no MD5. What the service says it received
    /// is compared with what was sent all the same.
    #[arg(long)]
    no_checksum: bool,
    /// For how long to try again while the service says `retry` or is away, such as
    /// 5m; a bare number is seconds. Without --chkpt only what was certainly not kept is sent again.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_seconds_or_bare)]
    retry_for: u64,
    /// Print the outcome as a JSON line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `sluice file`.
pub(crate) async fn run(command: FileCommand) -> Result<ExitCode, Failure> {
    let FileCommand::Publish(args) = command;
    publish(args).await
}

async fn publish(args: PublishArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let source = Source::open(&args.path)?;
    target.reach_ingest().await?;
    let checksum = if args.no_checksum { None } else { source.checksum().await? };
    let metadata = FileMetadata {
        organisation: target.organisation.clone(),
        definition: args.definition,
        chkpt: args.chkpt.unwrap_or_default(),
        identifier: args.identifier.unwrap_or_default(),
        poll: args.poll.unwrap_or_default(),
        task: args.task.unwrap_or_default(),
        r#type: args.media_type.unwrap_or_default(),
        checksum: checksum.unwrap_or_default(),
    };
    let retry_for = Duration::from_secs(args.retry_for);
    let mut uploader = Uploader { client: target.ingest()?, metadata, retry_for };
    let started = Instant::now();
    let uploaded = uploader.upload(source).await?;
    let report = report(&args.path.display().to_string(), &uploaded, started.elapsed());
    if args.json {
        out!("{}", to_json(&uploaded))?;
        say!("{}", report.trim_end());
    } else {
        out!("{report}")?;
    }
    Ok(if uploaded.ended.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_json(uploaded: &Uploaded) -> serde_json::Value {
    let Uploaded { ended, sent } = uploaded;
    let mut line = ended.to_json();
    line["checksum"] = sent.as_ref().map(|sent| sent.checksum.as_str()).into();
    line["size"] = sent.as_ref().map(|sent| sent.size).into();
    line
}

/// One line and a table, as of observations.
fn report(path: &str, uploaded: &Uploaded, took: Duration) -> String {
    let Uploaded { ended, sent } = uploaded;
    let seconds = took.as_secs_f64().max(1e-3);
    let mut table = Table::new(&["OUTCOME", "REASON", "MD5", "MORE"]);
    let checksum = sent.as_ref().map_or("-", |sent| &sent.checksum);
    let reason = if ended.reason.is_empty() { "-" } else { &ended.reason };
    table.row([outcome_name(ended.outcome), reason, checksum, &ended.more()].map(str::to_owned));
    let how_much = match sent {
        Some(sent) => {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate for people"
            )]
            let rate = (sent.size as f64 / seconds) as u64;
            format!("{} bytes in {seconds:.1} s, {}/s", sent.size, HumanBytes(rate))
        }
        None => format!("answered after {seconds:.1} s, before all was sent"),
    };
    format!("{}: {how_much}\n\n{table}", clean(path))
}

/// Says why an answer is not to be believed: the service kept other bytes than
/// were sent.
fn kept_otherwise(ended: &Ended, told: (&str, u64), sent: Option<(&str, u64)>) -> Option<Failure> {
    if ended.outcome != Outcome::Success || sent == Some(told) {
        return None;
    }
    let (checksum, size) = told;
    let sent = match sent {
        Some((checksum, size)) => format!("{size} bytes with MD5 {checksum} were sent"),
        None => "not all was sent".into(),
    };
    let id = &ended.ingest_id;
    Some(Failure::new(format!("{id}: {sent}, the service kept {size} with {checksum}")))
}

#[cfg(test)]
mod tests {
    use sluice_proto::ingest::v1::PublicationOutcome;

    use super::*;

    fn ended(outcome: Outcome) -> Ended {
        Ended::of(0, PublicationOutcome { outcome: outcome.into(), ..PublicationOutcome::default() })
    }

    #[test]
    fn only_a_success_promises_bytes_and_only_the_very_bytes_sent_will_do() {
        let success = ended(Outcome::Success);
        assert!(kept_otherwise(&success, ("aa", 2), Some(("aa", 2))).is_none());
        assert!(kept_otherwise(&success, ("aa", 2), Some(("bb", 2))).is_some());
        assert!(kept_otherwise(&success, ("aa", 2), Some(("aa", 3))).is_some());
        assert!(kept_otherwise(&success, ("aa", 2), None).is_some());
        assert!(kept_otherwise(&ended(Outcome::Duplicate), ("", 0), None).is_none());
    }
}
