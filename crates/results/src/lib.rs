//! The results service: keeps what was accepted until it is consumed or its
//! retention ends. It owns the records, their bytes, acknowledgement and clean-up,
//! and knows nothing of gates.
//!
//! `intake` takes results and files in, `placing` sends their data where it
//! belongs (`writing` into buckets), `files` does so with what streams, as much at a time as
//! there are `rations` of memory for; `uploads` are objects without a record; `recorder`
//! makes the records, `recent` remembers the last of them; `shelf` and `data` give them out;
//! `configs` are the storages, `doubts` looks into those that fail, `cleanup` empties them;
//! `calls` are what consumers may ask, `grpc` and `http` are the surfaces.

mod calls;
mod chunks;
mod cleanup;
mod config;
mod configs;
mod convert;
mod data;
mod doubts;
mod files;
mod filter;
mod grpc;
mod http;
mod intake;
mod metrics;
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
    chassis::{Chassis, Common, Service},
    postgres::{Session, SharedPool},
    program::{self, Failure},
    rations::Rations,
    telemetry::Program,
};

use calls::Calls;
use cleanup::Cleanup;
use configs::{Configs, calls::ConfigCalls, stores::Stores};
use data::Data;
use doubts::Doubts;
use files::Files;
use grpc::StorageConfigs;
use intake::Intake;
use metrics::Metrics;
use placing::Placing;
use recent::Recent;
use reconcile::Reconciler;
use recorder::{Recorder, apart::Apart};
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

/// The main function of `sluice-results` and of `sluice serve results`.
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    program::main::<Settings>(args)
}

impl Service for Settings {
    const PROGRAM: Program = Program {
        service: "sluice-results",
        version: env!("CARGO_PKG_VERSION"),
        about: "Keeps what was accepted until it is consumed or its retention ends.",
    };
    const GRPC: &'static [&'static str] = &grpc::SERVICES;
    const HEALTH: Session = sessions::UPKEEP;

    fn migrations() -> refinery::Runner {
        migrations()
    }

    fn common(&self) -> Common<'_> {
        Common {
            listen: self.listen,
            keys_file: &self.keys_file,
            migrate: self.migrate,
            telemetry: &self.telemetry,
            database: &self.database,
            limits: &self.limits,
            tls: &self.tls,
        }
    }

    async fn run(self, mut chassis: Chassis) -> Result<(), Failure> {
        let metrics = Metrics::register(&mut chassis.exposed);
        let tenants = SharedPool::new(chassis.database.pool(sessions::TENANTS, self.database_connections)?);
        let read = tenants.clone();
        chassis.pools.push(("tenants", Box::new(move || read.status())));
        let tenants = Tenants::new(tenants);
        let pool = chassis.pool("service", sessions::SERVING, self.database_connections)?;
        let recent = Recent::new(self.recent_bytes_max);
        let (recorder, lanes) = Recorder::start(&chassis.database, &recent, &metrics.recording);
        let shelf =
            Shelf::new(tenants.clone(), recent.clone(), chassis.answer_memory.clone(), metrics.shelf.clone());
        let Storage { configs, stores, data } =
            Storage::load(&self, &tenants, &pool, shelf, chassis.address()?)?;
        let idle = Duration::from_secs(self.upload_idle_seconds);
        let cleanup = Cleanup {
            pool: pool.clone(),
            configs: configs.clone(),
            stores: stores.clone(),
            every: Duration::from_secs(self.cleanup_interval_seconds),
            upload_idle: idle,
            metrics: metrics.cleanup.clone(),
        };
        let (stop, background) = (&chassis.shutdown, &mut chassis.background);
        background.spawn("partitions", partitions::keep(chassis.database.clone(), stop.clone()));
        background.spawn("the clean-up", cleanup.run(stop.clone()));
        background.spawn("forgetting what is recent", recent.age(stop.clone()));
        let probing = configs::probe::keep(configs.clone(), stores.clone(), stop.clone());
        background.spawn("probing storage configs", probing);
        let resealing = configs::reseal::keep(configs.clone(), stores.clone(), stop.clone());
        background.spawn("resealing credentials", resealing);

        let calls = Calls { data, metrics: metrics.shelf.clone() };
        let api = http::api(chassis.keys.clone(), &calls, self.limits.request_bytes_max)?;
        let placing = Placing {
            configs: configs.clone(),
            stores: stores.clone(),
            doubts: Doubts::new(configs.clone(), stores.clone()),
            uploads: Uploads::new(pool.clone()),
            recorder,
            apart: Apart::new(pool.clone()),
        };
        let files = Files {
            placing: placing.clone(),
            pool,
            memory: Rations::new(self.file_bytes_in_flight_max, metrics.shelf.file_bytes()),
            idle,
            db_file_bytes_max: self.db_file_bytes_max,
            metrics: metrics.shelf,
        };
        let storage_configs = StorageConfigs::new(
            ConfigCalls { configs: configs.clone(), stores: stores.clone() },
            Reconciler { tenants, configs, stores },
        );
        let add = |base| {
            grpc::routes(base, calls, Intake { placing, files, metrics: metrics.recording }, storage_configs)
        };
        // They end when nothing can hand over any more.
        let lanes = async {
            for lane in lanes {
                lane.await?;
            }
            Ok(())
        };
        chassis.serve(api, add, lanes).await
    }
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
