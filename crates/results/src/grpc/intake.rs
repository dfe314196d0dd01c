//! ResultsIntakeService: the ingest service's way in.

use futures_util::StreamExt;
use sluice_proto::{
    limits::{RECORD_DATA_BYTES_MAX, RECORD_ITEMS_MAX},
    results::v1::{
        RecordResultsRequest, RecordResultsResponse, StoreFileRequest, StoreFileResponse,
        record_results_response::Recording as Wire, results_intake_service_server::ResultsIntakeService,
    },
};
use sluice_service::{Error, Kind, budget::Account};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    intake::{Handed, Intake as Calls},
    recorder::Recording,
};

/// The handlers.
#[derive(Clone, Debug)]
pub struct Intake {
    calls: Calls,
}

impl Intake {
    pub fn new(calls: Calls) -> Self {
        Self { calls }
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
        let (mut results, mut discarded) = (Vec::new(), Vec::new());
        for batch in request.batches {
            let organisation = batch.organisation;
            let of = |id| Handed { organisation: organisation.clone(), what: id };
            discarded.extend(batch.discarded_files.into_iter().map(of));
            let of = |result| Handed { organisation: organisation.clone(), what: result };
            results.extend(batch.results.into_iter().map(of));
        }
        let (recordings, discards) = self.calls.take(results, discarded).await?;
        let wire = |recordings: Vec<Recording>| {
            recordings.into_iter().map(|recording| wire(recording) as i32).collect()
        };
        Ok(Response::new(RecordResultsResponse { recordings: wire(recordings), discards: wire(discards) }))
    }

    async fn store_file(
        &self,
        request: Request<Streaming<StoreFileRequest>>,
    ) -> Result<Response<StoreFileResponse>, Status> {
        let account = request.extensions().get::<Account>().cloned();
        // A file's bytes have room of their own: those that wait for it take none from results.
        let of_their_own = move |_: &_| drop(account.as_ref().and_then(Account::of_message));
        let stream = request.into_inner().inspect(of_their_own).boxed();
        let sealed = self.calls.files.store(stream).await?;
        Ok(Response::new(StoreFileResponse {
            checksum: sealed.checksum.to_hex(),
            size: sealed.size,
            r#type: sealed.media_type,
        }))
    }
}

fn wire(recording: Recording) -> Wire {
    match recording {
        Recording::Recorded => Wire::Recorded,
        Recording::Deferred => Wire::Deferred,
        Recording::Refused => Wire::Refused,
    }
}

fn within_limits(request: &RecordResultsRequest) -> Result<(), Error> {
    let results = || request.batches.iter().flat_map(|batch| &batch.results);
    let data_bytes: usize = results().map(|result| result.data.len()).sum();
    let discarded: usize = request.batches.iter().map(|batch| batch.discarded_files.len()).sum();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_proto::results::v1::{NewResult, ResultBatch};

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
        assert!(within_limits(&request(1, RECORD_DATA_BYTES_MAX / 2)).is_ok());
        let error = within_limits(&request(1, RECORD_DATA_BYTES_MAX / 2 + 1)).unwrap_err();
        assert_eq!(error.kind(), Kind::ResourceExhausted);
    }
}
