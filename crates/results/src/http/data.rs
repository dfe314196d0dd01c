//! `GET` and `HEAD /data/{id}`: the bytes behind a signed URL, whole or in a range
//! (RFC 9110). Whoever has no good URL learns nothing.

use axum::{body::Body, response::Response};
use http::{HeaderValue, Method, StatusCode, header};
use sluice_service::{
    Error, Kind, OrganisationId,
    http::{Answer, Head},
};

use crate::{
    calls::Calls,
    data::Data,
    result::Record,
    signing::{PARAMETERS, Signed},
};

/// `GET /data/{id}`
pub async fn get(calls: Calls, head: Head) -> Result<Answer, Error> {
    answer(calls, head, Method::GET).await
}

/// `HEAD /data/{id}`
pub async fn head(calls: Calls, head: Head) -> Result<Answer, Error> {
    answer(calls, head, Method::HEAD).await
}

async fn answer(calls: Calls, head: Head, method: Method) -> Result<Answer, Error> {
    match opened(&calls.data, &head).await {
        Ok(Some((organisation, record))) => give(&calls, &head, &organisation, record, method).await,
        // The same for whatever is wrong with it.
        Ok(None) => Err(Error::new(Kind::PermissionDenied, "BAD_URL", "the URL is invalid or has expired")),
        Err(error) => Err(error),
    }
}

/// The record a URL opens, if it does.
async fn opened(data: &Data, head: &Head) -> Result<Option<(OrganisationId, Record)>, Error> {
    let Ok(query) = head.query(&PARAMETERS) else { return Ok(None) };
    let [organisation, expires, key, signature] =
        PARAMETERS.map(|name| query.one(name).ok().flatten().unwrap_or_default());
    let given = Signed { id: head.param("id"), organisation, expires, key, signature };
    let Some((organisation, id)) = data.signing.verify(given) else { return Ok(None) };
    let record = match data.shelf.get(&organisation, id).await {
        Ok(record) => record,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // What was promised with the record decides, to the microsecond.
    let config = data.config(&organisation, &record).await?;
    let valid = config.is_some_and(|config| data.valid_until(&config, &record).is_some());
    Ok(valid.then_some((organisation, record)))
}

async fn give(
    calls: &Calls,
    head: &Head,
    organisation: &OrganisationId,
    record: Record,
    method: Method,
) -> Result<Answer, Error> {
    let tag = format!("\"{}\"", record.checksum.to_hex());
    let matches =
        |given: &str| given == "*" || given.split(',').any(|one| one.trim().trim_start_matches("W/") == tag);
    if matches(head.header("if-none-match")?) {
        return Ok(described(empty(StatusCode::NOT_MODIFIED), &record, &tag));
    }
    // Only for GET is there such a thing as a range (RFC 9110, 14.2).
    let wanted = if method == Method::GET { head.header("range")? } else { "" };
    // A range of another version than the caller knows is no use to it.
    let fits = matches!(head.header("if-range")?, "") || head.header("if-range")? == tag;
    let range = match (fits && !wanted.is_empty()).then(|| http_range_header::parse_range_header(wanted)) {
        // What is no range is passed over (RFC 9110, 14.2), and so are several.
        None | Some(Err(_)) => None,
        Some(Ok(ranges)) => match ranges.validate(record.size).as_deref() {
            Ok([one]) => Some(*one.start()..*one.end() + 1),
            Ok(_) => None,
            Err(_) => return Ok(unsatisfiable(&record, &tag)),
        },
    };
    let (status, part) = match &range {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
        None => (StatusCode::OK, 0..record.size),
    };
    let length = part.end - part.start;
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => {
            // The whole of it is verified on the way.
            let part = range.is_some().then_some(part.clone());
            Body::from_stream(calls.give_out(organisation, &record, part).await?)
        }
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    if range.is_some() {
        let text = format!("bytes {}-{}/{}", part.start, part.end - 1, record.size);
        headers.insert(header::CONTENT_RANGE, text.parse().map_err(Error::internal)?);
    }
    Ok(described(answer, &record, &tag))
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn unsatisfiable(record: &Record, tag: &str) -> Answer {
    let mut answer = described(empty(StatusCode::RANGE_NOT_SATISFIABLE), record, tag);
    if let Ok(text) = format!("bytes */{}", record.size).parse() {
        answer.headers_mut().insert(header::CONTENT_RANGE, text);
    }
    answer
}

/// What every answer about the data says: what it is, and that no browser may do
/// anything with it but save it.
fn described(mut answer: Answer, record: &Record, tag: &str) -> Answer {
    let octets = HeaderValue::from_static("application/octet-stream");
    let media_type = record.labels.media_type.parse().unwrap_or(octets);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    if let Ok(tag) = tag.parse() {
        headers.insert(header::ETAG, tag);
    }
    if let Ok(disposition) = format!("attachment; filename=\"{}\"", record.id).parse() {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    for (name, value) in [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-store"),
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
