//! `DefinitionService` over gRPC.

use sluice_proto::ingest::v1::{
    self as proto, DefinitionViolation, DeleteDefinitionRequest, DeleteDefinitionResponse,
    GetDefinitionRequest, GetDefinitionResponse, ListDefinitionsRequest, ListDefinitionsResponse,
    PutDefinitionRequest, PutDefinitionResponse, ValidateDefinitionRequest, ValidateDefinitionResponse,
    definition_service_server::DefinitionService,
};
use sluice_service::{Error, auth::Access};
use tonic::{Request, Response, Status};

use crate::{
    calls::{DefinitionCalls, name},
    convert,
    definition::{Definition, RawDraft},
    definitions::PAGE_SIZE_MAX,
};

const PAGE_SIZE_DEFAULT: i64 = 100;
/// A page ends with the definition that makes it longer than this, in bytes: half of
/// what clients take by default.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The handlers.
#[derive(Clone, Debug)]
pub struct DefinitionHandlers {
    calls: DefinitionCalls,
}

impl DefinitionHandlers {
    /// Handlers of calls.
    #[must_use]
    pub fn new(calls: DefinitionCalls) -> Self {
        Self { calls }
    }
}

/// A definition as written, for the organisation it names. Empty is
/// system-wide, whoever asks: that is the contract's word for it.
fn raw_draft(access: &Access, message: Option<&proto::Definition>) -> Result<RawDraft, Error> {
    let message = message.ok_or_else(|| Error::invalid("definition", "must be given"))?;
    let organisation = match message.organisation.as_str() {
        "" => None,
        name => Some(access.organisation(name)?),
    };
    Ok(RawDraft { organisation, ..convert::raw_draft(message) })
}

#[tonic::async_trait]
impl DefinitionService for DefinitionHandlers {
    async fn put_definition(
        &self,
        request: Request<PutDefinitionRequest>,
    ) -> Result<Response<PutDefinitionResponse>, Status> {
        let access = Access::of(&request)?;
        let message = request.into_inner().definition;
        let raw = raw_draft(&access, message.as_ref())?;
        let etag = message.map(|message| message.etag).unwrap_or_default();
        let (definition, created) = self.calls.put(&access, raw, &etag).await?;
        Ok(Response::new(PutDefinitionResponse {
            definition: Some(convert::definition(&definition)),
            created,
        }))
    }

    async fn get_definition(
        &self,
        request: Request<GetDefinitionRequest>,
    ) -> Result<Response<GetDefinitionResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        let organisation = access.organisation_or_all(&request.organisation)?;
        let definition =
            self.calls.definitions.get(organisation.as_ref(), &name(&request.path, &request.id)?).await?;
        Ok(Response::new(GetDefinitionResponse { definition: Some(convert::definition(&definition)) }))
    }

    async fn list_definitions(
        &self,
        request: Request<ListDefinitionsRequest>,
    ) -> Result<Response<ListDefinitionsResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        let organisation = access.organisation_or_all(&request.organisation)?;
        let page_size = match i64::from(request.page_size) {
            0 => PAGE_SIZE_DEFAULT,
            size if (1..=PAGE_SIZE_MAX).contains(&size) => size,
            _ => return Err(Error::invalid("page_size", format!("must be 0 to {PAGE_SIZE_MAX}")).into()),
        };
        // The token is the last path of the page before: it grants nothing.
        let after = match request.page_token.as_str() {
            "" => String::new(),
            token => token
                .parse::<crate::definition::DefinitionPath>()
                .map(|path| path.to_string())
                .map_err(|_| Error::invalid("page_token", "is not one of this list"))?,
        };
        let include = request.include_system_wide;
        let found =
            self.calls.definitions.list(organisation.as_ref(), include, &after, page_size + 1).await?;
        let mut bytes = 0;
        let fits = |definition: &&Definition| {
            let fits = bytes <= PAGE_BYTES;
            bytes += definition.draft.text_bytes();
            fits
        };
        let most = usize::try_from(page_size).unwrap_or(usize::MAX);
        let page: Vec<_> = found.iter().take(most).take_while(fits).collect();
        let more = found.len() > page.len();
        let last = page.last().filter(|_| more).map(|definition| definition.draft.path.to_string());
        Ok(Response::new(ListDefinitionsResponse {
            definitions: page.into_iter().map(convert::definition).collect(),
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn delete_definition(
        &self,
        request: Request<DeleteDefinitionRequest>,
    ) -> Result<Response<DeleteDefinitionResponse>, Status> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        let organisation = access.organisation_or_all(&request.organisation)?;
        let name = name(&request.path, &request.id)?;
        let id = self.calls.delete(&access, organisation.as_ref(), &name, &request.etag).await?;
        Ok(Response::new(DeleteDefinitionResponse { id: id.to_string() }))
    }

    async fn validate_definition(
        &self,
        request: Request<ValidateDefinitionRequest>,
    ) -> Result<Response<ValidateDefinitionResponse>, Status> {
        let access = Access::of(&request)?;
        let raw = raw_draft(&access, request.into_inner().definition.as_ref())?;
        let violations: Vec<_> = self
            .calls
            .faults(raw)
            .await?
            .into_iter()
            .map(|v| DefinitionViolation { field: v.field, description: v.description })
            .collect();
        Ok(Response::new(ValidateDefinitionResponse { valid: violations.is_empty(), violations }))
    }
}
