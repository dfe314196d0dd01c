//! `POST /aepublish/v1/{account_id}/observation`, as Alert Logic's aepublish has
//! it: a list of objects, each kept as the bytes that were sent.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use sluice_proto::ingest::v1::{Outcome, PublicationOutcome};
use sluice_service::{
    Error,
    http::{Answer, Call, json},
};

use super::{Ingest, named, split};
use crate::{
    convert,
    observation::{Batch, Observation, Unreadable},
};

/// What became of an observation. Absent fields are left out; the order of the
/// fields is part of the API.
#[derive(Serialize)]
struct Published {
    outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    ingest_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    chkpt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    details: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    definition_etag: String,
}

/// The answer: outcomes in the order of the request.
#[derive(Serialize)]
struct Publication {
    observations: Vec<Published>,
}

fn name(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Unspecified => None,
        Outcome::Success => Some("success"),
        Outcome::Retry => Some("retry"),
        Outcome::Error => Some("error"),
        Outcome::Suppressed => Some("suppressed"),
        Outcome::Throttled => Some("throttled"),
        Outcome::Duplicate => Some("duplicate"),
    }
}

fn published(outcome: PublicationOutcome) -> Published {
    Published {
        outcome: name(outcome.outcome()).unwrap_or("error"),
        original_outcome: name(outcome.original_outcome()),
        ingest_id: outcome.ingest_id,
        chkpt: outcome.chkpt,
        delay: outcome.delay.map(|delay| delay.seconds),
        reason: outcome.reason,
        details: outcome.details,
        definition_etag: outcome.definition_etag,
    }
}

/// An element of the list as an observation: the whole of it is the data. One that
/// exceeds the size limit is not looked into.
fn observation(data: Bytes, bytes_max: usize) -> Observation {
    let unreadable = |field, rule| {
        let unreadable = Some(Unreadable { field, rule });
        Observation { unreadable, ..Observation::of_json(data.clone()) }
    };
    if data.len() > bytes_max {
        return unreadable("", "exceeds the size limit");
    }
    let mut observation = Observation::of_json(data.clone());
    for member in split::members(&data) {
        let Ok((key, value)) = member else { return unreadable("", "must be a JSON object") };
        let field = match decoded(&data[key]).as_deref() {
            Some("path") => ("path", &mut observation.definition),
            Some("chkpt") => ("chkpt", &mut observation.chkpt),
            Some("identifier") => ("identifier", &mut observation.identifier),
            Some("poll") => ("poll", &mut observation.poll),
            Some("task") => ("task", &mut observation.task),
            _ => continue,
        };
        let value = &data[value];
        // As if it were not there.
        if value == b"null" {
            continue;
        }
        match decoded(value) {
            Some(text) => *field.1 = text.into_owned(),
            // The first is told. A chkpt behind it is repeated nevertheless.
            None => {
                let fault = Unreadable { field: field.0, rule: "must be a string" };
                observation.unreadable.get_or_insert(fault);
            }
        }
    }
    if observation.unreadable.is_none() && observation.definition.is_empty() {
        observation.unreadable = Some(Unreadable { field: "path", rule: "must name a definition" });
    }
    observation
}

/// The text of a JSON string. What is wrong inside of it the check will say.
fn decoded(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if text.contains(&b'\\') {
        return serde_json::from_slice(value).ok().map(Cow::Owned);
    }
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

/// Publishes a list of observations.
pub async fn publish(ingest: Ingest, call: Call) -> Result<Answer, Error> {
    call.query(&[])?;
    let organisation = call.access.organisation(call.param("account_id")).map_err(named)?;
    let body = call.json_body(ingest.request_bytes_max).await?;
    let limits = ingest.publisher.limits();
    let spans = split::elements(&body, limits.observations_max).map_err(Error::invalid_body)?;
    if spans.is_empty() {
        return Ok(json(StatusCode::OK, &Publication { observations: Vec::new() }));
    }
    let bytes_max = limits.observation_bytes_max;
    let observations: Vec<_> =
        spans.into_iter().map(|span| observation(body.slice(span), bytes_max)).collect();
    let chkpts = observations.iter().map(|observation| convert::repeated(&observation.chkpt)).collect();
    let batch = Batch::new(organisation, String::new(), observations, limits)?;
    let outcomes = ingest.publisher.begin(batch).await?.finish().await?;
    let answer = convert::response(chkpts, outcomes);
    let observations = answer.observations.into_iter().map(published).collect();
    Ok(json(StatusCode::OK, &Publication { observations }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_looked_into_up_to_the_size_that_is_taken() {
        let text = r#"{"path":"p","chkpt":"c"}"#;
        let read = observation(Bytes::from(text), text.len());
        assert_eq!((read.definition.as_str(), read.chkpt.as_str(), read.unreadable), ("p", "c", None));
        let larger = observation(Bytes::from(text), text.len() - 1);
        assert_eq!((larger.definition.as_str(), larger.chkpt.as_str()), ("", ""));
        assert!(larger.unreadable.is_some());
    }

    #[test]
    fn the_chkpt_is_read_wherever_the_unreadable_field_stands() {
        for text in [r#"{"poll":5,"task":6,"chkpt":"c"}"#, r#"{"chkpt":"c","poll":5,"task":6}"#] {
            let read = observation(Bytes::from(text), text.len());
            assert_eq!(read.chkpt, "c", "{text}");
            assert_eq!(read.unreadable.unwrap().field, "poll", "{text}");
        }
    }
}
