//! Between the contract's messages and the domain, for both surfaces. Everything that is wrong with a request is
//! said at once.

use bytes::Bytes;
use prost_types::Timestamp;
use sluice_proto::{
    limits::PAGE_DATA_BYTES_MAX,
    results::v1::{
        ListResultsRequest, Result as WireResult, SignedUrl, TimeRange, list_results_request, result,
    },
};
use sluice_service::{Error, OrganisationId, Violations};

use crate::{
    filter::{Filter, Order, Range, States, Walk},
    result::{Checksum, LABEL_BYTES_MAX, Record, State, is_text},
};

const PAGE_SIZE_DEFAULT: usize = 10;
const PAGE_SIZE_MAX: usize = 1000;

/// What a list request asks for.
#[derive(Clone, Debug)]
pub struct List {
    /// Filters, order, organisation.
    pub walk: Walk,
    /// How many records, 1 to 1,000.
    pub page_size: usize,
    /// Where to go on; empty: at the start.
    pub page_token: String,
    /// How many bytes of data may go along.
    pub data_bytes_max: usize,
}

/// Checks a list request.
///
/// # Errors
/// INVALID_ARGUMENT, naming every field that is wrong.
pub fn list(organisation: OrganisationId, request: ListResultsRequest) -> Result<List, Error> {
    let mut faults = Violations::default();
    let page_size = faults.or(page_size(request.page_size), PAGE_SIZE_DEFAULT);
    let data_bytes_max = faults.or(data_bytes_max(request.data_bytes_max), 0);
    let order = faults.or(order(request.order), Order::NewestFirst);
    let filter = Filter {
        poll: faults.or(text("poll", request.poll), None),
        task: faults.or(text("task", request.task), None),
        identifier: faults.or(text("identifier", request.identifier), None),
        checksum: faults.or(checksum(request.checksum), None),
        states: faults.or(states(&request.states), States::AVAILABLE),
        date_created: faults.or(range("date_created", request.date_created), None).unwrap_or(Range::ALL),
        date_consumed: faults.or(range("date_consumed", request.date_consumed), None),
        date_deleted: faults.or(range("date_deleted", request.date_deleted), None),
    };
    let walk = Walk { organisation, filter, order };
    faults.none_or(List { walk, page_size, page_token: request.page_token, data_bytes_max })
}

fn page_size(given: i32) -> Result<usize, Error> {
    match usize::try_from(given) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) if size <= PAGE_SIZE_MAX => Ok(size),
        _ => Err(Error::invalid("page_size", format!("must be 0 to {PAGE_SIZE_MAX}"))),
    }
}

fn data_bytes_max(given: u32) -> Result<usize, Error> {
    match usize::try_from(given) {
        Ok(bytes) if bytes <= PAGE_DATA_BYTES_MAX => Ok(bytes),
        _ => Err(Error::invalid("data_bytes_max", format!("must be at most {PAGE_DATA_BYTES_MAX}"))),
    }
}

fn order(given: i32) -> Result<Order, Error> {
    use list_results_request::Order as Wire;
    match Wire::try_from(given) {
        Ok(Wire::Unspecified | Wire::NewestFirst) => Ok(Order::NewestFirst),
        Ok(Wire::OldestFirst) => Ok(Order::OldestFirst),
        Err(_) => Err(Error::invalid("order", "unknown value")),
    }
}

fn text(field: &'static str, given: Option<String>) -> Result<Option<String>, Error> {
    match given {
        Some(text) if !is_text(&text, LABEL_BYTES_MAX) => {
            Err(Error::invalid(field, format!("must be at most {LABEL_BYTES_MAX} bytes without U+0000")))
        }
        given => Ok(given),
    }
}

fn checksum(given: Option<String>) -> Result<Option<Checksum>, Error> {
    let Some(hex) = given else { return Ok(None) };
    let parsed = Checksum::parse(&hex).ok_or_else(|| Error::invalid("checksum", "must be 32 hex digits"));
    parsed.map(Some)
}

fn states(given: &[i32]) -> Result<States, Error> {
    if given.is_empty() {
        return Ok(States::AVAILABLE);
    }
    let mut states = States { available: false, consumed: false, expired: false };
    for state in given {
        match result::State::try_from(*state) {
            Ok(result::State::Available) => states.available = true,
            Ok(result::State::Consumed) => states.consumed = true,
            Ok(result::State::Expired) => states.expired = true,
            Ok(result::State::Unspecified) | Err(_) => return Err(Error::invalid("states", "unknown value")),
        }
    }
    Ok(states)
}

/// A range without bounds asks for nothing, like none at all.
fn range(field: &'static str, given: Option<TimeRange>) -> Result<Option<Range>, Error> {
    let Some(TimeRange { gt, gte, lt, lte }) = given else { return Ok(None) };
    if [&gt, &gte, &lt, &lte].iter().all(|bound| bound.is_none()) {
        return Ok(None);
    }
    let mut faults = Violations::default();
    let mut range = Range::ALL;
    let name = |bound| format!("{field}.{bound}");
    faults.or(range.after(&name("gt"), gt.as_ref(), false), ());
    faults.or(range.after(&name("gte"), gte.as_ref(), true), ());
    faults.or(range.before(&name("lt"), lt.as_ref(), false), ());
    faults.or(range.before(&name("lte"), lte.as_ref(), true), ());
    faults.none_or(Some(range))
}

/// A record as it is told to callers, with where its data is and how to read that
/// without a token.
pub fn result(
    organisation: &OrganisationId,
    record: Record,
    (url, signed_url): (String, Option<SignedUrl>),
    data: Option<Bytes>,
) -> WireResult {
    let state = match record.state() {
        State::Available => result::State::Available,
        State::Consumed => result::State::Consumed,
        State::Expired => result::State::Expired,
    };
    let Record { id, labels, .. } = record;
    WireResult {
        id: id.to_string(),
        resource: "result".into(),
        organisation: organisation.as_str().into(),
        poll: labels.poll,
        task: labels.task,
        identifier: labels.identifier,
        url,
        r#type: labels.media_type,
        checksum: record.checksum.to_hex(),
        size: record.size,
        signed_url,
        state: state.into(),
        date_created: Some(Timestamp::from(record.date_created)),
        date_consumed: record.date_consumed.map(Timestamp::from),
        date_deleted: record.date_deleted.map(Timestamp::from),
        definition: labels.definition,
        storage_config: record.storage_config.map(|id| id.to_string()).unwrap_or_default(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: ListResultsRequest) -> Result<List, Vec<String>> {
        list("acme".parse().unwrap(), request)
            .map_err(|error| error.violations().iter().map(|v| v.field.clone()).collect())
    }

    #[test]
    fn an_empty_request_asks_for_the_ten_newest_available() {
        let asked = ask(ListResultsRequest::default()).unwrap();
        assert_eq!((asked.page_size, asked.data_bytes_max), (10, 0));
        assert_eq!(asked.walk.order, Order::NewestFirst);
        assert_eq!(asked.walk.filter.states, States::AVAILABLE);
        assert_eq!(asked.walk.filter.date_created, Range::ALL);
        let empty = ListResultsRequest { date_consumed: Some(TimeRange::default()), ..Default::default() };
        assert_eq!(ask(empty).unwrap().walk.filter, asked.walk.filter);
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let page_size = |page_size| ask(ListResultsRequest { page_size, ..Default::default() }).is_ok();
        assert_eq!([-1, 1, 1000, 1001].map(page_size), [false, true, true, false]);
        let data = |data_bytes_max| ask(ListResultsRequest { data_bytes_max, ..Default::default() }).is_ok();
        assert_eq!([16 << 20, (16 << 20) + 1, u32::MAX].map(data), [true, false, false]);
        let labels: [fn(Option<String>) -> ListResultsRequest; 3] = [
            |poll| ListResultsRequest { poll, ..Default::default() },
            |task| ListResultsRequest { task, ..Default::default() },
            |identifier| ListResultsRequest { identifier, ..Default::default() },
        ];
        for label in labels {
            // Bytes, not characters: 256 times two.
            let texts = ["é".repeat(256), "x".repeat(513)];
            assert_eq!(texts.map(|text| ask(label(Some(text))).is_ok()), [true, false]);
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let bad = Some(Timestamp { seconds: i64::MAX, nanos: 0 });
        let request = ListResultsRequest {
            poll: Some("a\0".into()),
            task: Some("t".repeat(513)),
            checksum: Some("zz".into()),
            states: vec![0],
            date_created: Some(TimeRange { gt: bad, lte: bad, ..Default::default() }),
            date_deleted: Some(TimeRange { lt: bad, ..Default::default() }),
            page_size: -5,
            order: 9,
            ..Default::default()
        };
        let fields = [
            "page_size",
            "order",
            "poll",
            "task",
            "checksum",
            "states",
            "date_created.gt",
            "date_created.lte",
            "date_deleted.lt",
        ];
        assert_eq!(ask(request).unwrap_err(), fields);
    }
}
