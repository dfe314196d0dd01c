//! The query of a list, as the message that both surfaces check.

use prost_types::Timestamp;
use sluice_proto::results::v1::{ListResultsRequest, TimeRange, result::State};
use sluice_service::{Error, Violations, http::Query};

/// Every parameter there is.
pub const PARAMETERS: [&str; 23] = [
    "poll",
    "task",
    "identifier",
    "checksum",
    "state",
    "limit",
    "after_id",
    "before_id",
    "date_created",
    "date_created[gt]",
    "date_created[gte]",
    "date_created[lt]",
    "date_created[lte]",
    "date_consumed",
    "date_consumed[gt]",
    "date_consumed[gte]",
    "date_consumed[lt]",
    "date_consumed[lte]",
    "date_deleted",
    "date_deleted[gt]",
    "date_deleted[gte]",
    "date_deleted[lt]",
    "date_deleted[lte]",
];

/// A field of the message by its name in the query.
pub fn name_of(field: &str) -> String {
    match (field, field.split_once('.')) {
        ("page_size", _) => "limit".into(),
        ("states", _) => "state".into(),
        (_, Some((field, bound))) => format!("{field}[{bound}]"),
        (field, None) => field.into(),
    }
}

/// The message a query means.
///
/// # Errors
/// INVALID_ARGUMENT, naming every parameter that can't be read.
pub fn request(organisation: String, query: &Query) -> Result<ListResultsRequest, Error> {
    let mut faults = Violations::default();
    let mut text = |name| faults.or_default(query.one(name)).map(str::to_owned);
    let request = ListResultsRequest {
        organisation,
        poll: text("poll"),
        task: text("task"),
        identifier: text("identifier"),
        checksum: text("checksum"),
        page_size: faults.or_default(limit(query)),
        states: faults.or_default(states(query.all("state"))),
        date_created: range("date_created", query, &mut faults),
        date_consumed: range("date_consumed", query, &mut faults),
        date_deleted: range("date_deleted", query, &mut faults),
        ..ListResultsRequest::default()
    };
    faults.none_or(request)
}

fn limit(query: &Query) -> Result<i32, Error> {
    let Some(text) = query.one("limit")? else { return Ok(0) };
    let wrong = || Error::invalid("limit", "must be 1 to 1000");
    text.parse().ok().filter(|limit| (1..=1000).contains(limit)).ok_or_else(wrong)
}

/// `state` may be given several times, and each may be a list with commas.
fn states(given: &[String]) -> Result<Vec<i32>, Error> {
    let state = |name: &str| match name {
        "available" => Ok(State::Available.into()),
        "consumed" => Ok(State::Consumed.into()),
        "expired" => Ok(State::Expired.into()),
        _ => Err(Error::invalid("state", "must be available, consumed or expired")),
    };
    given.iter().flat_map(|list| list.split(',')).map(state).collect()
}

/// A date by itself means that very moment.
fn range(field: &str, query: &Query, faults: &mut Violations) -> Option<TimeRange> {
    let mut moment = |name: &str| faults.or_default(moment(name, query));
    let equal = moment(field);
    let bound = TimeRange {
        gt: moment(&format!("{field}[gt]")),
        gte: moment(&format!("{field}[gte]")),
        lt: moment(&format!("{field}[lt]")),
        lte: moment(&format!("{field}[lte]")),
    };
    let Some(equal) = equal else { return Some(bound) };
    if bound == TimeRange::default() {
        return Some(TimeRange { gte: Some(equal), lte: Some(equal), ..bound });
    }
    faults.add(field, "give either a moment or bounds");
    None
}

fn moment(name: &str, query: &Query) -> Result<Option<Timestamp>, Error> {
    let Some(text) = query.one(name)? else { return Ok(None) };
    let wrong = || Error::invalid(name, "must be a datetime such as 2020-02-29T11:59:15.110451Z");
    text.parse().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_go_by_their_names_in_the_query() {
        for (field, name) in [
            ("page_size", "limit"),
            ("states", "state"),
            ("date_created.gte", "date_created[gte]"),
            ("ids", "ids"),
        ] {
            assert_eq!(name_of(field), name);
        }
    }

    #[test]
    fn states_are_repeated_or_listed() {
        let read = |given: &[&str]| states(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["available,consumed", "expired"]).unwrap(), [1, 2, 3]);
        assert!(read(&[]).unwrap().is_empty());
        for bad in ["", "AVAILABLE", "available,"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }
}
