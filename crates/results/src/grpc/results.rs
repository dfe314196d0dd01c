//! ResultsService: the consumers' side.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, stream};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, AcknowledgeResultResponse, BatchAcknowledgeResultsRequest,
    BatchAcknowledgeResultsResponse, DownloadResultRequest, DownloadResultResponse, GetResultRequest,
    GetResultResponse, ListResultsRequest, ListResultsResponse, results_service_server::ResultsService,
};
use sluice_service::{Error, auth::Access};
use tonic::{Request, Response, Status};

use crate::calls::{Calls, id};

/// Largest chunk of a download, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

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
        let organisation = access.organisation(&request.organisation)?;
        let data = self.calls.shelf.download(&organisation, id(&request.id)?).await?;
        self.calls.metrics.download();
        self.calls.metrics.downloaded(data.len());
        let answers = chunks(data).map(|data| Ok(DownloadResultResponse { data }));
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }
}

/// The caller's access and the message.
fn opened<T>(request: Request<T>) -> Result<(Access, T), Error> {
    Ok((Access::of(&request)?, request.into_inner()))
}

/// Cuts data into chunks without copying it. No data is no chunk.
fn chunks(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = data.len().min(CHUNK_BYTES_MAX);
        (size > 0).then(|| data.split_to(size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_data_and_none_is_empty() {
        for size in [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1] {
            let data = Bytes::from(vec![7; size]);
            let parts: Vec<Bytes> = chunks(data.clone()).collect();
            assert!(parts.iter().all(|part| (1..=CHUNK_BYTES_MAX).contains(&part.len())));
            assert_eq!(parts.concat(), data);
        }
    }
}
