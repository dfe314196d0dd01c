//! Serving: one listener, with TLS or without, for gRPC, h2c and HTTP/1.1, the tower stack, health,
//! reflection v1 and v1alpha, and a stop that never hangs: unready, drain, hard
//! deadline. hyper is driven here and not by tonic's server, which has no say
//! over HTTP/1.1's time limits.

use std::{pin::pin, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_health::server::{HealthReporter, HealthService};

use crate::{
    auth::Keys,
    http::Api,
    limits::Limits,
    metrics::Requests,
    program::Failure,
    stack::{Stack, stack},
    tls::{Listener, Tls},
};

/// Open requests get this long to end after the stop was asked for.
const DRAIN: Duration = Duration::from_secs(10);
/// How long after a failed accept (out of file descriptors, say) to try again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long the first byte of a connection, and each head of an HTTP/1.1 request
/// may take; so also how long an HTTP/1.1 connection may idle.
const HEADER_TIME_MAX: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Long-lived connections would pin all load to one replica.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(60);
/// Flow-control windows that let a batch of some hundred observations through
/// without waiting for an update; what nobody has read yet waits there, unseen by
/// the budget for bodies.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Largest head of an HTTP/1.1 request.
const HTTP1_BUFFER_BYTES_MAX: usize = 64 * 1024;
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// Health and reflection of both versions, which names `services` and these two:
/// what every service answers.
///
/// # Errors
/// If the descriptor set is broken.
pub fn base_routes(reporter: HealthReporter, services: &[&'static str]) -> Result<Routes, Failure> {
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

/// What a service serves, and within which limits.
pub struct Served {
    /// The gRPC surface.
    pub routes: Routes,
    /// The HTTP surface.
    pub api: Api,
    /// Who may call.
    pub keys: Arc<Keys>,
    /// Where requests are counted.
    pub requests: Requests,
    /// What callers may take up.
    pub limits: Limits,
}

/// Serves until shutdown, then lets open requests end, but not for ever.
pub async fn serve(listener: Listener, served: Served, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(stack(served));
    let builder = builder();
    let connections = TaskTracker::new();
    // Ends what is still open when this function does.
    let cut_off = CancellationToken::new();
    let _cut_off = cut_off.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (builder, service, tls) = (builder.clone(), service.clone(), listener.tls.clone());
                let (shutdown, cut_off) = (shutdown.clone(), cut_off.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = cut_off.cancelled() => {}
                        () = connection(stream, tls, builder, service, shutdown) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("open requests were cut off at the deadline");
    }
}

/// gRPC and h2c by HTTP/2's preface, else HTTP/1.1.
fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        // Who has sent all may say so, and still reads the answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    builder
}

/// One connection, from its first byte on.
async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    builder: Builder<TokioExecutor>,
    service: TowerToHyperService<Stack>,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without nodelay");
    }
    // Who connects and says nothing keeps nothing open.
    let mut first = [0];
    let spoken = tokio::select! {
        () = shutdown.cancelled() => false,
        spoken = tokio::time::timeout(HEADER_TIME_MAX, stream.peek(&mut first)) => spoken.is_ok(),
    };
    if !spoken {
        return;
    }
    let Some(tls) = tls else { return speak(stream, builder, service, shutdown).await };
    let accepted = tokio::select! {
        () = shutdown.cancelled() => return,
        accepted = tls.accept(stream) => accepted,
    };
    match accepted {
        Ok(stream) => speak(stream, builder, service, shutdown).await,
        Err(error) => tracing::debug!(%error, "no TLS session"),
    }
}

/// What is said on a connection, until it ends, is too old, or the service stops.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    builder: Builder<TokioExecutor>,
    service: TowerToHyperService<Stack>,
    shutdown: CancellationToken,
) {
    let ended = |ended: Result<(), Failure>| {
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    };
    let mut open = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        done = open.as_mut() => return ended(done),
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
        () = shutdown.cancelled() => {}
    }
    open.as_mut().graceful_shutdown();
    if let Ok(done) = tokio::time::timeout(CONNECTION_AGE_GRACE, open).await {
        ended(done);
    }
}
