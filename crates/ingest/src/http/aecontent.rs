//! Definitions over HTTP, as Alert Logic's aecontent has them: per account, and
//! system-wide where the path names none.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use prost_types::Timestamp;
use serde::Serialize;
use sluice_service::{
    Error, OrganisationId, Violation,
    http::{Answer, Call, datetime, json, json_text},
};
use uuid::Uuid;

use super::{draft, named};
use crate::{
    calls::{DefinitionCalls, name},
    definition::Definition,
    definitions::Name,
    json as strict,
};

/// Definitions are read from the store this many at a time: about a mebibyte, if all of
/// their schemas are as long as they may be.
const PAGE_SIZE: i64 = 16;
/// Largest body: a schema of 64 KiB, escaped, and room to spare.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What aecontent's clients may add to a read: how much of a definition they
/// want. All of it is always shown. That they may want an earlier state (`ts`,
/// `epoch`) can't be met, and is refused.
const SHOWN_ANYWAY: [&str; 4] = ["format", "include_metadata", "include_internal", "return_parents"];
/// Stands for the path of a definition that is validated without one.
const ANY_PATH: &str = "any";

/// A definition as this API shows it, up to its schema, and from there on. The order of
/// the fields is part of it.
#[derive(Serialize)]
struct Front<'a> {
    id: Uuid,
    account_id: Option<&'a str>,
    path: &'a str,
    description: &'a str,
    unique: Option<i64>,
    unique_by: &'a [String],
    throttle_count: Option<u32>,
    throttle_period: Option<i64>,
}

/// See [`Front`].
#[derive(Serialize)]
struct Back<'a> {
    storage_config: Option<Uuid>,
    disabled: bool,
    etag: &'a str,
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

/// Writes a definition. Its schema stands there as the text that is kept: as a tree it
/// would take many times as much.
fn show(definition: &Definition, text: &mut String) -> Result<(), Error> {
    let draft = &definition.draft;
    let front = serde_json::to_string(&Front {
        id: definition.id,
        account_id: draft.organisation.as_ref().map(OrganisationId::as_str),
        path: draft.path.as_str(),
        description: &draft.description,
        unique: draft.unique_seconds,
        unique_by: &draft.unique_by,
        throttle_count: draft.throttle.map(|throttle| throttle.count),
        throttle_period: draft.throttle.map(|throttle| throttle.period_seconds),
    });
    let back = serde_json::to_string(&Back {
        storage_config: draft.storage_config,
        disabled: draft.disabled,
        etag: &definition.etag,
        date_created: datetime(&Timestamp::from(definition.date_created)),
        date_updated: datetime(&Timestamp::from(definition.date_updated)),
    });
    let (front, back) = (front.map_err(Error::internal)?, back.map_err(Error::internal)?);
    let schema = draft.json_schema.as_str();
    let schema = if strict::parse(schema.as_bytes()).is_ok() { schema } else { "null" };
    // Two objects and a member between them, as one object.
    for part in [&front[..front.len() - 1], ",\"json_schema\":", schema, ",", &back[1..]] {
        text.push_str(part);
    }
    Ok(())
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
    let _turn = calls.turn_at_a_list(organisation.as_ref()).await;
    let (mut all, mut after) = (String::from("{"), String::new());
    loop {
        let page = calls.definitions.list(organisation.as_ref(), true, &after, PAGE_SIZE).await?;
        let Some(last) = page.last() else { break };
        after = last.draft.path.to_string();
        for definition in &page {
            if all.len() > 1 {
                all.push(',');
            }
            all.push_str(&format!("\"{}\":", definition.id));
            show(definition, &mut all)?;
        }
        if i64::try_from(page.len()).is_ok_and(|found| found < PAGE_SIZE) {
            break;
        }
    }
    all.push('}');
    Ok(json_text(StatusCode::OK, all))
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
    let definition = calls.definitions.get(organisation.as_ref(), &wanted(&call)?).await?;
    let mut text = String::new();
    show(&definition, &mut text)?;
    Ok(json_text(StatusCode::OK, text))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::definition::RawDraft;

    fn shown(json_schema: &str) -> Value {
        let raw = RawDraft {
            path: "a/b".into(),
            description: "says \"}\"".into(),
            unique: Some(Ok(60)),
            organisation: "acme".parse().ok(),
            ..RawDraft::default()
        };
        let mut draft = raw.check(Duration::from_secs(100)).unwrap();
        draft.json_schema = json_schema.into();
        let mut text = String::new();
        show(&Definition::of("e", draft), &mut text).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
    }

    #[test]
    fn a_definition_is_shown_around_its_schema() {
        let told = shown(" {\"type\":\n\"object\"} ");
        assert_eq!(told["json_schema"], serde_json::json!({"type": "object"}));
        assert_eq!((&told["description"], &told["etag"]), (&"says \"}\"".into(), &"e".into()));
        assert_eq!(told["date_updated"], "1970-01-01T00:00:00.000000Z");
        for absent in ["", "{"] {
            assert_eq!(shown(absent)["json_schema"], Value::Null, "{absent:?}");
        }
    }
}
