//! StorageConfigService: where organisations keep their data.

use std::pin::Pin;

use futures_util::{Stream, TryStreamExt};
use sluice_proto::results::v1::{
    CreateStorageConfigRequest, CreateStorageConfigResponse, DeactivateStorageConfigRequest,
    DeactivateStorageConfigResponse, GetStorageConfigRequest, GetStorageConfigResponse,
    ListStorageConfigsRequest, ListStorageConfigsResponse, ReconcileStorageConfigRequest,
    ReconcileStorageConfigResponse, SetDefaultStorageConfigRequest, SetDefaultStorageConfigResponse,
    TestStorageConfigRequest, TestStorageConfigResponse, UpdateStorageConfigRequest,
    UpdateStorageConfigResponse, storage_config_service_server::StorageConfigService,
};
use tonic::{Request, Response, Status};

use super::opened;
use crate::{configs::calls::ConfigCalls, reconcile::Reconciler};

/// The handlers.
#[derive(Clone, Debug)]
pub struct StorageConfigs {
    calls: ConfigCalls,
    reconciler: Reconciler,
}

impl StorageConfigs {
    pub fn new(calls: ConfigCalls, reconciler: Reconciler) -> Self {
        Self { calls, reconciler }
    }
}

#[tonic::async_trait]
impl StorageConfigService for StorageConfigs {
    async fn create_storage_config(
        &self,
        request: Request<CreateStorageConfigRequest>,
    ) -> Result<Response<CreateStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        let storage_config = Some(self.calls.create(&access, request).await?);
        Ok(Response::new(CreateStorageConfigResponse { storage_config }))
    }

    async fn get_storage_config(
        &self,
        request: Request<GetStorageConfigRequest>,
    ) -> Result<Response<GetStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        let storage_config = Some(self.calls.get(&access, request).await?);
        Ok(Response::new(GetStorageConfigResponse { storage_config }))
    }

    async fn list_storage_configs(
        &self,
        request: Request<ListStorageConfigsRequest>,
    ) -> Result<Response<ListStorageConfigsResponse>, Status> {
        let (access, request) = opened(request)?;
        Ok(Response::new(self.calls.list(&access, request).await?))
    }

    async fn update_storage_config(
        &self,
        request: Request<UpdateStorageConfigRequest>,
    ) -> Result<Response<UpdateStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        let storage_config = Some(self.calls.update(&access, request).await?);
        Ok(Response::new(UpdateStorageConfigResponse { storage_config }))
    }

    async fn deactivate_storage_config(
        &self,
        request: Request<DeactivateStorageConfigRequest>,
    ) -> Result<Response<DeactivateStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        let storage_config = Some(self.calls.deactivate(&access, request).await?);
        Ok(Response::new(DeactivateStorageConfigResponse { storage_config }))
    }

    async fn set_default_storage_config(
        &self,
        request: Request<SetDefaultStorageConfigRequest>,
    ) -> Result<Response<SetDefaultStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        let storage_config = self.calls.set_default(&access, request).await?;
        Ok(Response::new(SetDefaultStorageConfigResponse { storage_config }))
    }

    async fn test_storage_config(
        &self,
        request: Request<TestStorageConfigRequest>,
    ) -> Result<Response<TestStorageConfigResponse>, Status> {
        let (access, request) = opened(request)?;
        Ok(Response::new(self.calls.test(&access, request).await?))
    }

    type ReconcileStorageConfigStream =
        Pin<Box<dyn Stream<Item = Result<ReconcileStorageConfigResponse, Status>> + Send>>;

    async fn reconcile_storage_config(
        &self,
        request: Request<ReconcileStorageConfigRequest>,
    ) -> Result<Response<Self::ReconcileStorageConfigStream>, Status> {
        let (access, request) = opened(request)?;
        let findings = self.reconciler.reconcile(&access, request).await?;
        Ok(Response::new(Box::pin(access.while_valid(findings).map_err(Status::from))))
    }
}
