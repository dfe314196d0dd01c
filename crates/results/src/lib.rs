//! The results service: keeps what was accepted until it is consumed or its
//! retention ends. It owns the records, their bytes, acknowledgement and clean-up,
//! and knows nothing of gates.
//!
//! `intake` takes results and files in, `placing` sends their data where it
//! belongs (`writing` into buckets), `files` does so with what streams, as much at a time as
//! there are `rations` of memory for; `recorder` and `uploads` make the records, `recent`
//! remembers the last of them; `shelf` and `data` give them out; `configs` are the
//! storages, `doubts` looks into those that fail, `cleanup` empties them; `calls` are what
//! consumers may ask, `grpc` and `http` are the surfaces.

mod calls;
mod chunks;
mod cleanup;
pub mod config;
mod configs;
mod convert;
mod data;
mod doubts;
mod files;
mod filter;
mod grpc;
mod http;
mod intake;
pub mod metrics;
mod partitions;
mod placing;
mod recent;
mod reconcile;
mod recorder;
mod result;
pub mod sessions;
mod shelf;
mod signing;
mod slices;
mod storage;
mod storage_config;
mod time;
mod uploads;
mod writing;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

pub use config::Settings;
use deadpool_postgres::Pool;
use sluice_service::{
    admin,
    answer_memory::AnswerMemory,
    auth::Keys,
    background::Background,
    follow::Unusable,
    health,
    metrics::{Registry, Requests},
    postgres::{Database, Migration, Schema, SharedPool},
    probes,
    program::{self, Failure},
    rations::Rations,
    serve,
    shutdown::ENDING,
    tls::{Listener, Tls},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use calls::Calls;
use cleanup::Cleanup;
use configs::{Configs, calls::ConfigCalls, stores::Stores};
use data::Data;
use doubts::Doubts;
use files::Files;
use grpc::StorageConfigs;
use intake::Intake;
use metrics::Metrics;
use placing::{Placing, Registered};
use recent::Recent;
use reconcile::Reconciler;
use recorder::Recorder;
use sessions::Tenants;
use shelf::Shelf;
use signing::Signing;
use storage::{guard::Policy, keyring::Keyring};
use uploads::Uploads;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The migrations of the results database.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}

/// Runs the program with its flags until SIGTERM or SIGINT, or brings the schema
/// up to date (`migrate`).
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    if let Some(code) = program::migrate(config::PROGRAM, Settings::TABLE, &args, migrations) {
        return code;
    }
    let start = async |settings: Settings, shutdown| {
        let listener = program::listen("listen", settings.listen).await?;
        run(settings, listener, shutdown).await
    };
    program::main(
        config::PROGRAM,
        Settings::TABLE,
        args,
        Settings::load,
        |settings| &settings.telemetry,
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
    let admin = admin::bind(settings.telemetry.admin_listen).await?;
    let probes = probes::bind(settings.tls.health_listen).await?;
    let tls = Tls::load(&settings.tls)?;
    let mut exposed = Registry::new(config::PROGRAM.service, config::PROGRAM.version);
    let requests = Requests::register(&mut exposed);
    let unusable = Unusable::register(&mut exposed);
    let metrics = Metrics::register(&mut exposed);
    let database = settings.database.database()?;
    let keys = Keys::load(&settings.keys_file, settings.limits.organisation_rate(), &requests)?;
    let pool = database.pool(sessions::SERVING, settings.database_connections)?;
    let tenants = SharedPool::new(database.pool(sessions::TENANTS, settings.database_connections)?);
    let recent = Recent::new(settings.recent_bytes_max);
    let (recorder, lanes) = Recorder::start(&database, &recent, &metrics.recording);
    let (read_tenants, read_service) = (tenants.clone(), pool.clone());
    exposed.add_pools(vec![
        ("tenants", Box::new(move || read_tenants.status())),
        ("service", Box::new(move || read_service.status())),
    ]);
    let tenants = Tenants::new(tenants);

    // Ends with this function, however it ends.
    let stop = shutdown.child_token();
    let _stop = stop.clone().drop_guard();
    // Tells what goes on, and who may call, until everything has ended.
    let drained = CancellationToken::new();
    let _drained = drained.clone().drop_guard();
    let (reporter, _) = tonic_health::server::health_reporter();
    health::set(&reporter, &grpc::SERVICES, tonic_health::ServingStatus::NotServing).await;
    let (mut upkeep, mut to_the_end) = (Background::default(), Background::default());
    to_the_end.spawn("the keys file", keys.clone().follow(unusable.clone(), drained.clone()));
    if let Some(tls) = tls.clone() {
        to_the_end.spawn("TLS files", tls.follow(unusable, drained.clone()));
    }
    let migrating = settings.migrate.then(|| settings.database.migration()).transpose()?;
    upkeep.spawn("the schema", look_after_schema(database.clone(), migrating, stop.clone()));
    let healthy = health::follow_database(
        reporter.clone(),
        grpc::SERVICES.to_vec(),
        database,
        sessions::UPKEEP,
        Schema::of(&migrations()),
        stop.clone(),
    );
    upkeep.spawn("health", healthy);

    to_the_end.spawn("the admin port", admin::serve(admin, exposed, reporter.clone(), drained.clone()));
    to_the_end.spawn("probes", probes::serve(probes, reporter.clone(), drained.clone()));

    let address = listener.local_addr()?;
    let answers = AnswerMemory::new(settings.limits.answer_bytes_in_flight_max, &requests);
    let shelf = Shelf::new(tenants.clone(), recent.clone(), answers.clone(), metrics.shelf.clone());
    let storage = Storage::load(&settings, &tenants, &pool, shelf, address)?;
    let idle = Duration::from_secs(settings.upload_idle_seconds);
    let cleanup = Cleanup {
        pool: pool.clone(),
        configs: storage.configs.clone(),
        stores: storage.stores.clone(),
        every: Duration::from_secs(settings.cleanup_interval_seconds),
        upload_idle: idle,
        metrics: metrics.cleanup.clone(),
    };
    upkeep.spawn("the clean-up", cleanup.run(stop.clone()));
    upkeep.spawn("forgetting what is recent", recent.age(stop.clone()));
    let probing = configs::probe::keep(storage.configs.clone(), storage.stores.clone(), stop.clone());
    upkeep.spawn("probing storage configs", probing);
    let resealing = configs::reseal::keep(storage.configs.clone(), storage.stores.clone(), stop.clone());
    upkeep.spawn("resealing credentials", resealing);

    let calls = Calls {
        shelf: storage.data.shelf.clone(),
        data: storage.data.clone(),
        metrics: metrics.shelf.clone(),
    };
    let api = http::api(keys.clone(), &calls)?;
    let placing = Placing {
        configs: storage.configs.clone(),
        stores: storage.stores.clone(),
        doubts: Doubts::new(storage.configs.clone(), storage.stores.clone()),
        uploads: Uploads::new(pool.clone()),
        recorder,
        registered: Registered::new(pool.clone()),
    };
    let files = Files {
        placing: placing.clone(),
        pool: pool.clone(),
        memory: Rations::new(settings.file_bytes_in_flight_max, metrics.shelf.file_bytes()),
        idle,
        db_file_bytes_max: settings.db_file_bytes_max,
        metrics: metrics.shelf.clone(),
    };
    let storage_configs = StorageConfigs::new(
        ConfigCalls { configs: storage.configs.clone(), stores: storage.stores.clone() },
        Reconciler { tenants, configs: storage.configs, stores: storage.stores },
    );
    let base = serve::base_routes(reporter, &grpc::SERVICES)?;
    let routes = grpc::routes(base, calls, Intake { placing, files }, storage_configs);
    tracing::info!(%address, "listening");
    let served = serve::Served { routes, api, keys, requests, limits: settings.limits, answers };
    serve::serve(Listener::new(listener, tls), served, shutdown).await;

    stop.cancel();
    let ended = async {
        upkeep.into_tasks().join_all().await;
        for lane in lanes {
            if let Err(error) = lane.await {
                tracing::error!(%error, "a lane of the recorder failed");
            }
        }
    };
    if tokio::time::timeout(ENDING, ended).await.is_err() {
        tracing::warn!("background work was cut off");
    }
    drained.cancel();
    to_the_end.into_tasks().join_all().await;
    Ok(())
}

/// What stands between the settings and the bytes.
struct Storage {
    configs: Configs,
    stores: Stores,
    data: Data,
}

impl Storage {
    fn load(
        settings: &Settings,
        tenants: &Tenants,
        pool: &Pool,
        shelf: Shelf,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let policy = Policy::new(
            settings.storage_local_root.clone(),
            &settings.storage_endpoints,
            &settings.storage_identity_buckets,
        )?;
        let keys = Keyring::load(settings.storage_keys_file.as_deref(), settings.storage_keys.expose())?;
        let (configs, stores) = (Configs::new(tenants.clone(), pool.clone()), Stores::new(policy, keys));
        let keys = Keyring::load(settings.signing_keys_file.as_deref(), settings.signing_keys.expose())?;
        let base = match settings.public_url.as_str() {
            "" => format!("{}://{address}", if settings.tls.is_on() { "https" } else { "http" }),
            url => url.to_owned(),
        };
        let data = Data {
            shelf,
            tenants: tenants.clone(),
            configs: configs.clone(),
            stores: stores.clone(),
            signing: Arc::new(Signing::new(keys, &base)),
        };
        Ok(Self { configs, stores, data })
    }
}

/// Migrates if asked, as soon as the database is there, then keeps partitions
/// ahead of the clock.
async fn look_after_schema(database: Database, migrating: Option<Migration>, stop: CancellationToken) {
    if let Some(migration) = migrating {
        migration.run_when_possible(migrations, &stop).await;
    }
    partitions::keep(database, stop).await;
}
