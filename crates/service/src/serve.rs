//! Serving: one listener, with TLS or without, for gRPC, h2c and HTTP/1.1, the tower stack, health,
//! reflection v1 and v1alpha, and a stop that never hangs: unready, wait, drain, hard
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
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use tonic_health::server::{HealthReporter, HealthService};

use crate::{
    answer_memory::AnswerMemory,
    auth::Keys,
    descriptors,
    gathered::gathered,
    http::Api,
    leaving::{Leaving, Telling},
    limits::Limits,
    metrics::Requests,
    program::Failure,
    stack::{Stack, stack},
    tls::{Listener, Tls},
};

/// How long after a failed accept (out of file descriptors, say) to try again.
pub(crate) const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long the first byte of a connection, and each head of an HTTP/1.1 request
/// may take; so also how long an HTTP/1.1 connection may idle.
const HEADER_TIME_MAX: Duration = Duration::from_secs(4);
/// How much longer or shorter than the others a connection may live, so that those
/// that began together don't end together.
const AGE_JITTER: f64 = 0.1;
/// Flow-control windows that let a batch of a hundred observations through without
/// waiting for an update. What nobody has read yet waits there, unseen by the budget
/// for bodies: of one organisation, which may have half of all requests, 256 MiB.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Largest head of an HTTP/1.1 request.
const HTTP1_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Health and reflection of both versions, which names `services` and these two:
/// what every service answers.
///
/// # Errors
/// If the descriptor set is broken.
pub(crate) fn base_routes(reporter: HealthReporter, services: &[&'static str]) -> Result<Routes, Failure> {
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
pub(crate) struct Served {
    /// The gRPC surface.
    pub(crate) routes: Routes,
    /// The HTTP surface.
    pub(crate) api: Api,
    /// Who may call.
    pub(crate) keys: Arc<Keys>,
    /// Where requests are counted.
    pub(crate) requests: Arc<Requests>,
    /// What callers may take up.
    pub(crate) limits: Limits,
    /// The memory of answers.
    pub(crate) answer_memory: Arc<AnswerMemory>,
}

/// Serves until shutdown, and for a while after it: callers hear only later that
/// they are to go elsewhere. Then lets open requests end, but not for ever.
pub(crate) async fn serve(listener: Listener, served: Served, shutdown: CancellationToken) {
    let (wait, drain) = (served.limits.shutdown_wait(), served.limits.drain());
    let (open, refused) = (served.requests.connections.clone(), served.requests.refusals.connections.clone());
    descriptors::suffice_for(served.limits.connections_max);
    let places = Arc::new(Semaphore::new(served.limits.connections_max));
    let draining = CancellationToken::new();
    let connection =
        Connection { limits: served.limits.clone(), stack: stack(served), tls: listener.tls, draining };
    let connections = TaskTracker::new();
    // Ends what is still open when this function does.
    let cut_off = CancellationToken::new();
    let _cut_off = cut_off.clone().drop_guard();
    let mut closing = pin!(async {
        shutdown.cancelled().await;
        tokio::time::sleep(wait).await;
    });
    loop {
        let accepted = tokio::select! {
            () = closing.as_mut() => break,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Closed at once: who is told nothing would wait, and try nobody else.
                let Ok(place) = places.clone().try_acquire_owned() else {
                    refused.met(None);
                    continue;
                };
                let (connection, cut_off, open) = (connection.clone(), cut_off.clone(), open.clone());
                connections.spawn(gathered(async move {
                    open.inc();
                    tokio::select! {
                        () = cut_off.cancelled() => {}
                        () = connection.run(stream) => {}
                    }
                    open.dec();
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener.socket);
    connection.draining.cancel();
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!("open requests were cut off at the deadline");
    }
}

/// gRPC and h2c by HTTP/2's preface, else HTTP/1.1.
fn builder(limits: &Limits) -> Builder<TokioExecutor> {
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
        .keep_alive_interval(Duration::from_secs(limits.keepalive_interval_seconds))
        .keep_alive_timeout(Duration::from_secs(limits.keepalive_timeout_seconds))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // h2 refuses what is as large as this.
        .max_header_list_size(limits.header_list_bytes_max.saturating_add(1))
        .max_concurrent_streams(limits.streams_per_connection_max);
    builder
}

/// How long a connection takes requests: the age that is set, ten percent more or
/// less.
fn age(limits: &Limits) -> Duration {
    let jitter = rand::random_range(1.0 - AGE_JITTER..=1.0 + AGE_JITTER);
    Duration::from_secs(limits.connection_age_max_seconds).mul_f64(jitter)
}

/// What every connection is made of.
#[derive(Clone)]
struct Connection {
    limits: Limits,
    stack: Stack,
    tls: Option<Arc<Tls>>,
    /// The service takes no more requests.
    draining: CancellationToken,
}

impl Connection {
    /// One connection, from its first byte on.
    async fn run(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection without nodelay");
        }
        // Who connects and says nothing keeps nothing open.
        let mut first = [0];
        let spoken = tokio::select! {
            () = self.draining.cancelled() => false,
            spoken = tokio::time::timeout(HEADER_TIME_MAX, stream.peek(&mut first)) => spoken.is_ok(),
        };
        if !spoken {
            return;
        }
        let Some(tls) = self.tls.clone() else { return self.speak(stream).await };
        let accepted = tokio::select! {
            () = self.draining.cancelled() => return,
            accepted = tls.accept(stream) => accepted,
        };
        match accepted {
            Ok(stream) => self.speak(stream).await,
            Err(error) => tracing::debug!(%error, "no TLS session"),
        }
    }

    /// What is said on it, until it ends, is too old, nobody asks or reads anything, or
    /// the service stops.
    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let ended = |ended: Result<(), Failure>| {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        };
        let leaving = Leaving::before(&self.draining);
        let service = Telling { inner: self.stack, leaving: leaving.clone() };
        let quiet = Duration::from_secs(
            self.limits.keepalive_interval_seconds.saturating_add(self.limits.keepalive_timeout_seconds),
        );
        let answer_pause_max = Duration::from_secs(self.limits.answer_pause_max_seconds);
        let builder = builder(&self.limits);
        let mut open =
            pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
        let end = tokio::select! {
            done = open.as_mut() => return ended(done),
            () = tokio::time::sleep(age(&self.limits)) => End::Old,
            () = leaving.stalls().stuck(answer_pause_max) => End::Stuck,
            () = leaving.never_asked(quiet) => End::Stuck,
            () = self.draining.cancelled() => End::Draining,
        };
        open.as_mut().graceful_shutdown();
        leaving.now();
        let cut_off = async {
            match end {
                End::Old => {
                    let grace = Duration::from_secs(self.limits.connection_age_grace_seconds);
                    let stuck = async {
                        leaving.stalls().stuck(answer_pause_max).await;
                        tokio::time::sleep(answer_pause_max).await;
                    };
                    drop(tokio::time::timeout(grace, stuck).await);
                }
                End::Stuck => tokio::time::sleep(answer_pause_max).await,
                // By whoever drains, not here.
                End::Draining => std::future::pending().await,
            }
        };
        tokio::select! {
            done = open => ended(done),
            () = cut_off => {}
        }
    }
}

/// Why a connection takes no more requests.
enum End {
    /// Its open requests may take their time: a file has any size.
    Old,
    /// Somebody reads nothing of an answer, or has never asked anything.
    Stuck,
    Draining,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Part as _;

    #[test]
    fn connections_that_began_together_do_not_end_together() {
        let flag = "--connection-age-max-seconds=1000".to_owned();
        let limits = Limits::load([flag], []).unwrap();
        let ages: Vec<_> = (0..100).map(|_| age(&limits)).collect();
        assert!(ages.iter().all(|age| (900..=1100).contains(&age.as_secs())), "{ages:?}");
        assert!(ages.iter().any(|age| *age != ages[0]));
    }
}
