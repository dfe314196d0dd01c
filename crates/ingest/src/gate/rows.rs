//! Between the gate's rows and its values: what was presumed as the statements
//! take it, and what they found.

use std::collections::HashMap;

use sluice_service::Error;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    decide::{Counter, Found, Marker, Presumed, Window},
    trip::Params,
};
use crate::{
    outbox::{self, OutboxRow},
    outcome::Final,
};

/// Pairs as two arrays.
pub fn columns<A: Clone, B: Clone>(rows: &[(A, B)]) -> (Vec<A>, Vec<B>) {
    rows.iter().cloned().unzip()
}

/// Arrays of the presumed rows, as the statements take them.
pub struct PresumedColumns {
    pub marker_keys: Vec<Uuid>,
    pub marker_ids: Vec<Uuid>,
    fingerprints: Vec<i64>,
    pub window_keys: Vec<Uuid>,
    window_ids: Vec<Uuid>,
    /// What a marker is presumed to say.
    outcome: i16,
}

impl PresumedColumns {
    pub fn of(presumed: &Presumed) -> Self {
        let (window_keys, window_ids) = columns(&presumed.windows);
        Self {
            marker_keys: presumed.markers.iter().map(|row| row.0).collect(),
            marker_ids: presumed.markers.iter().map(|row| row.1).collect(),
            fingerprints: presumed.markers.iter().map(|row| row.2).collect(),
            window_keys,
            window_ids,
            outcome: Final::Success.code(),
        }
    }

    /// Those of the markers, as the statements that insert them take them.
    pub fn markers(&self) -> Params<'_> {
        vec![&self.marker_keys, &self.marker_ids, &self.fingerprints, &self.outcome]
    }

    /// The same of the windows.
    pub fn windows(&self) -> Params<'_> {
        vec![&self.window_keys, &self.window_ids]
    }
}

/// Outbox rows of one owner, as the statements take them.
pub struct OutboxColumns<'a> {
    pub ids: Vec<Uuid>,
    organisations: Vec<&'a str>,
    owner: Uuid,
    /// Discarded files are not counted.
    results: Vec<i32>,
    traceparents: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> OutboxColumns<'a> {
    pub fn of(rows: &'a [OutboxRow], owner: Uuid) -> Self {
        let results = |row: &OutboxRow| i32::try_from(row.message.results.len()).unwrap_or(i32::MAX);
        Self {
            ids: rows.iter().map(|row| row.id).collect(),
            organisations: rows.iter().map(|row| row.organisation.as_str()).collect(),
            owner,
            results: rows.iter().map(results).collect(),
            traceparents: rows.iter().map(|row| row.message.traceparent.as_str()).collect(),
            payloads: rows.iter().map(|row| &row.payload[..]).collect(),
        }
    }

    pub fn params(&self) -> Params<'_> {
        vec![
            &self.ids,
            &self.organisations,
            &self.owner,
            &outbox::FORMAT,
            &self.results,
            &self.traceparents,
            &self.payloads,
        ]
    }
}

/// A marker.
///
/// # Errors
/// INTERNAL if its outcome is none that this build knows: what was decided is not decided
/// anew.
pub fn marker_of(row: &Row) -> Result<Marker, Error> {
    let outcome = Final::from_code(row.get("outcome"));
    let outcome = outcome.ok_or_else(|| Error::internal("a marker of no known outcome"))?;
    Ok(Marker { outcome, ingest_id: row.get("ingest_id"), fingerprint: row.get("fingerprint") })
}

/// Markers by key, of the current slot and of older ones.
///
/// # Errors
/// As of [`marker_of`].
pub fn markers_of<'a>(
    current: &[Row],
    old: impl Iterator<Item = &'a Row>,
) -> Result<HashMap<Uuid, Found<Marker>>, Error> {
    let mut markers: HashMap<Uuid, Found<Marker>> = HashMap::new();
    let tagged = current.iter().map(|row| (row, true)).chain(old.map(|row| (row, false)));
    for (row, in_current_slot) in tagged {
        // Carried over from slot to slot all rows of a key say the same.
        markers.entry(row.get("key")).or_insert(Found { row: marker_of(row)?, in_current_slot });
    }
    Ok(markers)
}

/// The latest window of each key, of the current slot and of older ones.
pub fn windows_of<'a>(current: &[Row], old: impl Iterator<Item = &'a Row>) -> HashMap<Uuid, Found<Window>> {
    let mut windows: HashMap<Uuid, Found<Window>> = HashMap::new();
    let tagged = current.iter().map(|row| (row, true)).chain(old.map(|row| (row, false)));
    for (row, in_current_slot) in tagged {
        let window = Window { ingest_id: row.get("ingest_id"), accepted_at: row.get("accepted_at") };
        windows
            .entry(row.get("key"))
            .and_modify(|known| {
                if window.accepted_at > known.row.accepted_at {
                    known.row = window;
                }
            })
            .or_insert(Found { row: window, in_current_slot });
    }
    windows
}

/// Counters by key.
pub fn counters_of(rows: &[Row]) -> HashMap<Uuid, Counter> {
    rows.iter()
        .map(|row| (row.get("key"), Counter { window_start: row.get("window_start"), used: row.get("used") }))
        .collect()
}
