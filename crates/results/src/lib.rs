//! The results service: keeps what was accepted until it is consumed. It owns
//! the records, their bytes, acknowledgement and (later) clean-up, and knows
//! nothing of gates.
//!
//! `recorder` takes results in, `shelf` gives them out, `calls` are what
//! consumers may ask, `grpc` and `http` are the surfaces.

mod calls;
pub mod config;
mod convert;
mod filter;
mod grpc;
mod http;
mod partitions;
mod recorder;
mod result;
pub mod sessions;
mod shelf;
mod storage;
mod time;

use std::{process::ExitCode, time::Duration};

pub use config::Settings;
use sluice_service::{
    auth::Keys,
    health,
    postgres::{Database, Schema, migrate_when_possible},
    program::{self, Failure},
    serve,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use calls::Calls;
use recorder::Recorder;
use shelf::Shelf;

/// How long background work may take to end after serving has.
const ENDING: Duration = Duration::from_secs(5);

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The migrations of the results database.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}

/// Runs the program with its flags until SIGTERM or SIGINT.
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    let start = async |settings: Settings, shutdown| {
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|error| format!("can't listen on {}: {error}", settings.listen))?;
        run(settings, listener, shutdown).await
    };
    program::main(
        "sluice-results",
        Settings::TABLE,
        args,
        Settings::load,
        |settings| &settings.log_format,
        start,
    )
}

/// Serves on a listener until shutdown. A database that is away, or without its
/// schema, is waited for: the service is NOT_SERVING meanwhile.
///
/// # Errors
/// If the settings can't be used or the transport fails.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    if settings.database_connections == 0 {
        return Err("database_connections: must be at least 1".into());
    }
    let database = Database::parse(settings.database_url.expose())?;
    let keys = Keys::load(&settings.keys_file)?;
    let pool = database.pool(sessions::SERVING, settings.database_connections)?;
    let (recorder, lanes) = Recorder::start(&database);

    // Ends with this function, however it ends.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    let (reporter, _) = tonic_health::server::health_reporter();
    health::set(&reporter, &grpc::SERVICES, tonic_health::ServingStatus::NotServing).await;
    let tasks = TaskTracker::new();
    tasks.spawn(keys.clone().follow(stop.clone()));
    tasks.spawn(look_after_schema(database.clone(), settings.migrate, stop.clone()));
    tasks.spawn(health::follow_database(
        reporter.clone(),
        grpc::SERVICES.to_vec(),
        database,
        sessions::UPKEEP,
        Schema::of(&migrations()),
        stop.clone(),
    ));

    let calls = Calls { shelf: Shelf::new(pool) };
    let api = http::api(keys.clone(), &calls)?;
    let routes = grpc::routes(serve::base_routes(reporter, &grpc::SERVICES)?, calls, recorder);
    tracing::info!(address = %listener.local_addr()?, "listening");
    let served = serve::Served { routes, api, keys, limits: settings.limits };
    serve::serve(listener, served, shutdown).await;

    stop.cancel();
    tasks.close();
    let ended = async {
        tasks.wait().await;
        for lane in lanes {
            if let Err(error) = lane.await {
                tracing::error!(%error, "a lane of the recorder failed");
            }
        }
    };
    if tokio::time::timeout(ENDING, ended).await.is_err() {
        tracing::warn!("background work was cut off");
    }
    Ok(())
}

/// Migrates if asked, as soon as the database is there, then keeps partitions
/// ahead of the clock.
async fn look_after_schema(database: Database, migrating: bool, stop: CancellationToken) {
    if migrating {
        migrate_when_possible(&database, migrations, &stop).await;
    }
    partitions::keep(database, stop).await;
}
