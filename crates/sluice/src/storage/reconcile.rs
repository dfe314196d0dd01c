//! `sluice storage reconcile`: what the storage holds against what the records
//! say, a line for each finding, counts at the end.

use std::process::ExitCode;

use serde_json::json;
use sluice_proto::results::v1::{
    ReconcileStorageConfigRequest, ReconcileStorageConfigResponse, reconcile_storage_config_response::Finding,
};

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
    let mut stream = target.storage()?.reconcile_storage_config(request).await?.into_inner();
    let bar = progress::bar(None, "", "{spinner} {elapsed}  {msg}");
    let (mut findings, mut counts) = (0_u64, None);
    while let Some(message) = stream.message().await? {
        bar.set_message(looked_at(&message));
        if message.finding() == Finding::Unspecified {
            counts = Some(message);
            continue;
        }
        findings += 1;
        let line = line(&message, args.json);
        bar.suspend(|| out!("{line}"))?;
    }
    bar.finish_and_clear();
    // Without the counts it is not known whether this was all.
    let counts = counts.ok_or_else(|| Failure::new("the report ended before its end: run it again"))?;
    if args.json {
        let totals = json!({"findings": findings, "objects": counts.objects, "records": counts.records});
        out!("{totals}")?;
    } else {
        let noun = if findings == 1 { "finding" } else { "findings" };
        out!("{findings} {noun}; {}", looked_at(&counts))?;
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
