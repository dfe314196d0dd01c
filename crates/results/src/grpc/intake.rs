//! ResultsIntakeService: the ingest service's way in.

use futures_util::StreamExt;
use sluice_proto::results::v1::{
    RecordResultsRequest, RecordResultsResponse, StoreFileRequest, StoreFileResponse,
    record_results_response::Recording as Wire, results_intake_service_server::ResultsIntakeService,
};
use sluice_service::budget::Account;
use tonic::{Request, Response, Status, Streaming};

use crate::{intake::Intake as Calls, recorder::Recording};

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
        let taken = self.calls.take(request.into_inner().batches).await?;
        let wire = |recordings: Vec<Recording>| {
            recordings.into_iter().map(|recording| wire(recording) as i32).collect()
        };
        let (recordings, discards) = (wire(taken.recordings), wire(taken.discards));
        Ok(Response::new(RecordResultsResponse { recordings, discards }))
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
