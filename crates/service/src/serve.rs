//! Serving: one listener, the tower stack, health, reflection v1 and v1alpha,
//! and a stop that never hangs: unready, drain, hard deadline.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::server::{HealthReporter, HealthService};

use crate::{auth::Keys, stack::stack};

/// Open requests get this long to end after the stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Long-lived connections would pin all load to one replica.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(60);
/// Flow-control windows that let a batch of some hundred observations through
/// without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// Health and reflection of both versions, which names `services` and these two:
/// what every service answers.
///
/// # Errors
/// If the descriptor set is broken.
pub fn base_routes(
    reporter: HealthReporter,
    services: &[&'static str],
) -> Result<Routes, Box<dyn std::error::Error + Send + Sync>> {
    let reflection = |version: &'static str| {
        let builder = tonic_reflection::server::Builder::configure()
            .with_service_name("grpc.health.v1.Health")
            .with_service_name(version);
        let builder = services.iter().fold(builder, |builder, name| builder.with_service_name(*name));
        builder
            .register_encoded_file_descriptor_set(sluice_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let health = HealthService::from_health_reporter(reporter);
    Ok(Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection("grpc.reflection.v1.ServerReflection").build_v1()?)
        .add_service(reflection("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?))
}

/// Serves until shutdown, then lets open requests end, but not for ever.
///
/// # Errors
/// If the transport fails.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    keys: Arc<Keys>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_connection_age(CONNECTION_AGE_MAX)
        .max_connection_age_grace(CONNECTION_AGE_GRACE)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .layer(stack(keys))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served,
        () = deadline => {
            tracing::warn!("open requests were cut off at the deadline");
            Ok(())
        }
    }
}
