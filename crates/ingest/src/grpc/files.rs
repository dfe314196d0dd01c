//! `PublishFile`: the metadata first, then chunks.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use sluice_proto::ingest::v1::{
    FileMetadata, PublishFileRequest, PublishFileResponse, publish_file_request::Part,
};
use sluice_service::{Error, answers::in_contract_words, auth::Access, budget::Account};
use tonic::{Request, Response, Status, Streaming};

use crate::{convert, files::Files};

/// Publishes one file.
pub async fn publish(
    files: &Files,
    request: Request<Streaming<PublishFileRequest>>,
) -> Result<Response<PublishFileResponse>, Status> {
    let access = Access::of(&request)?;
    let account = request.extensions().get::<Account>().cloned();
    let mut messages = request.into_inner();
    let first = files.first(messages.message()).await?.map_err(in_contract_words)?;
    let metadata = metadata(first)?;
    let organisation = access.organisation(&metadata.organisation)?;
    let chkpt = convert::repeated(&metadata.chkpt);
    // A chunk lies in the buffer that the stream keeps, and counts as such: files that wait
    // for their storage take no room from requests.
    let of_the_buffer = move |_: &_| drop(account.as_ref().and_then(Account::of_message));
    let chunks = chunks(messages.inspect(of_the_buffer), access);
    // What the policy holds is large.
    let publishing = Box::pin(files.publish(&organisation, convert::file(metadata), chunks));
    Ok(Response::new(convert::file_response(chkpt, publishing.await?)))
}

fn metadata(first: Option<PublishFileRequest>) -> Result<FileMetadata, Error> {
    match first.and_then(|message| message.part) {
        Some(Part::Metadata(metadata)) => Ok(metadata),
        _ => Err(Error::invalid("metadata", "must be the first message")),
    }
}

fn chunk(message: PublishFileRequest) -> Result<Bytes, Error> {
    match message.part {
        Some(Part::Chunk(chunk)) => Ok(chunk),
        _ => Err(Error::invalid("chunk", "must be in every message but the first")),
    }
}

/// The rest of the stream. A token that is revoked breaks it off.
fn chunks(
    messages: impl Stream<Item = Result<PublishFileRequest, Status>>,
    access: Access,
) -> impl Stream<Item = Result<Bytes, Status>> {
    access.while_valid(messages.map(|message| Ok(chunk(message.map_err(in_contract_words)?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_the_metadata_and_no_other() {
        let message = |part| PublishFileRequest { part };
        let (is_metadata, is_chunk) =
            (|| Part::Metadata(FileMetadata::default()), || Part::Chunk("x".into()));
        assert!(metadata(Some(message(Some(is_metadata())))).is_ok());
        assert!(metadata(Some(message(Some(is_chunk())))).is_err());
        assert!(metadata(Some(message(None))).is_err());
        assert!(metadata(None).is_err());
        assert!(chunk(message(Some(is_chunk()))).is_ok());
        assert!(chunk(message(Some(is_metadata()))).is_err());
        assert!(chunk(message(None)).is_err());
    }
}
