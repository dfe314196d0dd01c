//! `sluice results`: list, download and acknowledge what was accepted.

mod download;
mod list;

use std::{io::BufRead as _, process::ExitCode};

use serde_json::{Value, json};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, GetResultRequest, Result as Record,
    result::State,
};

use crate::{
    failure::{Context, Failure},
    target::TargetArgs,
    text::{Table, out, time},
};

pub(crate) use download::fetch;
pub(crate) use list::table;

/// How many ids one batch acknowledges; the contract's limit.
const ACK_BATCH: usize = 10_000;

/// List, download and acknowledge results.
#[derive(Debug, clap::Subcommand)]
pub enum ResultsCommand {
    /// List results, the newest first.
    List(Box<list::ListArgs>),
    /// Show one result.
    Get(GetArgs),
    /// Acknowledge results: each is consumed once.
    Ack(AckArgs),
    /// Download a result's data and check its MD5.
    Download(download::DownloadArgs),
}

/// Which result.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// Its id.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Which results to acknowledge.
#[derive(Debug, clap::Args)]
pub struct AckArgs {
    /// Their ids.
    #[arg(required_unless_present = "stdin")]
    ids: Vec<String>,
    /// Read ids from standard input, one a line; JSON lines as `list --json`
    /// prints them will do.
    #[arg(long)]
    stdin: bool,
    /// Print the ids that this call changed, as JSON lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs `sluice results`.
pub(crate) async fn run(command: ResultsCommand) -> Result<ExitCode, Failure> {
    match command {
        ResultsCommand::List(args) => list::run(*args).await,
        ResultsCommand::Get(args) => get(args).await,
        ResultsCommand::Ack(args) => ack(args).await,
        ResultsCommand::Download(args) => download::run(args).await,
    }
}

async fn get(args: GetArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = GetResultRequest { organisation: target.organisation.clone(), id: args.id };
    let answer = target.results()?.get_result(request).await?.into_inner();
    let mut shown = to_json(&answer.result.unwrap_or_default());
    if args.json {
        out!("{shown}")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(fields) = shown.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    out!("{}", Table::fields(&shown))?;
    Ok(ExitCode::SUCCESS)
}

async fn ack(args: AckArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let mut ids = args.ids;
    if args.stdin {
        for line in std::io::stdin().lock().lines() {
            ids.extend(id_of_line(&line.context("standard input")?));
        }
    }
    let mut client = target.results()?;
    // One id: the call that says why when it can't be done.
    if let ([id], false) = (ids.as_slice(), args.stdin) {
        let request = AcknowledgeResultRequest { organisation: target.organisation.clone(), id: id.clone() };
        let changed = client.acknowledge_result(request).await?.into_inner().changed;
        match (args.json, changed) {
            (true, true) => out!("{}", json!({"id": id}))?,
            (false, true) => out!("1 of 1 acknowledged")?,
            (true, false) => {}
            (false, false) => out!("0 of 1 acknowledged: it was consumed before")?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut changed = 0;
    for batch in ids.chunks(ACK_BATCH) {
        let request =
            BatchAcknowledgeResultsRequest { organisation: target.organisation.clone(), ids: batch.to_vec() };
        let answer = client.batch_acknowledge_results(request).await?.into_inner();
        changed += answer.ids.len();
        if args.json {
            for id in &answer.ids {
                out!("{}", json!({"id": id}))?;
            }
        }
    }
    if !args.json {
        out!("{changed} of {} acknowledged", ids.len())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The id on a line: the line itself, or a JSON object's `id`.
fn id_of_line(line: &str) -> Option<String> {
    let line = line.trim();
    let object = line.starts_with('{').then(|| serde_json::from_str::<Value>(line).ok()).flatten();
    let id = object.as_ref().map_or(Some(line), |object| object["id"].as_str());
    id.filter(|id| !id.is_empty()).map(str::to_owned)
}

/// A state as it is shown: lower case.
fn state_name(state: State) -> &'static str {
    match state {
        State::Available => "available",
        State::Consumed => "consumed",
        State::Expired => "expired",
        State::Unspecified => "unknown",
    }
}

/// A result as JSON; absent fields are null.
fn to_json(result: &Record) -> Value {
    let mut shown = json!({
        "id": result.id,
        "resource": result.resource,
        "organisation": result.organisation,
        "poll": result.poll,
        "task": result.task,
        "identifier": result.identifier,
        "definition": result.definition,
        "url": result.url,
        "type": result.r#type,
        "checksum": result.checksum,
        "size": result.size,
        "signed_url": result.signed_url.as_ref().map(|signed| {
            json!({"url": signed.url, "date_expires": time(signed.date_expires.as_ref())})
        }),
        "state": state_name(result.state()),
        "storage_config": result.storage_config,
        "date_created": time(result.date_created.as_ref()),
        "date_consumed": time(result.date_consumed.as_ref()),
        "date_deleted": time(result.date_deleted.as_ref()),
    });
    if let Some(data) = &result.data {
        // Text as text; what is none in hex.
        match std::str::from_utf8(data) {
            Ok(text) => shown["data"] = text.into(),
            Err(_) => shown["data_hex"] = hex::encode(data).into(),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_plain_lines_and_from_json() {
        assert_eq!(id_of_line(" abc \n").as_deref(), Some("abc"));
        assert_eq!(id_of_line(r#"{"id":"abc","size":1}"#).as_deref(), Some("abc"));
        assert_eq!(id_of_line(r#"{"size":1}"#), None);
        assert_eq!(id_of_line(""), None);
    }
}
