//! Definitions over HTTP, as Alert Logic's aecontent has them: per account, and
//! system-wide where the path names none.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sluice_service::{
    Error, OrganisationId, Violation,
    http::{Answer, Call, datetime, json},
};
use uuid::Uuid;

use super::{draft, named};
use crate::{
    calls::{DefinitionCalls, name},
    definition::Definition,
    definitions::Name,
    json as strict,
};

/// Definitions are read from the store this many at a time.
const PAGE_SIZE: i64 = 100;
/// Largest body: a schema of 64 KiB, escaped, and room to spare.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What aecontent's clients may add to a read: how much of a definition they
/// want. All of it is always shown. That they may want an earlier state (`ts`,
/// `epoch`) can't be met, and is refused.
const SHOWN_ANYWAY: [&str; 4] = ["format", "include_metadata", "include_internal", "return_parents"];
/// Stands for the path of a definition that is validated without one.
const ANY_PATH: &str = "any";

/// A definition as this API shows it. The order of the fields is part of it.
#[derive(Serialize)]
struct Shown {
    id: Uuid,
    account_id: Option<String>,
    path: String,
    description: String,
    unique: Option<i64>,
    unique_by: Vec<String>,
    throttle_count: Option<u32>,
    throttle_period: Option<i64>,
    json_schema: Option<Value>,
    storage_config: Option<Uuid>,
    disabled: bool,
    etag: String,
    date_created: String,
    date_updated: String,
}

/// The id of what was stored.
#[derive(Serialize)]
struct Stored {
    stored: Uuid,
}

/// The id of what was deleted.
#[derive(Serialize)]
struct Deleted {
    deleted: Uuid,
}

/// What is wrong with a definition, by field.
#[derive(Serialize)]
struct Validation {
    valid: bool,
    params: BTreeMap<String, Vec<String>>,
}

fn shown(definition: &Definition) -> Shown {
    let draft = &definition.draft;
    let schema = strict::parse(draft.json_schema.as_bytes()).ok().map(|schema| schema.root().to_serde());
    Shown {
        id: definition.id,
        account_id: draft.organisation.as_ref().map(ToString::to_string),
        path: draft.path.to_string(),
        description: draft.description.clone(),
        unique: draft.unique_seconds,
        unique_by: draft.unique_by.clone(),
        throttle_count: draft.throttle.map(|throttle| throttle.count),
        throttle_period: draft.throttle.map(|throttle| throttle.period_seconds),
        json_schema: schema,
        storage_config: draft.storage_config,
        disabled: draft.disabled,
        etag: definition.etag.clone(),
        date_created: datetime(&Timestamp::from(definition.date_created)),
        date_updated: datetime(&Timestamp::from(definition.date_updated)),
    }
}

/// The account that the path names; `None`: it names none, which is system-wide.
fn account(call: &Call) -> Result<Option<OrganisationId>, Error> {
    match call.maybe_param("account_id") {
        Some(account) => call.access.organisation(account).map(Some).map_err(named),
        None => Ok(None),
    }
}

fn wanted(call: &Call) -> Result<Name, Error> {
    name(call.param("path"), call.param("id"))
}

/// `GET .../observations`: all that are in force for the account, its own and
/// the system-wide ones that it has no own for; or all system-wide ones. By id.
pub async fn list(calls: DefinitionCalls, call: Call) -> Result<Answer, Error> {
    call.query(&SHOWN_ANYWAY)?;
    let organisation = account(&call)?;
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = calls.list(organisation.as_ref(), true, &after, PAGE_SIZE).await?;
        let Some(last) = page.last() else { break };
        after = last.draft.path.to_string();
        all.extend(page.iter().map(|definition| (definition.id, shown(definition))));
        if i64::try_from(page.len()).is_ok_and(|found| found < PAGE_SIZE) {
            break;
        }
    }
    Ok(json(StatusCode::OK, &all))
}

/// `POST .../observations?path=P`: creates or overwrites.
pub async fn put(calls: DefinitionCalls, call: Call) -> Result<Answer, Error> {
    let organisation = account(&call)?;
    let path = call.query(&["path"])?.one("path")?.map(str::to_owned);
    let access = call.access.clone();
    let given = read(call, organisation, path).await?;
    let (definition, _) = calls.put(&access, given.raw, &given.etag).await.map_err(named)?;
    Ok(json(StatusCode::CREATED, &Stored { stored: definition.id }))
}

/// `GET .../observations/paths/{path}` and `GET .../observations/ids/{id}`
pub async fn get(calls: DefinitionCalls, call: Call) -> Result<Answer, Error> {
    call.query(&SHOWN_ANYWAY)?;
    let organisation = account(&call)?;
    let definition = calls.get(organisation.as_ref(), &wanted(&call)?).await?;
    Ok(json(StatusCode::OK, &shown(&definition)))
}

/// `DELETE .../observations/paths/{path}`
pub async fn delete(calls: DefinitionCalls, call: Call) -> Result<Answer, Error> {
    call.query(&[])?;
    let organisation = account(&call)?;
    let deleted = calls.delete(&call.access, organisation.as_ref(), &wanted(&call)?, "").await?;
    Ok(json(StatusCode::OK, &Deleted { deleted }))
}

/// `POST .../validations/observations`: what a put would say, and nothing kept.
/// The path may be left out.
pub async fn validate(calls: DefinitionCalls, call: Call) -> Result<Answer, Error> {
    let organisation = account(&call)?;
    let path = call.query(&["path"])?.one("path")?.map(str::to_owned);
    let faults = match read(call, organisation, path).await {
        Ok(mut given) => {
            if given.raw.path.is_empty() {
                given.raw.path = ANY_PATH.into();
            }
            calls.faults(given.raw).await?
        }
        Err(error) if !error.violations().is_empty() && error.reason() == "INVALID_FIELD" => {
            error.violations().to_vec()
        }
        Err(error) => return Err(error),
    };
    let mut params = BTreeMap::<_, Vec<_>>::new();
    for Violation { field, description } in faults {
        let field = field.strip_prefix("definition.").unwrap_or(&field).to_owned();
        params.entry(field).or_default().push(description);
    }
    Ok(json(StatusCode::OK, &Validation { valid: params.is_empty(), params }))
}

async fn read(
    call: Call,
    organisation: Option<OrganisationId>,
    path: Option<String>,
) -> Result<draft::Given, Error> {
    let body: Bytes = call.json_body(BODY_BYTES_MAX).await?;
    draft::read(&body, organisation, path)
}
