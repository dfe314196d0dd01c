//! `IngestService`: publishing over gRPC.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use prost::Message;
use sluice_proto::{
    google::rpc,
    ingest::v1::{
        PublishFileRequest, PublishFileResponse, PublishObservationsRequest, PublishObservationsResponse,
        ingest_service_server::IngestService,
    },
};
use sluice_service::{
    Error,
    answers::in_contract_words,
    auth::Access,
    budget::{Account, Share},
    leaving::Leaving,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    convert,
    files::Files,
    observation::Batch,
    publisher::{Pending, Publisher},
};

/// Requests of one stream that may be under way at the same time.
const STREAM_AHEAD: usize = 8;

/// The handlers.
#[derive(Clone, Debug)]
pub struct Ingest {
    publisher: Publisher,
    files: Files,
}

impl Ingest {
    /// Handlers on what publishes batches and files.
    #[must_use]
    pub fn new(publisher: Publisher, files: Files) -> Self {
        Self { publisher, files }
    }

    async fn begin(&self, access: &Access, request: PublishObservationsRequest) -> Result<Begun, Error> {
        let organisation = access.organisation(&request.organisation)?;
        let chkpts =
            request.observations.iter().map(|observation| convert::repeated(&observation.chkpt)).collect();
        let observations = request.observations.into_iter().map(convert::observation).collect();
        let batch = Batch::new(organisation, request.request_id, observations, self.publisher.limits())?;
        Ok(Begun { chkpts, pending: self.publisher.begin(batch).await?, _share: None })
    }
}

/// A batch on its way, with what the answer repeats.
struct Begun {
    chkpts: Vec<String>,
    pending: Pending,
    /// What a message of a stream holds of the memory for bodies.
    _share: Option<Share>,
}

impl Begun {
    async fn finish(self) -> Result<PublishObservationsResponse, Error> {
        Ok(convert::response(self.chkpts, self.pending.finish().await?))
    }
}

/// A refused request of a stream, as a message.
fn refused(error: Error) -> PublishObservationsResponse {
    let status = Status::from(error);
    // The details of a status are an encoded google.rpc.Status.
    let status = rpc::Status::decode(status.details()).unwrap_or_else(|_| rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    });
    PublishObservationsResponse { status: Some(status), ..PublishObservationsResponse::default() }
}

#[tonic::async_trait]
impl IngestService for Ingest {
    async fn publish_observations(
        &self,
        request: Request<PublishObservationsRequest>,
    ) -> Result<Response<PublishObservationsResponse>, Status> {
        let access = Access::of(&request)?;
        let begun = self.begin(&access, request.into_inner()).await?;
        Ok(Response::new(begun.finish().await?))
    }

    type StreamObservationsStream =
        Pin<Box<dyn Stream<Item = Result<PublishObservationsResponse, Status>> + Send>>;

    async fn stream_observations(
        &self,
        request: Request<Streaming<PublishObservationsRequest>>,
    ) -> Result<Response<Self::StreamObservationsStream>, Status> {
        let access = Access::of(&request)?;
        let leaving = Leaving::of(&request);
        let account = request.extensions().get::<Account>().cloned();
        let handlers = self.clone();
        // Requests are begun one after the other, so decided in order; their
        // answers are waited for side by side and given in order.
        // A revoked token, or the end of the connection, ends the requests; what
        // they began is still answered.
        let left = Arc::new(OnceLock::new());
        let leaves = left.clone();
        let requests = request
            .into_inner()
            .map_err(in_contract_words)
            .take_until(async move { leaves.set(leaving.ending().await) });
        let answers = access
            .clone()
            .while_valid(requests)
            .then(move |message| {
                let (handlers, access) = (handlers.clone(), access.clone());
                let share = account.as_ref().and_then(Account::of_message);
                async move {
                    let begun = handlers.begin(&access, message?).await;
                    Ok(begun.map(|begun| Begun { _share: share, ..begun }))
                }
            })
            .map(|begun: Result<Result<Begun, Error>, Status>| async move {
                match begun? {
                    Ok(begun) => Ok(begun.finish().await.unwrap_or_else(refused)),
                    Err(error) => Ok(refused(error)),
                }
            })
            .buffered(STREAM_AHEAD)
            .chain(stream::once(async move { left.get().copied() }).filter_map(|ending| {
                // Nothing, if the publisher ended the stream.
                future::ready(ending.map(|ending| Err(Error::from(ending).into())))
            }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn publish_file(
        &self,
        request: Request<Streaming<PublishFileRequest>>,
    ) -> Result<Response<PublishFileResponse>, Status> {
        super::files::publish(&self.files, request).await
    }
}
