//! Truthful grpc.health.v1: a service is SERVING while its check passes, and
//! starts out NOT_SERVING (tonic's own start is SERVING).

use std::{future::Future, time::Duration};

use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::postgres::{Database, Schema, Session};

/// How often the check runs.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// How long one check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps health in step with a database: reachable, durable, with a schema that
/// fits. Over a session of its own: calls that use up a pool must not look like a
/// database that is away.
pub async fn follow_database(
    reporter: HealthReporter,
    services: Vec<&'static str>,
    database: Database,
    session: Session,
    schema: Schema,
    shutdown: CancellationToken,
) {
    let open: Mutex<Option<Client>> = Mutex::default();
    keep(reporter, services, shutdown, || async {
        let mut open = open.lock().await;
        let client = match open.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => database
                .connect(session)
                .await
                .map_err(|error| format!("the database can't be reached: {error}"))?,
        };
        // Kept only when it answered well: a check that was cut off by its
        // deadline, or a standby after a failover, gets a fresh one.
        schema.fits(&client).await?;
        *open = Some(client);
        Ok(())
    })
    .await;
}

/// Keeps `services` (and `""`, the whole process) in step with `check` until
/// shutdown, then says NOT_SERVING. Logs each change once, with the reason.
async fn keep<F, Fut>(
    reporter: HealthReporter,
    services: Vec<&'static str>,
    shutdown: CancellationToken,
    check: F,
) where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), String>>,
{
    let mut told: Option<Result<(), String>> = None;
    loop {
        let now = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
            Ok(answer) => answer,
            Err(_) => Err("the database does not answer".into()),
        };
        if told.as_ref() != Some(&now) {
            let status = match &now {
                Ok(()) => ServingStatus::Serving,
                Err(_) => ServingStatus::NotServing,
            };
            match &now {
                Ok(()) => tracing::info!("serving"),
                Err(reason) => tracing::warn!(%reason, "not serving"),
            }
            set(&reporter, &services, status).await;
            told = Some(now);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
    set(&reporter, &services, ServingStatus::NotServing).await;
}

/// Sets one status for the process and all its services.
pub async fn set(reporter: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    reporter.set_service_status("", status).await;
    for service in services {
        reporter.set_service_status(*service, status).await;
    }
}
