//! ResultsIntakeService: the ingest service's way in.

use sluice_proto::results::v1::{
    NewResult, RecordResultsRequest, RecordResultsResponse, StoreFileRequest, StoreFileResponse,
    record_results_response::Recording as Wire, results_intake_service_server::ResultsIntakeService,
};
use sluice_service::{Error, Kind};
use tonic::{Request, Response, Status, Streaming};

use super::not_built;
use crate::{
    recorder::{Recorder, Recording},
    result::{Labels, NewRecord},
};

/// Most results in one request.
const RESULTS_MAX: usize = 1000;
/// Most bytes of data in one request.
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The handlers.
#[derive(Clone, Debug)]
pub struct Intake {
    recorder: Recorder,
}

impl Intake {
    pub fn new(recorder: Recorder) -> Self {
        Self { recorder }
    }
}

#[tonic::async_trait]
impl ResultsIntakeService for Intake {
    async fn record_results(
        &self,
        request: Request<RecordResultsRequest>,
    ) -> Result<Response<RecordResultsResponse>, Status> {
        let request = request.into_inner();
        within_limits(&request)?;
        // Who is bad is answered at once; the others keep their places.
        let mut recordings = Vec::new();
        let mut records = Vec::new();
        let mut places = Vec::new();
        for batch in request.batches {
            for result in batch.results {
                if let Some(record) = accept(&batch.organisation, result) {
                    places.push(recordings.len());
                    records.push(record);
                }
                recordings.push(Wire::Refused as i32);
            }
        }
        self.recorder.metrics().refused(recordings.len() - records.len());
        for (place, recording) in places.into_iter().zip(self.recorder.record(records).await?) {
            if recording == Recording::Recorded {
                recordings[place] = Wire::Recorded as i32;
            }
        }
        Ok(Response::new(RecordResultsResponse { recordings, discards: Vec::new() }))
    }

    async fn store_file(
        &self,
        _: Request<Streaming<StoreFileRequest>>,
    ) -> Result<Response<StoreFileResponse>, Status> {
        Err(not_built("StoreFile"))
    }
}

fn within_limits(request: &RecordResultsRequest) -> Result<(), Error> {
    let results = || request.batches.iter().flat_map(|batch| &batch.results);
    let data_bytes: usize = results().map(|result| result.data.len()).sum();
    if results().count() <= RESULTS_MAX && data_bytes <= DATA_BYTES_MAX {
        return Ok(());
    }
    let limits = format!("at most {RESULTS_MAX} results and {DATA_BYTES_MAX} bytes of data in one request");
    Err(Error::new(Kind::ResourceExhausted, "REQUEST_TOO_LARGE", limits))
}

/// Checks one result. `None`, and a line for the operator, if it can never be
/// recorded.
fn accept(organisation: &str, result: NewResult) -> Option<NewRecord> {
    let NewResult { id, definition, poll, task, identifier, r#type: media_type, data, .. } = result;
    // The storage config it names is unknown here: there is only the default.
    let labels = Labels { definition, poll, task, identifier, media_type };
    NewRecord::new(organisation, &id, labels, data)
        .map_err(|field| tracing::error!(organisation, id, field, "result refused"))
        .ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_proto::results::v1::ResultBatch;

    use super::*;

    fn request(results: usize, data_bytes: usize) -> RecordResultsRequest {
        let result = NewResult { data: Bytes::from(vec![0; data_bytes]), ..NewResult::default() };
        let batch = ResultBatch { results: vec![result; results], ..ResultBatch::default() };
        RecordResultsRequest { batches: vec![batch.clone(), batch] }
    }

    #[test]
    fn the_limits_hold_over_all_batches() {
        assert!(within_limits(&request(500, 1)).is_ok());
        assert!(within_limits(&request(501, 1)).is_err());
        assert!(within_limits(&request(1, DATA_BYTES_MAX / 2)).is_ok());
        let error = within_limits(&request(1, DATA_BYTES_MAX / 2 + 1)).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
    }
}
