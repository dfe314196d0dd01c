//! ResultsService: the consumers' side.

use std::pin::Pin;

use futures_util::{Stream, TryStreamExt};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, AcknowledgeResultResponse, BatchAcknowledgeResultsRequest,
    BatchAcknowledgeResultsResponse, DownloadResultRequest, DownloadResultResponse, GetResultRequest,
    GetResultResponse, ListResultsRequest, ListResultsResponse, results_service_server::ResultsService,
};
use tonic::{Request, Response, Status};

use super::opened;
use crate::calls::Calls;

/// The handlers.
#[derive(Clone, Debug)]
pub struct Results {
    calls: Calls,
}

impl Results {
    pub fn new(calls: Calls) -> Self {
        Self { calls }
    }
}

#[tonic::async_trait]
impl ResultsService for Results {
    async fn get_result(
        &self,
        request: Request<GetResultRequest>,
    ) -> Result<Response<GetResultResponse>, Status> {
        let (access, request) = opened(request)?;
        let result = Some(self.calls.get(&access, request).await?);
        Ok(Response::new(GetResultResponse { result }))
    }

    async fn list_results(
        &self,
        request: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        let (access, request) = opened(request)?;
        Ok(Response::new(self.calls.list(&access, request).await?))
    }

    async fn acknowledge_result(
        &self,
        request: Request<AcknowledgeResultRequest>,
    ) -> Result<Response<AcknowledgeResultResponse>, Status> {
        let (access, request) = opened(request)?;
        Ok(Response::new(self.calls.acknowledge(&access, request).await?))
    }

    async fn batch_acknowledge_results(
        &self,
        request: Request<BatchAcknowledgeResultsRequest>,
    ) -> Result<Response<BatchAcknowledgeResultsResponse>, Status> {
        let (access, request) = opened(request)?;
        let ids = self.calls.acknowledge_many(&access, request).await?;
        let ids = ids.iter().map(ToString::to_string).collect();
        Ok(Response::new(BatchAcknowledgeResultsResponse { ids }))
    }

    type DownloadResultStream = Pin<Box<dyn Stream<Item = Result<DownloadResultResponse, Status>> + Send>>;

    async fn download_result(
        &self,
        request: Request<DownloadResultRequest>,
    ) -> Result<Response<Self::DownloadResultStream>, Status> {
        let (access, request) = opened(request)?;
        let parts = self.calls.download(&access, request).await?;
        let answers = access.while_valid(parts).map_ok(|data| DownloadResultResponse { data });
        Ok(Response::new(Box::pin(answers.map_err(Status::from))))
    }
}
