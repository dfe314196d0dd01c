//! What ingest hands over: results with their data, stored files that were let in,
//! and files that were not. Each is checked, sent where it belongs, and answered for.

use std::sync::Arc;

use sluice_proto::{
    limits::{RECORD_DATA_BYTES_MAX, RECORD_ITEMS_MAX},
    results::v1::{NewResult, ResultBatch},
};
use sluice_service::{Error, Kind};

use crate::{
    files::Files,
    metrics::Recordings,
    placing::{Placing, storage_of},
    recorder::{Recording, put},
    result::{Labels, NewRecord, ResultName, Sealed, Storage, parse_id, parse_new_id},
};

/// The way in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Sends results where they belong.
    pub placing: Placing,
    /// Takes files.
    pub files: Files,
    /// Where results are counted.
    pub metrics: Arc<Recordings>,
}

/// Something that was handed over, and whose it is: not yet checked.
struct Handed<T> {
    organisation: String,
    what: T,
}

/// Results that were handed over. As long as nobody is told what became of them they have
/// failed, also if the caller leaves.
struct Counted<'a> {
    metrics: &'a Recordings,
    results: usize,
}

impl Counted<'_> {
    fn told(mut self, recordings: &[Recording]) {
        self.results = 0;
        self.metrics.told(recordings);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.failed(self.results);
    }
}

/// What became of what was handed over, in order.
#[derive(Debug)]
pub struct Taken {
    /// Of the results.
    pub recordings: Vec<Recording>,
    /// Of the discarded files.
    pub discards: Vec<Recording>,
}

fn handed<T>(organisation: &str, what: T) -> Handed<T> {
    Handed { organisation: organisation.to_owned(), what }
}

fn within_limits(batches: &[ResultBatch]) -> Result<(), Error> {
    let results = || batches.iter().flat_map(|batch| &batch.results);
    let data_bytes: usize = results().map(|result| result.data.len()).sum();
    let discarded: usize = batches.iter().map(|batch| batch.discarded_files.len()).sum();
    if results().count() <= RECORD_ITEMS_MAX
        && discarded <= RECORD_ITEMS_MAX
        && data_bytes <= RECORD_DATA_BYTES_MAX
    {
        return Ok(());
    }
    let limits = format!(
        "at most {RECORD_ITEMS_MAX} results, as many discarded files and {RECORD_DATA_BYTES_MAX} bytes of data in one request"
    );
    Err(Error::new(Kind::ResourceExhausted, "REQUEST_TOO_LARGE", limits))
}

fn name(organisation: &str, id: &str) -> Option<ResultName> {
    Some((organisation.parse().ok()?, parse_new_id(id)?))
}

fn not_there() -> Error {
    Error::internal("a file names a storage config that is not there")
}

impl Intake {
    /// Records results and gives up files; an answer for each.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if there are too many of them or they are too large; UNAVAILABLE
    /// if the database can't answer: some may be done, and all may be handed over again.
    pub async fn take(&self, batches: Vec<ResultBatch>) -> Result<Taken, Error> {
        within_limits(&batches)?;
        let (mut results, mut discarded) = (Vec::new(), Vec::new());
        for ResultBatch { organisation, results: of_it, discarded_files, .. } in batches {
            discarded.extend(discarded_files.into_iter().map(|id| handed(&organisation, id)));
            results.extend(of_it.into_iter().map(|result| handed(&organisation, result)));
        }
        let counted = Counted { metrics: &self.metrics, results: results.len() };
        let (recordings, discards) = tokio::join!(self.record(results), self.discard(discarded));
        let taken = Taken { recordings: recordings?, discards: discards? };
        counted.told(&taken.recordings);
        Ok(taken)
    }

    async fn record(&self, results: Vec<Handed<NewResult>>) -> Result<Vec<Recording>, Error> {
        // Who is bad is answered at once; the others keep their places.
        let mut answers = vec![Recording::Refused; results.len()];
        let (mut with_data, mut data_places) = (Vec::new(), Vec::new());
        let (mut files, mut file_places) = (Vec::new(), Vec::new());
        for (place, Handed { organisation, what }) in results.into_iter().enumerate() {
            if what.stored_file {
                files.push((organisation, what));
                file_places.push(place);
            } else if let Some(accepted) = accept(&organisation, what) {
                with_data.push(accepted);
                data_places.push(place);
            }
        }
        let (with_data, files) = tokio::join!(self.placing.record(with_data), self.record_files(files));
        put(&mut answers, data_places, with_data?);
        put(&mut answers, file_places, files?);
        Ok(answers)
    }

    /// Records files that are sealed. One that is neither sealed nor recorded is
    /// refused: its bytes were never here.
    async fn record_files(&self, files: Vec<(String, NewResult)>) -> Result<Vec<Recording>, Error> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<Option<ResultName>> =
            files.iter().map(|(organisation, file)| name(organisation, &file.id)).collect();
        let known: Vec<ResultName> = names.iter().flatten().cloned().collect();
        let sealed = self.placing.uploads.sealed(&known).await?;
        let keepers = sealed.iter().filter_map(|(name, (_, config))| Some((&name.0, (*config)?)));
        let configs = self.placing.configs.named(keepers).await?;
        let mut stored = Vec::with_capacity(files.len());
        for ((organisation, file), name) in files.into_iter().zip(&names) {
            let Some(name) = name else {
                never_here(&organisation, &file.id);
                continue;
            };
            let Some((seal, config)) = sealed.get(name) else { continue };
            let storage = match config {
                None => Storage::default(),
                Some(id) => storage_of(configs.get(&(name.0.clone(), *id)).ok_or_else(not_there)?),
            };
            stored.extend(accept_file(name, file, seal.clone(), storage));
        }
        let mut recorded = self.placing.apart.record(&stored).await?;
        let missing: Vec<ResultName> = known.into_iter().filter(|name| !recorded.contains(name)).collect();
        recorded.extend(self.placing.apart.known(&missing).await?);
        for (organisation, id) in
            missing.iter().filter(|name| !recorded.contains(name) && !sealed.contains_key(name))
        {
            never_here(organisation.as_str(), &id.to_string());
        }
        let answer = |name: &Option<ResultName>| match name {
            Some(name) if recorded.contains(name) => Recording::Recorded,
            _ => Recording::Refused,
        };
        Ok(names.iter().map(answer).collect())
    }

    async fn discard(&self, discarded: Vec<Handed<String>>) -> Result<Vec<Recording>, Error> {
        let names: Vec<Option<ResultName>> =
            discarded.iter().map(|Handed { organisation, what }| name(organisation, what)).collect();
        let known: Vec<ResultName> = names.iter().flatten().cloned().collect();
        if !known.is_empty() {
            self.placing.uploads.discard(&known).await?;
        }
        let answer =
            |name: &Option<ResultName>| if name.is_some() { Recording::Recorded } else { Recording::Refused };
        Ok(names.iter().map(answer).collect())
    }
}

/// Checks one result; and the storage config it names. `None`, and a line for the
/// operator, if it can never be recorded.
fn accept(organisation: &str, result: NewResult) -> Option<(NewRecord, Option<uuid::Uuid>)> {
    let NewResult { id, storage_config, data, .. } = &result;
    let (id, named, data) = (id.clone(), parse_id(storage_config), data.clone());
    NewRecord::new(organisation, &id, labels(result), data)
        .map(|record| (record, named))
        .map_err(|field| tracing::error!(organisation, id, field, "result refused"))
        .ok()
}

/// A line for the operator about a file that was accepted and whose bytes are not here.
fn never_here(organisation: &str, id: &str) {
    tracing::error!(organisation, id, "file refused: neither sealed nor recorded");
}

fn accept_file(
    (organisation, id): &ResultName,
    file: NewResult,
    seal: Sealed,
    storage: Storage,
) -> Option<NewRecord> {
    NewRecord::of_file(organisation.as_str(), &id.to_string(), labels(file), seal, storage)
        .map_err(|field| tracing::error!(%organisation, %id, field, "file refused"))
        .ok()
}

fn labels(result: NewResult) -> Labels {
    let NewResult { definition, poll, task, identifier, r#type: media_type, .. } = result;
    Labels { definition, poll, task, identifier, media_type }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn batches(results: usize, data_bytes: usize) -> [ResultBatch; 2] {
        let result = NewResult { data: Bytes::from(vec![0; data_bytes]), ..NewResult::default() };
        let batch = ResultBatch { results: vec![result; results], ..ResultBatch::default() };
        [batch.clone(), batch]
    }

    #[test]
    fn the_limits_hold_over_all_batches() {
        assert!(within_limits(&batches(500, 1)).is_ok());
        assert!(within_limits(&batches(501, 1)).is_err());
        assert!(within_limits(&batches(1, RECORD_DATA_BYTES_MAX / 2)).is_ok());
        let error = within_limits(&batches(1, RECORD_DATA_BYTES_MAX / 2 + 1)).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
    }
}
