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
use uuid::Uuid;

use super::convert;
use crate::{result::parse_id, shelf::Shelf};

/// Most ids in one batch.
const IDS_MAX: usize = 10_000;
/// Largest chunk of a download, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The handlers.
#[derive(Clone, Debug)]
pub struct Results {
    shelf: Shelf,
}

impl Results {
    pub fn new(shelf: Shelf) -> Self {
        Self { shelf }
    }
}

#[tonic::async_trait]
impl ResultsService for Results {
    async fn get_result(
        &self,
        request: Request<GetResultRequest>,
    ) -> Result<Response<GetResultResponse>, Status> {
        let (access, request) = opened(request)?;
        let organisation = access.organisation(&request.organisation)?;
        let record = self.shelf.get(&organisation, id(&request.id)?).await?;
        let result = Some(convert::result(&organisation, record, None));
        Ok(Response::new(GetResultResponse { result }))
    }

    async fn list_results(
        &self,
        request: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        let (access, request) = opened(request)?;
        let organisation = access.organisation(&request.organisation)?;
        let asked = convert::list(organisation, request)?;
        let between = asked.walk.interval(&asked.page_token)?;
        let page = self.shelf.list(&asked.walk, between, asked.page_size, asked.data_bytes_max).await?;
        let organisation = &asked.walk.organisation;
        let records = page.records.into_iter();
        Ok(Response::new(ListResultsResponse {
            results: records.map(|(record, data)| convert::result(organisation, record, data)).collect(),
            next_page_token: page.next.map(|last| asked.walk.token(last)).unwrap_or_default(),
        }))
    }

    async fn acknowledge_result(
        &self,
        request: Request<AcknowledgeResultRequest>,
    ) -> Result<Response<AcknowledgeResultResponse>, Status> {
        let (access, request) = opened(request)?;
        let organisation = access.organisation(&request.organisation)?;
        let (record, changed) = self.shelf.acknowledge(&organisation, id(&request.id)?).await?;
        let result = Some(convert::result(&organisation, record, None));
        Ok(Response::new(AcknowledgeResultResponse { result, changed }))
    }

    async fn batch_acknowledge_results(
        &self,
        request: Request<BatchAcknowledgeResultsRequest>,
    ) -> Result<Response<BatchAcknowledgeResultsResponse>, Status> {
        let (access, request) = opened(request)?;
        let organisation = access.organisation(&request.organisation)?;
        if request.ids.len() > IDS_MAX {
            return Err(Error::invalid("ids", format!("at most {IDS_MAX} in one request")).into());
        }
        let ids: Vec<Uuid> = request.ids.iter().filter_map(|text| parse_id(text)).collect();
        let mut moved = self.shelf.acknowledge_many(&organisation, ids.clone()).await?;
        // In request order, each once: taking an id out of the set tells it.
        let ids = ids.into_iter().filter(|id| moved.remove(id)).map(|id| id.to_string()).collect();
        Ok(Response::new(BatchAcknowledgeResultsResponse { ids }))
    }

    type DownloadResultStream = Pin<Box<dyn Stream<Item = Result<DownloadResultResponse, Status>> + Send>>;

    async fn download_result(
        &self,
        request: Request<DownloadResultRequest>,
    ) -> Result<Response<Self::DownloadResultStream>, Status> {
        let (access, request) = opened(request)?;
        let organisation = access.organisation(&request.organisation)?;
        let data = self.shelf.download(&organisation, id(&request.id)?).await?;
        let answers = chunks(data).map(|data| Ok(DownloadResultResponse { data }));
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }
}

/// The caller's access and the message.
fn opened<T>(request: Request<T>) -> Result<(Access, T), Error> {
    Ok((Access::of(&request)?, request.into_inner()))
}

/// An id that can be no result's is answered like one that is unknown.
fn id(text: &str) -> Result<Uuid, Error> {
    parse_id(text).ok_or_else(|| Error::not_found("result"))
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
