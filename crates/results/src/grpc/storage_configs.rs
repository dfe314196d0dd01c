//! StorageConfigService: in the contract, and not built yet. All data is kept by
//! the built-in `db`.

use sluice_proto::results::v1::{
    CreateStorageConfigRequest, CreateStorageConfigResponse, DeactivateStorageConfigRequest,
    DeactivateStorageConfigResponse, GetStorageConfigRequest, GetStorageConfigResponse,
    ListStorageConfigsRequest, ListStorageConfigsResponse, ReconcileStorageConfigRequest,
    ReconcileStorageConfigResponse, SetDefaultStorageConfigRequest, SetDefaultStorageConfigResponse,
    TestStorageConfigRequest, TestStorageConfigResponse, UpdateStorageConfigRequest,
    UpdateStorageConfigResponse, storage_config_service_server::StorageConfigService,
};
use tonic::{Request, Response, Status};

use super::not_built;

/// Answers UNIMPLEMENTED.
#[derive(Clone, Copy, Debug)]
pub struct StorageConfigs;

macro_rules! not_built {
    ($($rpc:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl StorageConfigService for StorageConfigs {
            type ReconcileStorageConfigStream = tokio_stream::Empty<Result<ReconcileStorageConfigResponse, Status>>;

            async fn reconcile_storage_config(
                &self,
                _: Request<ReconcileStorageConfigRequest>,
            ) -> Result<Response<Self::ReconcileStorageConfigStream>, Status> {
                Err(not_built("StorageConfigService"))
            }

            $(async fn $rpc(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(not_built("StorageConfigService"))
            })*
        }
    };
}

not_built! {
    create_storage_config(CreateStorageConfigRequest) -> CreateStorageConfigResponse;
    get_storage_config(GetStorageConfigRequest) -> GetStorageConfigResponse;
    list_storage_configs(ListStorageConfigsRequest) -> ListStorageConfigsResponse;
    update_storage_config(UpdateStorageConfigRequest) -> UpdateStorageConfigResponse;
    deactivate_storage_config(DeactivateStorageConfigRequest) -> DeactivateStorageConfigResponse;
    set_default_storage_config(SetDefaultStorageConfigRequest) -> SetDefaultStorageConfigResponse;
    test_storage_config(TestStorageConfigRequest) -> TestStorageConfigResponse;
}
