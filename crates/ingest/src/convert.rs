//! Between the contract's messages and the domain's values.

use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use prost_types::{Duration, ListValue, Struct, Timestamp, Value, value::Kind};
use sluice_proto::{
    LazyStruct,
    ingest::v1::{
        self as proto, PublicationOutcome, PublishFileResponse, PublishObservationsResponse, PublishStats,
        observation::Content as Wire,
    },
};
use sluice_service::text::shown;
use uuid::Uuid;

use crate::{
    definition::{Definition, RawDraft},
    files::Published,
    observation::{Content, FIELD_BYTES_MAX, File, Observation},
    outcome::{Decision, Final, Outcome, RetryReason},
};

/// The largest integer that every double up to it can hold: 2^53 - 1.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
/// A body's text may be somewhat longer than its encoding tells.
const TEXT_MORE: usize = 1024;

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
    let bytes_max = LazyStruct::text_bytes_max(body.encoded_len()) + TEXT_MORE;
    let body = body.decode().map_err(|_| "the body is malformed, or nested deeper than 30 levels")?;
    struct_json(&body, bytes_max)
}

/// A Struct as compact JSON with sorted keys, of up to so many bytes. What was decoded is
/// not nested deep.
fn struct_json(body: &Struct, bytes_max: usize) -> Result<Bytes, String> {
    let mut text = Text { text: String::new(), bytes_max };
    match text.write_struct(body) {
        Ok(()) => Ok(Bytes::from(text.text)),
        // The keys on the way are the caller's, and of any length.
        Err(Unwritable { place, rule }) => Err(format!("{} {rule}", shown(&place))),
    }
}

/// What can't be written as JSON: its place as a JSON pointer, and why.
struct Unwritable {
    place: String,
    rule: String,
}

impl From<&str> for Unwritable {
    fn from(rule: &str) -> Self {
        Self { place: String::new(), rule: rule.into() }
    }
}

impl Unwritable {
    fn inside(mut self, token: &str) -> Self {
        self.place.insert_str(0, &format!("/{}", token.replace('~', "~0").replace('/', "~1")));
        self
    }
}

/// JSON on its way.
struct Text {
    text: String,
    bytes_max: usize,
}

impl Text {
    fn write_struct(&mut self, body: &Struct) -> Result<(), Unwritable> {
        self.text.push('{');
        for (position, (key, value)) in body.fields.iter().enumerate() {
            if position > 0 {
                self.text.push(',');
            }
            self.write_string(key)?;
            self.text.push(':');
            self.write_value(value).map_err(|fault| fault.inside(key))?;
        }
        self.text.push('}');
        Ok(())
    }

    fn write_value(&mut self, value: &Value) -> Result<(), Unwritable> {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => self.text.push_str("null"),
            Some(Kind::BoolValue(flag)) => self.text.push_str(if *flag { "true" } else { "false" }),
            Some(Kind::NumberValue(number)) => self.write_number(*number)?,
            Some(Kind::StringValue(string)) => self.write_string(string)?,
            Some(Kind::StructValue(body)) => self.write_struct(body)?,
            Some(Kind::ListValue(list)) => self.write_list(list)?,
        }
        Ok(())
    }

    fn write_list(&mut self, list: &ListValue) -> Result<(), Unwritable> {
        self.text.push('[');
        for (position, value) in list.values.iter().enumerate() {
            if position > 0 {
                self.text.push(',');
            }
            self.write_value(value).map_err(|fault| fault.inside(&position.to_string()))?;
        }
        self.text.push(']');
        Ok(())
    }

    fn write_number(&mut self, number: f64) -> Result<(), Unwritable> {
        if !number.is_finite() {
            return Err("is not a number JSON can hold".into());
        }
        if number.fract() != 0.0 {
            self.text.push_str(&serde_json::Value::from(number).to_string());
            return Ok(());
        }
        if number.abs() > EXACT_INTEGER_MAX {
            return Err(
                "is an integer beyond 2^53 - 1, which a Struct may have changed: send data or json".into()
            );
        }
        // Exact: the bound was checked above.
        #[allow(clippy::cast_possible_truncation)]
        self.text.push_str(&(number as i64).to_string());
        Ok(())
    }

    fn write_string(&mut self, string: &str) -> Result<(), Unwritable> {
        self.text.push_str(&serde_json::Value::from(string).to_string());
        if self.text.len() > self.bytes_max {
            return Err("has too many control characters for a body: send data or json".into());
        }
        Ok(())
    }
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
        struct_json(&body(value), 1000).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
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
        let key = "é".repeat(1 << 20);
        let long = Struct { fields: [(key, Value { kind: Some(Kind::NumberValue(1e300)) })].into() };
        let told = struct_json(&long, 1 << 22).unwrap_err();
        assert!(told.len() < 500 && told.starts_with("/é") && told.ends_with("data or json"), "{told}");
        assert!(json(Kind::NumberValue(f64::NAN)).is_err());
    }

    #[test]
    fn a_body_of_almost_nothing_but_control_characters_is_refused() {
        let of = |text: String| {
            let fields = [("a".to_owned(), Value { kind: Some(Kind::StringValue(text)) })];
            body_json(&Struct { fields: fields.into() }.into()).map(|text| text.len())
        };
        // Around the text: nine bytes of encoding, and more for its lengths; eight of JSON.
        let most = (TEXT_MORE + 20) * 2 / 7;
        assert_eq!(of("\u{1}".repeat(most)), Ok(8 + 6 * most));
        let refused = of("\u{1}".repeat(most + 20)).unwrap_err();
        assert!(refused.contains("too many control characters"), "{refused}");
        assert_eq!(of("\"\n".repeat(500_000)), Ok(8 + 2_000_000));
        let empty = vec![Value { kind: None }; 100_000];
        let fields = [("a".to_owned(), Value { kind: Some(Kind::ListValue(ListValue { values: empty })) })];
        assert!(body_json(&Struct { fields: fields.into() }.into()).is_ok());
    }

    #[test]
    fn a_body_that_nests_deeper_than_json_may_is_never_decoded() {
        let list = |value| Kind::ListValue(ListValue { values: vec![Value { kind: Some(value) }] });
        for nest in [list, |value| Kind::StructValue(body(value))] {
            let nested = |levels| (0..levels).fold(Kind::BoolValue(true), |inner, _| nest(inner));
            assert!(body_json(&body(nested(10)).into()).is_ok());
            let fault = body_json(&body(nested(crate::json::DEPTH_MAX / 2)).into()).unwrap_err();
            assert!(fault.contains("nested deeper than 30 levels"), "{fault}");
        }
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
