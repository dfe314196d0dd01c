//! grpc.health.v1 on a port of its own, in plain text: Kubernetes' own gRPC probes
//! can't do TLS. It tells nothing but whether the service serves, and that the
//! process lives.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::serve::ACCEPT_AGAIN;

/// What a liveness probe asks for: SERVING for as long as the process answers. A
/// process without its database must not be restarted for that.
pub const LIVENESS: &str = "liveness";
/// Calls at the same time on one connection.
const CALLS_PER_CONNECTION_MAX: usize = 16;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Serves health until shutdown; without a listener, nothing.
pub async fn serve(listener: Option<TcpListener>, reporter: HealthReporter, shutdown: CancellationToken) {
    let Some(listener) = listener else { return };
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
    let health = HealthServer::new(HealthService::from_health_reporter(reporter));
    let server = Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener).then(|accepted| async {
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
            accepted
        }));
    tokio::select! {
        // Not gracefully: a probe that watches would hold it open.
        () = shutdown.cancelled() => {}
        ended = server => if let Err(error) = ended {
            tracing::error!(%error, "health is no longer served in plain text");
        },
    }
}
