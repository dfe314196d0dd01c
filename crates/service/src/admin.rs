//! The admin port: metrics and plain HTTP probes for operators, on an address
//! that callers don't reach (loopback or the pod's network). Never with TLS or
//! tokens; it tells nothing of any organisation's data. It answers until the
//! service has drained.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic_health::{
    pb::{HealthCheckRequest, health_check_response::ServingStatus, health_server::Health},
    server::{HealthReporter, HealthService},
};

use crate::{
    Error,
    metrics::{self, Registry},
    serve::ACCEPT_AGAIN,
};

/// Connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may idle, and a head may take.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// What the admin port tells.
#[derive(Debug)]
struct Admin {
    registry: Registry,
    health: HealthService,
}

/// Serves the admin port until shutdown; without a listener, nothing.
pub(crate) async fn serve(
    listener: Option<TcpListener>,
    registry: Registry,
    reporter: HealthReporter,
    shutdown: CancellationToken,
) {
    let Some(listener) = listener else { return };
    let admin = Arc::new(Admin { registry, health: HealthService::from_health_reporter(reporter) });
    let router = Router::new()
        .route("/metrics", get(exposed))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(admin);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept(listener, router) => {}
    }
}

/// Takes connections; they end when this is dropped.
async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME_MAX);
    let mut open = JoinSet::new();
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (builder, service) = (builder.clone(), TowerToHyperService::new(router.clone()));
                open.spawn(async move {
                    let _place = place;
                    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                        tracing::debug!(%error, "a connection to the admin port broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to the admin port accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn exposed(State(admin): State<Arc<Admin>>) -> Response {
    match admin.registry.expose() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => Error::internal(error).into_response(),
    }
}

/// As `grpc.health.v1` says it of the whole process.
async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let everything = tonic::Request::new(HealthCheckRequest { service: String::new() });
    match admin.health.check(everything).await.map(|answer| answer.into_inner().status()) {
        Ok(ServingStatus::Serving) => "ok\n".into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not serving\n").into_response(),
    }
}
