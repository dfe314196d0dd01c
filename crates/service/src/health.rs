//! Truthful grpc.health.v1: a service is SERVING while its check passes, and
//! starts out NOT_SERVING (tonic's own start is SERVING).

use std::time::Duration;

use tokio::time::timeout;
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
///
/// `services` (and `""`, the whole process) are told of until shutdown, then NOT_SERVING.
/// Each change is logged once, with the reason.
pub(crate) async fn follow_database(
    reporter: HealthReporter,
    services: &'static [&'static str],
    database: Database,
    session: Session,
    schema: Schema,
    shutdown: CancellationToken,
) {
    let mut open = None;
    let mut told: Option<Result<(), String>> = None;
    loop {
        let now = match timeout(CHECK_TIMEOUT, check(&mut open, &database, session, &schema)).await {
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
            set(&reporter, services, status).await;
            told = Some(now);
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(CHECK_EVERY) => {}
        }
    }
    set(&reporter, services, ServingStatus::NotServing).await;
}

/// The session stays open only if it answered well: after a check that was cut off by its
/// deadline, or a standby after a failover, the next one gets a fresh one.
async fn check(
    open: &mut Option<Client>,
    database: &Database,
    session: Session,
    schema: &Schema,
) -> Result<(), String> {
    let client = match open.take().filter(|client| !client.is_closed()) {
        Some(client) => client,
        None => database
            .connect(session)
            .await
            .map_err(|error| format!("the database can't be reached: {error}"))?,
    };
    schema.fits(&client).await?;
    *open = Some(client);
    Ok(())
}

/// Sets one status for the process and all its services.
pub(crate) async fn set(reporter: &HealthReporter, services: &[&'static str], status: ServingStatus) {
    reporter.set_service_status("", status).await;
    for service in services {
        reporter.set_service_status(*service, status).await;
    }
}
