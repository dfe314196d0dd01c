//! From the lanes to the results service: what commits, what hands over what was
//! committed, and what looks after both. It outlives serving: what was sealed is
//! committed and handed over, then all of it ends.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use sluice_service::{chassis::Chassis, client::TokenInterceptor, program::Failure};
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;

use crate::{
    Settings,
    backlog::Backlog,
    committer::{AtGate, Committer, LaneContext},
    emitter::{
        Emitter,
        call::Caller,
        heartbeat,
        measure::{self, Measure},
        upkeep::{self, Upkeep},
    },
    ending::Working,
    files::{store::Store, uploads::Uploads},
    metrics::Metrics,
    registry::Registry,
    sessions,
};

/// Rows found in the database that may wait for the emitter.
const FOUND_MAX: usize = 1024;

/// What serving works with.
pub struct Pipeline {
    /// Takes what is to be decided.
    pub committer: Committer,
    /// Counts what is on its way.
    pub backlog: Arc<Backlog>,
    /// Where files are kept track of.
    pub uploads: Uploads,
    /// Where their bytes go.
    pub store: Store,
    /// What ends after serving.
    pub working: Working,
}

impl Pipeline {
    /// Begins.
    ///
    /// # Errors
    /// If the settings can't be used.
    pub fn start(
        settings: &Settings,
        chassis: &mut Chassis,
        registry: Registry,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let instance = Uuid::now_v7();
        tracing::info!(%instance, "this instance");
        let backlog =
            Arc::new(Backlog::new(settings.outbox_bytes_max, settings.outbox_organisation_bytes_max));
        let outbox = chassis.pool("outbox", sessions::OUTBOX, settings.database_connections)?;
        let files = chassis.pool("files", sessions::FILES, settings.database_connections)?;
        let Chassis { database, background, drained, unusable, .. } = chassis;

        let token = TokenInterceptor::load(&settings.results_token_file)?;
        let file = settings.results_token_file.clone();
        let reread = token.clone().follow("results_token_file", file, unusable.clone(), drained.clone());
        background.spawn("the token file", reread);
        let results = settings.results()?;
        let setting = "results_client_certificate_file";
        let reread = results.clone().follow_files(setting, unusable.clone(), drained.clone());
        background.spawn("certificates for results", reread);
        let every = Duration::from_secs(settings.results_resolve_seconds);
        background.spawn_until(drained, "names of results", results.clone().follow_names(every));

        let uploads = Uploads::new(files, instance);
        background.spawn_until(drained, "the look for dead uploads", uploads.clone().run());
        let (emit, emissions) = mpsc::unbounded_channel();
        let (hand, found) = mpsc::channel(FOUND_MAX);
        let (done, recorded) = mpsc::unbounded_channel();
        let (emission_fails, at_gate) = (Arc::<AtomicBool>::default(), Arc::<AtGate>::default());
        let caller =
            Caller::new(results.clone(), token.clone(), outbox.clone(), instance, metrics.emission.clone());
        let emitter = Emitter::new(emissions, found, caller, done, emission_fails.clone());
        let upkeep =
            Upkeep { pool: outbox.clone(), instance, emission_fails, at_gate: at_gate.clone(), found: hand };
        background.spawn_until(drained, "upkeep of the outbox", upkeep.run());
        let beats = database.pool(heartbeat::SESSION, 1)?;
        background.spawn_until(drained, "the heartbeat", heartbeat::run(beats, instance));
        let measure = Measure {
            pool: database.pool(measure::SESSION, 1)?,
            backlog: backlog.clone(),
            metrics: metrics.outbox.clone(),
        };
        background.spawn_until(drained, "measuring the outbox", measure.run());

        let context = LaneContext {
            database: database.clone(),
            registry,
            emit,
            backlog: backlog.clone(),
            at_gate,
            instance,
            metrics: metrics.commits.clone(),
        };
        let (committer, lanes) = Committer::new(settings.lanes, &context);
        let mut tasks = JoinSet::new();
        for lane in lanes {
            tasks.spawn(lane.run());
        }
        let working = Working {
            lanes: tasks,
            emitter: tokio::spawn(emitter.run()),
            deleter: tokio::spawn(upkeep::delete_recorded(outbox, backlog.clone(), recorded)),
        };
        Ok(Self { committer, backlog, uploads, store: Store::new(results, token), working })
    }
}
