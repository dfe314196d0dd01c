//! Between the contract's messages and the domain's values.

use std::time::SystemTime;

use bytes::Bytes;
use prost_types::{Duration, ListValue, Struct, Timestamp, Value, value::Kind};
use sluice_proto::{
    LazyStruct,
    ingest::v1::{
        self as proto, PublicationOutcome, PublishFileResponse, PublishObservationsResponse, PublishStats,
        observation::Content as Wire,
    },
};

use uuid::Uuid;

use crate::{
    definition::{Definition, RawDraft},
    files::Published,
    observation::{Content, FIELD_BYTES_MAX, File, Observation},
    outcome::{Decision, Final, Outcome, RetryReason},
};

/// The largest integer that every double up to it can hold: 2^53 - 1.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
/// Structs nest as deep as the JSON reader allows.
const DEPTH_MAX: usize = crate::json::DEPTH_MAX;

/// An observation as it was sent.
#[must_use]
pub fn observation(message: proto::Observation) -> Observation {
    Observation {
        definition: message.definition,
        chkpt: message.chkpt,
        identifier: message.identifier,
        poll: message.poll,
        task: message.task,
        media_type: message.r#type,
        unreadable: None,
        content: match message.content {
            Some(Wire::Data(data)) => Content::Data(data),
            Some(Wire::Json(json)) => Content::Json(Bytes::from(json)),
            Some(Wire::Body(body)) => Content::Body(body_json(&body)),
            None => Content::Absent,
        },
    }
}

/// A file of which nothing was read yet, under an id of its own.
#[must_use]
pub fn file(metadata: proto::FileMetadata) -> Observation {
    Observation {
        definition: metadata.definition,
        chkpt: metadata.chkpt,
        identifier: metadata.identifier,
        poll: metadata.poll,
        task: metadata.task,
        media_type: metadata.r#type,
        unreadable: None,
        content: Content::File(File { id: Uuid::now_v7(), checksum: metadata.checksum, read: None }),
    }
}

/// What an answer repeats of a progress marker: nothing of one that is too long to be
/// one, since it could make the answer longer than clients take.
#[must_use]
pub fn repeated(chkpt: &str) -> String {
    if chkpt.len() > FIELD_BYTES_MAX { String::new() } else { chkpt.to_owned() }
}

/// The answer to a file.
#[must_use]
pub fn file_response(chkpt: String, published: Published) -> PublishFileResponse {
    let Published { outcome, checksum, bytes } = published;
    let outcome = publication(chkpt, outcome, &mut PublishStats::default());
    PublishFileResponse { outcome: Some(outcome), checksum, size: bytes }
}

/// A body as compact JSON with sorted keys.
fn body_json(body: &LazyStruct) -> Result<Bytes, String> {
    let body = body.decode().map_err(|_| "the body is malformed, or nested deeper than 30 levels")?;
    struct_json(&body)
}

/// A Struct as compact JSON with sorted keys.
fn struct_json(body: &Struct) -> Result<Bytes, String> {
    let mut text = String::new();
    write_struct(body, &mut text, 0)?;
    Ok(Bytes::from(text))
}

fn write_struct(body: &Struct, text: &mut String, depth: usize) -> Result<(), String> {
    if depth >= DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    text.push('{');
    for (position, (key, value)) in body.fields.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        write_string(key, text);
        text.push(':');
        write_value(value, text, depth + 1).map_err(|fault| inside(key, &fault))?;
    }
    text.push('}');
    Ok(())
}

/// Faults carry the JSON pointer of their place in front.
fn inside(token: &str, fault: &str) -> String {
    format!(
        "/{}{}{fault}",
        token.replace('~', "~0").replace('/', "~1"),
        if fault.starts_with('/') { "" } else { " " }
    )
}

fn write_value(value: &Value, text: &mut String, depth: usize) -> Result<(), String> {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => text.push_str("null"),
        Some(Kind::BoolValue(flag)) => text.push_str(if *flag { "true" } else { "false" }),
        Some(Kind::NumberValue(number)) => write_number(*number, text)?,
        Some(Kind::StringValue(string)) => write_string(string, text),
        Some(Kind::StructValue(body)) => write_struct(body, text, depth)?,
        Some(Kind::ListValue(list)) => write_list(list, text, depth)?,
    }
    Ok(())
}

fn write_list(list: &ListValue, text: &mut String, depth: usize) -> Result<(), String> {
    if depth >= DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    text.push('[');
    for (position, value) in list.values.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        write_value(value, text, depth + 1).map_err(|fault| inside(&position.to_string(), &fault))?;
    }
    text.push(']');
    Ok(())
}

fn write_number(number: f64, text: &mut String) -> Result<(), String> {
    if !number.is_finite() {
        return Err("is not a number JSON can hold".into());
    }
    if number.fract() != 0.0 {
        text.push_str(&serde_json::Value::from(number).to_string());
        return Ok(());
    }
    if number.abs() > EXACT_INTEGER_MAX {
        return Err(
            "is an integer beyond 2^53 - 1, which a Struct may have changed: send data or json".into()
        );
    }
    // Exact: the bound was checked above.
    #[allow(clippy::cast_possible_truncation)]
    text.push_str(&(number as i64).to_string());
    Ok(())
}

fn write_string(string: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(string).to_string());
}

/// The answer to a batch: outcomes in order and their counts.
#[must_use]
pub fn response(chkpts: Vec<String>, outcomes: Vec<Outcome>) -> PublishObservationsResponse {
    let mut stats = PublishStats::default();
    let observations: Vec<_> = chkpts
        .into_iter()
        .zip(outcomes)
        .map(|(chkpt, outcome)| publication(chkpt, outcome, &mut stats))
        .collect();
    PublishObservationsResponse { observations, stats: Some(stats), status: None }
}

fn publication(chkpt: String, outcome: Outcome, stats: &mut PublishStats) -> PublicationOutcome {
    let mut publication = PublicationOutcome { chkpt, ..PublicationOutcome::default() };
    match outcome {
        Outcome::Decided { decision, id, etag, bytes } => {
            publication.definition_etag = etag;
            if decision == Decision::Success {
                stats.accepted_bytes += bytes;
                publication.ingest_id = id.to_string();
            }
            decided(decision, &mut publication);
        }
        Outcome::Error { fault, etag } => {
            publication.set_outcome(proto::Outcome::Error);
            publication.reason = fault.reason.into();
            publication.details = fault.details;
            publication.definition_etag = etag;
        }
        Outcome::Retry(retry) => {
            publication.set_outcome(proto::Outcome::Retry);
            publication.reason = match retry.reason {
                RetryReason::NotKept => "NOT_KEPT".into(),
                RetryReason::OutcomeUnknown => "OUTCOME_UNKNOWN".into(),
            };
            publication.details = retry.details.into();
            publication.delay =
                Some(duration(i64::try_from(retry.delay.as_secs()).unwrap_or(i64::MAX).max(1)));
        }
    }
    let count = match publication.outcome() {
        proto::Outcome::Success => &mut stats.success,
        proto::Outcome::Retry => &mut stats.retry,
        proto::Outcome::Error | proto::Outcome::Unspecified => &mut stats.error,
        proto::Outcome::Suppressed => &mut stats.suppressed,
        proto::Outcome::Throttled => &mut stats.throttled,
        proto::Outcome::Duplicate => &mut stats.duplicate,
    };
    *count += 1;
    publication
}

fn decided(decision: Decision, publication: &mut PublicationOutcome) {
    match decision {
        Decision::Success => publication.set_outcome(proto::Outcome::Success),
        Decision::Suppressed { ingest_id } => {
            publication.set_outcome(proto::Outcome::Suppressed);
            publication.reason = "UNIQUE".into();
            publication.ingest_id = ingest_id.to_string();
        }
        Decision::Throttled { window_ends } => {
            publication.set_outcome(proto::Outcome::Throttled);
            publication.reason = "THROTTLE".into();
            publication.details = format!("the window ends at {}", Timestamp::from(window_ends));
        }
        Decision::Duplicate { original, ingest_id, content_differs } => {
            publication.set_outcome(proto::Outcome::Duplicate);
            publication.reason = if content_differs { "CONTENT_DIFFERS" } else { "CHKPT" }.into();
            publication.ingest_id = ingest_id.map(|id| id.to_string()).unwrap_or_default();
            publication.set_original_outcome(match original {
                Final::Success => proto::Outcome::Success,
                Final::Suppressed => proto::Outcome::Suppressed,
                Final::Throttled => proto::Outcome::Throttled,
            });
        }
    }
}

fn duration(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

/// A definition as a caller wrote it, its organisation aside.
#[must_use]
pub fn raw_draft(message: &proto::Definition) -> RawDraft {
    let whole_seconds = |given: Duration| match given.nanos {
        0 => Ok(given.seconds),
        _ => Err("must be whole seconds".to_owned()),
    };
    RawDraft {
        organisation: None,
        path: message.path.clone(),
        description: message.description.clone(),
        unique: message.unique.map(whole_seconds),
        unique_by: message.unique_by.clone(),
        throttle_count: message.throttle_count,
        throttle_period: message.throttle_period.map(whole_seconds),
        json_schema: message.json_schema.clone(),
        storage_config: message.storage_config.clone(),
        disabled: message.disabled,
    }
}

/// A definition as callers see it.
#[must_use]
pub fn definition(definition: &Definition) -> proto::Definition {
    let draft = &definition.draft;
    proto::Definition {
        id: definition.id.to_string(),
        organisation: draft.organisation.as_ref().map(ToString::to_string).unwrap_or_default(),
        path: draft.path.to_string(),
        description: draft.description.clone(),
        unique: draft.unique_seconds.map(duration),
        unique_by: draft.unique_by.clone(),
        throttle_count: draft.throttle.map_or(0, |throttle| throttle.count),
        throttle_period: draft.throttle.map(|throttle| duration(throttle.period_seconds)),
        json_schema: draft.json_schema.clone(),
        storage_config: draft.storage_config.map(|id| id.to_string()).unwrap_or_default(),
        disabled: draft.disabled,
        etag: definition.etag.clone(),
        date_created: Some(timestamp(definition.date_created)),
        date_updated: Some(timestamp(definition.date_updated)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(value: Kind) -> Struct {
        let nested = Struct { fields: [("b".to_owned(), Value { kind: Some(value) })].into() };
        let fields = [
            ("z".to_owned(), Value { kind: Some(Kind::BoolValue(true)) }),
            ("a".to_owned(), Value { kind: Some(Kind::StructValue(nested)) }),
        ];
        Struct { fields: fields.into() }
    }

    fn json(value: Kind) -> Result<String, String> {
        struct_json(&body(value)).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_body_is_compact_with_sorted_keys() {
        assert_eq!(json(Kind::NumberValue(1.0)).unwrap(), r#"{"a":{"b":1},"z":true}"#);
        assert_eq!(json(Kind::NumberValue(-0.5)).unwrap(), r#"{"a":{"b":-0.5},"z":true}"#);
        assert_eq!(json(Kind::StringValue("\"\n".into())).unwrap(), r#"{"a":{"b":"\"\n"},"z":true}"#);
    }

    #[test]
    fn integers_are_kept_up_to_2_to_the_53_minus_1() {
        assert!(json(Kind::NumberValue(9_007_199_254_740_991.0)).unwrap().contains("9007199254740991"));
        assert!(json(Kind::NumberValue(-9_007_199_254_740_991.0)).unwrap().contains("-9007199254740991"));
        for beyond in [9_007_199_254_740_992.0, -9_007_199_254_740_992.0, 1e300] {
            assert!(json(Kind::NumberValue(beyond)).unwrap_err().starts_with("/a/b "));
        }
        assert!(json(Kind::NumberValue(f64::NAN)).is_err());
    }

    #[test]
    fn a_throttled_outcome_says_when_the_window_ends() {
        let decision =
            Decision::Throttled { window_ends: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(60) };
        let outcome = Outcome::Decided { decision, id: uuid::Uuid::nil(), etag: "e".into(), bytes: 7 };
        let answer = response(vec!["c".into()], vec![outcome]);
        assert_eq!(answer.observations[0].details, "the window ends at 1970-01-01T00:01:00Z");
        assert_eq!(answer.observations[0].ingest_id, "");
        assert_eq!(answer.stats.unwrap().accepted_bytes, 0);
    }
}
