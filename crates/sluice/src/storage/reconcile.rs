//! `sluice storage reconcile`: what the storage holds against what the records
//! say, a line for each finding, counts at the end.

use std::process::ExitCode;

use serde_json::json;
use sluice_proto::results::v1::{
    ReconcileStorageConfigRequest, ReconcileStorageConfigResponse, reconcile_storage_config_response::Finding,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::OneArgs;
use crate::{
    failure::Failure,
    progress,
    text::{out, visible},
};

/// Reports the findings of one storage config.
pub(super) async fn run(args: OneArgs) -> Result<ExitCode, Failure> {
    let target = args.target.resolve()?;
    let request = ReconcileStorageConfigRequest { organisation: target.organisation.clone(), id: args.id };
    let messages = target.storage()?.reconcile_storage_config(request).await?.into_inner();
    let findings = report(messages, args.json).await?;
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what comes, and returns how many findings there were.
async fn report(
    mut messages: impl Stream<Item = Result<ReconcileStorageConfigResponse, Status>> + Unpin,
    as_json: bool,
) -> Result<u64, Failure> {
    let bar = progress::bar(None, "", "{spinner} {elapsed}  {msg}");
    let (mut findings, mut counts) = (0, None);
    while let Some(message) = messages.next().await {
        let message = message?;
        bar.set_message(looked_at(&message));
        if message.finding() == Finding::Unspecified {
            counts = Some(message);
            continue;
        }
        findings += 1;
        let line = line(&message, as_json);
        bar.suspend(|| out!("{line}"))?;
    }
    bar.finish_and_clear();
    // Without the counts it is not known whether this was all.
    let counts = counts.ok_or_else(|| Failure::new("the report ended before its end: run it again"))?;
    if as_json {
        let totals = json!({"findings": findings, "objects": counts.objects, "records": counts.records});
        out!("{totals}")?;
    } else {
        let noun = if findings == 1 { "finding" } else { "findings" };
        out!("{findings} {noun}; {}", looked_at(&counts))?;
    }
    Ok(findings)
}

fn looked_at(message: &ReconcileStorageConfigResponse) -> String {
    format!("{} objects and {} records looked at", message.objects, message.records)
}

fn line(message: &ReconcileStorageConfigResponse, as_json: bool) -> String {
    let name = match message.finding() {
        Finding::ObjectWithoutRecord => "object_without_record",
        Finding::RecordWithoutObject => "record_without_object",
        Finding::Unspecified => "unknown",
    };
    if as_json {
        return json!({"finding": name, "id": message.id, "url": message.url}).to_string();
    }
    let id = if message.id.is_empty() { "-" } else { &message.id };
    format!("{}  {}  {}", name.replace('_', " "), visible(id), visible(&message.url))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn findings(messages: Vec<Result<Finding, Status>>) -> Result<u64, Failure> {
        let message = |finding: Finding| ReconcileStorageConfigResponse {
            finding: finding.into(),
            ..ReconcileStorageConfigResponse::default()
        };
        let messages = messages.into_iter().map(|finding| finding.map(message)).collect::<Vec<_>>();
        report(tokio_stream::iter(messages), true).await
    }

    #[tokio::test]
    async fn only_a_report_with_its_counts_is_whole() {
        let found = [Finding::ObjectWithoutRecord, Finding::RecordWithoutObject].map(Ok);
        let whole = found.clone().into_iter().chain([Ok(Finding::Unspecified)]).collect();
        assert_eq!(findings(whole).await.unwrap(), 2);
        assert_eq!(findings(vec![Ok(Finding::Unspecified)]).await.unwrap(), 0);
        assert_eq!(findings(found.to_vec()).await.unwrap_err().exit(), 1);
        let gone = vec![Ok(Finding::Unspecified), Err(Status::unavailable("gone"))];
        assert_eq!(findings(gone).await.unwrap_err().exit(), 2);
    }
}
