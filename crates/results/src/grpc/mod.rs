//! The gRPC surface: handlers convert, call, convert.

mod intake;
mod results;
mod storage_configs;

use sluice_proto::{
    limits::{ANSWER_BYTES_MAX, INTAKE_MESSAGE_BYTES_MAX},
    results::v1::{
        results_intake_service_server::ResultsIntakeServiceServer,
        results_service_server::ResultsServiceServer,
        storage_config_service_server::StorageConfigServiceServer,
    },
};
use sluice_service::{Error, auth::Access};
use tonic::{Request, codec::CompressionEncoding, service::Routes};

pub use self::storage_configs::StorageConfigs;
use crate::{calls::Calls, intake::Intake};

/// The names of the services, for health.
pub const SERVICES: [&str; 3] = [
    "sluice.results.v1.ResultsService",
    "sluice.results.v1.ResultsIntakeService",
    "sluice.results.v1.StorageConfigService",
];

/// Adds the three services to the base routes.
pub fn routes(base: Routes, calls: Calls, intake: Intake, storage_configs: StorageConfigs) -> Routes {
    use CompressionEncoding::{Gzip, Zstd};
    let results = ResultsServiceServer::new(results::Results::new(calls))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let intake = ResultsIntakeServiceServer::new(intake::Intake::new(intake))
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .max_decoding_message_size(INTAKE_MESSAGE_BYTES_MAX);
    let storage_configs =
        StorageConfigServiceServer::new(storage_configs).accept_compressed(Gzip).accept_compressed(Zstd);
    base.add_service(results).add_service(intake).add_service(storage_configs)
}

/// The caller's access and the message.
fn opened<T>(request: Request<T>) -> Result<(Access, T), Error> {
    Ok((Access::of(&request)?, request.into_inner()))
}
