//! Results over HTTP: get, list, acknowledge one, acknowledge many.

use std::fmt;

use http::StatusCode;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, GetResultRequest, Result as WireResult, result,
};
use sluice_service::{
    Error,
    http::{Answer, Call, datetime, json, object},
};

use super::{Acknowledging, query};
use crate::calls::{Calls, IDS_MAX};

/// Names the tenant where the token is for all organisations.
const ORGANISATION_HEADER: &str = "sluice-organisation";

/// A result as this API shows it. The order of the fields is part of it.
#[derive(Serialize)]
struct Shown {
    id: String,
    resource: String,
    organisation: String,
    poll: Option<String>,
    task: Option<String>,
    identifier: String,
    url: String,
    r#type: String,
    checksum: String,
    size: u64,
    signed_url: Option<SignedUrl>,
    state: &'static str,
    date_created: Option<String>,
    date_consumed: Option<String>,
    date_deleted: Option<String>,
    definition: String,
    storage_config: Option<String>,
}

/// A link to the data that needs no token.
#[derive(Serialize)]
struct SignedUrl {
    url: String,
    date_expires: Option<String>,
}

/// A page of results.
#[derive(Serialize)]
struct List {
    resource: &'static str,
    url: &'static str,
    data: Vec<Shown>,
    has_more: bool,
}

/// Which results to acknowledge.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    #[serde(deserialize_with = "ids")]
    ids: Vec<String>,
}

/// Ids up to one that is too many. The rest is only passed over: a body has room for
/// millions, each of which would take more when it is read.
fn ids<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut ids = Vec::new();
            while ids.len() <= IDS_MAX {
                let Some(id) = list.next_element()? else { return Ok(ids) };
                ids.push(id);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(ids)
        }
    }
    list.deserialize_seq(List)
}

/// How many were acknowledged by this call.
#[derive(Serialize)]
struct Acknowledged {
    acknowledged: usize,
}

/// Empty is how the messages say absent.
fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn shown(result: WireResult) -> Shown {
    let state = match result.state() {
        result::State::Available | result::State::Unspecified => "available",
        result::State::Consumed => "consumed",
        result::State::Expired => "expired",
    };
    Shown {
        state,
        id: result.id,
        resource: result.resource,
        organisation: result.organisation,
        poll: present(result.poll),
        task: present(result.task),
        identifier: result.identifier,
        url: result.url,
        r#type: result.r#type,
        checksum: result.checksum,
        size: result.size,
        signed_url: result
            .signed_url
            .map(|link| SignedUrl { url: link.url, date_expires: link.date_expires.as_ref().map(datetime) }),
        date_created: result.date_created.as_ref().map(datetime),
        date_consumed: result.date_consumed.as_ref().map(datetime),
        date_deleted: result.date_deleted.as_ref().map(datetime),
        definition: result.definition,
        storage_config: present(result.storage_config),
    }
}

fn organisation(call: &Call) -> Result<String, Error> {
    Ok(call.header(ORGANISATION_HEADER)?.to_owned())
}

/// The organisation is named by a header here.
fn by_header(error: Error) -> Error {
    error.with_fields_named(|field| match field {
        "organisation" => "Sluice-Organisation".into(),
        other => query::name_of(other),
    })
}

/// `GET /results/{id}`
pub async fn get(calls: Calls, call: Call) -> Result<Answer, Error> {
    call.query(&[])?;
    let request = GetResultRequest { organisation: organisation(&call)?, id: call.param("id").into() };
    let result = calls.get(&call.access, request).await.map_err(by_header)?;
    Ok(json(StatusCode::OK, &shown(result)))
}

/// `GET /results`
pub async fn list(calls: Calls, call: Call) -> Result<Answer, Error> {
    let query = call.query(&query::PARAMETERS)?;
    let request = query::request(organisation(&call)?, &query)?;
    let (after, before) = (query.one("after_id")?, query.one("before_id")?);
    let page = calls.list_between(&call.access, request, after, before).await.map_err(by_header)?;
    let data = page.results.into_iter().map(shown).collect();
    let list = List { resource: "list", url: "/results", data, has_more: page.has_more };
    Ok(json(StatusCode::OK, &list))
}

/// `POST /results/{id}/ack`. The body may be anything, and says nothing.
pub async fn acknowledge(acknowledging: Acknowledging, call: Call) -> Result<Answer, Error> {
    call.query(&[])?;
    let request =
        AcknowledgeResultRequest { organisation: organisation(&call)?, id: call.param("id").into() };
    let access = call.access.clone();
    // Read all the same, so that a connection can be used again.
    call.body(acknowledging.request_bytes_max).await?;
    let answer = acknowledging.calls.acknowledge(&access, request).await.map_err(by_header)?;
    Ok(json(StatusCode::OK, &answer.result.map(shown)))
}

/// `POST /results/ack`
pub async fn acknowledge_many(acknowledging: Acknowledging, call: Call) -> Result<Answer, Error> {
    call.query(&[])?;
    let (access, organisation) = (call.access.clone(), organisation(&call)?);
    let body = call.json_body(acknowledging.request_bytes_max).await?;
    let Ids { ids } = object(&body)
        .map_err(|fault| Error::invalid_body(format!(r#"must be {{"ids":["<id>", ...]}}: {fault}"#)))?;
    // The ids are as much again.
    drop(body);
    let request = BatchAcknowledgeResultsRequest { organisation, ids };
    let moved = acknowledging.calls.acknowledge_many(&access, request).await.map_err(by_header)?;
    Ok(json(StatusCode::OK, &Acknowledged { acknowledged: moved.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_ids_one_too_many_is_read() {
        let read = |count: usize| {
            let ids = vec![r#""x""#; count].join(",");
            object::<Ids>(format!(r#"{{"ids":[{ids}]}}"#).as_bytes()).unwrap().ids.len()
        };
        assert_eq!(
            [0, 1, IDS_MAX, IDS_MAX + 1, 3 * IDS_MAX].map(read),
            [0, 1, IDS_MAX, IDS_MAX + 1, IDS_MAX + 1]
        );
    }
}
