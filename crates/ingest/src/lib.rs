//! The ingest service: decides what gets in. It owns definitions, progress
//! markers, unique windows, throttle counters and the outbox; it knows nothing
//! of buckets. The README walks one observation through these files.

mod backlog;
mod calls;
mod check;
mod committer;
mod config;
mod convert;
mod definition;
mod definitions;
mod doubt;
mod emitter;
mod ending;
mod files;
mod gate;
mod grpc;
mod hash;
mod http;
mod json;
mod metrics;
mod observation;
mod outbox;
mod outcome;
mod publisher;
mod registry;
mod retention;
mod schema;
mod schemas;
mod tally;
mod turns;

use std::{process::ExitCode, sync::Arc, time::Duration};

use sluice_proto::ingest::v1::{
    definition_service_server::DefinitionServiceServer, ingest_service_server::IngestServiceServer,
};
use sluice_service::{
    admin,
    answer_memory::AnswerMemory,
    auth::Keys,
    background::Background,
    client::TokenInterceptor,
    follow::Unusable,
    health,
    metrics::{ReadStatus, Registry, Requests},
    postgres::{Database, Schema, Session},
    probes,
    program::{self, Failure},
    serve,
    tls::{Listener, Tls},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic_health::server::HealthReporter;
use uuid::Uuid;

pub use config::Settings;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The schema's migrations.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}

const SERVICES: [&str; 2] = ["sluice.ingest.v1.IngestService", "sluice.ingest.v1.DefinitionService"];
/// Rows found in the database that may wait for the emitter.
const FOUND_MAX: usize = 1024;

/// Sessions for definitions.
const POOL_SESSION: Session = Session {
    application_name: "sluice-ingest",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("jit", "off"),
    ],
};

/// Sessions for the outbox's upkeep: what they write may be lost in a crash at
/// the cost of a repeated hand-over, so nobody waits for the disk.
const OUTBOX_SESSION: Session = Session {
    application_name: "sluice-ingest-outbox",
    role: None,
    parameters: &[
        ("synchronous_commit", "off"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        // The outbox is empty or full, and statistics are always late.
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("jit", "off"),
    ],
};

/// Sessions for uploads of files: durable, and with plans that are pinned like the
/// gate's.
const FILES_SESSION: Session = Session {
    application_name: "sluice-ingest-files",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
    ],
};

/// The main function of `sluice-ingest` and of `sluice serve ingest`: serves until
/// SIGTERM or SIGINT, or brings the schema up to date (`migrate`).
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    if let Some(code) = program::migrate(config::PROGRAM, Settings::TABLE, &args, migrations) {
        return code;
    }
    program::main(
        config::PROGRAM,
        Settings::TABLE,
        args,
        Settings::load,
        |settings| &settings.telemetry,
        |settings, shutdown| async move {
            let listener = program::listen("listen", settings.listen).await?;
            run(settings, listener, shutdown).await
        },
    )
}

/// Serves on a listener until shutdown. Comes up without a database, too, and
/// says NOT_SERVING until there is one that fits.
///
/// # Errors
/// If the configuration can't be used or the transport fails.
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
    let metrics = metrics::Metrics::register(&mut exposed, settings.outbox_bytes_max);
    let keys = Keys::load(&settings.keys_file, settings.limits.organisation_rate(), &requests)?;
    let database = settings.database.database()?;
    let pool = database.pool(POOL_SESSION, settings.database_connections)?;
    let retention = Duration::from_secs(settings.gate_retention_seconds);
    let reporter = HealthReporter::new();
    health::set(&reporter, &SERVICES, tonic_health::ServingStatus::NotServing).await;

    // Requests may still come and ask while the server drains.
    let drained = CancellationToken::new();
    let mut upkeep = Background::default();
    upkeep.spawn("the keys file", keys.clone().follow(unusable.clone(), drained.clone()));
    if let Some(tls) = tls.clone() {
        upkeep.spawn("TLS files", tls.follow(unusable.clone(), drained.clone()));
    }
    if settings.migrate {
        let (migration, shutdown) = (settings.database.migration()?, shutdown.clone());
        upkeep.spawn("migrating", async move { migration.run_when_possible(migrations, &shutdown).await });
    }
    let healthy = health::follow_database(
        reporter.clone(),
        SERVICES.to_vec(),
        database.clone(),
        POOL_SESSION,
        Schema::of(&migrations()),
        shutdown.clone(),
    );
    upkeep.spawn("health", healthy);
    let cleanup = retention::run(database.clone(), retention, metrics.gate.clone(), shutdown.clone());
    upkeep.spawn("the gate's clean-up", cleanup);
    // A session of its own: who changes definitions must not keep it from following.
    let (registry, follower) = registry::Registry::new(database.pool(POOL_SESSION, 1)?);
    upkeep.spawn("reading definitions", follower.run(drained.clone()));

    let pipeline = Pipeline::start(
        &settings,
        &database,
        registry.clone(),
        &metrics,
        &unusable,
        (&mut upkeep, &drained),
    )?;
    let limits = observation::Limits {
        observations_max: settings.observations_max,
        observation_bytes_max: settings.observation_bytes_max,
        json: json::Bounds {
            depth_max: settings.json_depth_max,
            keys_max: settings.json_keys_max,
            string_bytes_max: settings.json_string_bytes_max,
        },
    };
    let publisher =
        publisher::Publisher::new(registry, pipeline.committer, pipeline.backlog, limits, metrics.tally);
    let pools =
        [("definitions", pool.clone()), ("outbox", pipeline.outbox_pool), ("files", pipeline.files_pool)];
    let read =
        |(name, pool): (_, deadpool_postgres::Pool)| (name, Box::new(move || pool.status()) as ReadStatus);
    exposed.add_pools(pools.map(read).into());
    upkeep.spawn("the admin port", admin::serve(admin, exposed, reporter.clone(), drained.clone()));
    upkeep.spawn("probes", probes::serve(probes, reporter.clone(), drained.clone()));
    let bounds = definitions::Bounds {
        count_max: settings.organisation_definitions_max.into(),
        text_bytes_max: settings.organisation_schema_bytes_max.into(),
    };
    let calls = calls::DefinitionCalls::new(
        definitions::Definitions::new(pool, bounds),
        retention,
        publisher.turns(),
    );
    let surface =
        http::Ingest { publisher: publisher.clone(), request_bytes_max: settings.limits.request_bytes_max };
    let api = http::api(keys.clone(), &surface, &calls)?;
    // What holds a publisher must be gone when the lanes are to end.
    drop(surface);
    let files = files::Files::new(
        publisher.clone(),
        pipeline.uploads,
        pipeline.store,
        files::places::Places::new(settings.files_max, settings.organisation_files_max),
        Duration::from_secs(settings.file_idle_seconds),
    );
    let ingest = IngestServiceServer::new(grpc::publish::Ingest::new(publisher, files))
        .max_decoding_message_size(settings.limits.request_bytes_max)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let handlers = grpc::definitions::DefinitionHandlers::new(calls);
    let routes = serve::base_routes(reporter, &SERVICES)?
        .add_service(ingest)
        .add_service(DefinitionServiceServer::new(handlers));
    tracing::info!(address = %listener.local_addr()?, instance = %pipeline.instance, "listening");
    let answers = AnswerMemory::new(settings.limits.answer_bytes_in_flight_max, &requests);
    let served = serve::Served { routes, api, keys, requests, limits: settings.limits, answers };
    serve::serve(Listener::new(listener, tls), served, shutdown).await;

    // The publisher went with the server.
    let (lanes, emitter, deleter) = (pipeline.lanes, pipeline.emitter, pipeline.deleter);
    let upkeep = upkeep.into_tasks();
    ending::Working { lanes, emitter, deleter, upkeep, drained }.end().await?;
    Ok(())
}

/// From the committer to the results service.
struct Pipeline {
    instance: Uuid,
    committer: committer::Committer,
    backlog: Arc<backlog::Backlog>,
    uploads: files::uploads::Uploads,
    store: files::store::Store,
    outbox_pool: deadpool_postgres::Pool,
    files_pool: deadpool_postgres::Pool,
    lanes: JoinSet<()>,
    emitter: tokio::task::JoinHandle<()>,
    deleter: tokio::task::JoinHandle<()>,
}

impl Pipeline {
    fn start(
        settings: &Settings,
        database: &Database,
        registry: registry::Registry,
        metrics: &metrics::Metrics,
        unusable: &Unusable,
        (background, stopped): (&mut Background, &CancellationToken),
    ) -> Result<Self, Failure> {
        let instance = Uuid::now_v7();
        let backlog = Arc::new(backlog::Backlog::new(
            settings.outbox_bytes_max,
            settings.outbox_organisation_bytes_max,
        ));
        let outbox_pool = database.pool(OUTBOX_SESSION, settings.database_connections)?;
        let token = TokenInterceptor::load(&settings.results_token_file)?;
        let token_file = settings.results_token_file.clone();
        let reread = token.clone().follow(token_file, unusable.clone(), stopped.clone());
        background.spawn("the token file", reread);
        let results = settings.results()?;
        let reread = results.clone().follow_files(unusable.clone(), stopped.clone());
        background.spawn("certificates for results", reread);
        let every = Duration::from_secs(settings.results_resolve_seconds);
        background.spawn_until(stopped, "names of results", results.clone().follow_names(every));
        let caller = emitter::call::Caller::new(
            results.clone(),
            token.clone(),
            outbox_pool.clone(),
            instance,
            metrics.emission.clone(),
        );
        let files_pool = database.pool(FILES_SESSION, settings.database_connections)?;
        let uploads = files::uploads::Uploads::new(files_pool.clone(), instance);
        background.spawn_until(stopped, "the look for dead uploads", uploads.clone().run());

        let (emit, emissions) = mpsc::unbounded_channel();
        let (hand, found) = mpsc::channel(FOUND_MAX);
        let (done, recorded) = mpsc::unbounded_channel();
        let condition = Arc::new(emitter::Condition::default());
        let emitter = emitter::Emitter::new(emissions, found, caller, done, condition.clone());
        let at_gate = Arc::new(committer::AtGate::default());
        let upkeep = emitter::upkeep::Upkeep {
            pool: outbox_pool.clone(),
            instance,
            condition,
            at_gate: at_gate.clone(),
            found: hand,
        };
        background.spawn_until(stopped, "upkeep of the outbox", upkeep.run());
        let beats = database.pool(emitter::heartbeat::SESSION, 1)?;
        background.spawn_until(stopped, "the heartbeat", emitter::heartbeat::run(beats, instance));
        let measure = emitter::measure::Measure {
            pool: database.pool(emitter::measure::SESSION, 1)?,
            backlog: backlog.clone(),
            metrics: metrics.outbox.clone(),
        };
        background.spawn_until(stopped, "measuring the outbox", measure.run());

        let context = committer::LaneContext {
            database: database.clone(),
            registry,
            emit,
            backlog: backlog.clone(),
            at_gate,
            instance,
            metrics: metrics.commits.clone(),
        };
        let (committer, lanes) = committer::Committer::new(settings.lanes, &context);
        let mut tasks = JoinSet::new();
        for lane in lanes {
            tasks.spawn(lane.run());
        }
        Ok(Self {
            instance,
            committer,
            backlog,
            uploads,
            store: files::store::Store::new(results, token),
            outbox_pool: outbox_pool.clone(),
            files_pool,
            lanes: tasks,
            emitter: tokio::spawn(emitter.run()),
            deleter: tokio::spawn(emitter::upkeep::delete_recorded(outbox_pool, recorded)),
        })
    }
}
