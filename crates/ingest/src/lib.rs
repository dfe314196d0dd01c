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
mod pipeline;
mod publisher;
mod registry;
mod retention;
mod schema;
mod schemas;
pub mod sessions;
mod tally;
#[cfg(test)]
mod warnings;

use std::{process::ExitCode, time::Duration};

use sluice_proto::ingest::v1::{
    definition_service_server::DefinitionServiceServer, ingest_service_server::IngestServiceServer,
};
use sluice_service::{
    chassis::{Chassis, Common, Service},
    metrics::Gauge,
    postgres::Session,
    program::{self, Failure},
    rations::Rations,
    telemetry::Program,
};
use tonic::codec::CompressionEncoding;

use calls::DefinitionCalls;
use files::Files;
use metrics::Metrics;
use pipeline::Pipeline;
use publisher::Publisher;
use registry::Registry;

pub use config::Settings;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The schema's migrations.
#[must_use]
pub fn migrations() -> refinery::Runner {
    embedded::migrations::runner()
}

/// The main function of `sluice-ingest` and of `sluice serve ingest`.
#[must_use]
pub fn main(args: Vec<String>) -> ExitCode {
    program::main::<Settings>(args)
}

impl Service for Settings {
    const PROGRAM: Program = Program {
        service: "sluice-ingest",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes observations, decides the outcome of each, and hands what is accepted over to results.",
    };
    const GRPC: &'static [&'static str] =
        &["sluice.ingest.v1.IngestService", "sluice.ingest.v1.DefinitionService"];
    const HEALTH: Session = sessions::DEFINITIONS;

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
        let metrics = Metrics::register(&mut chassis.exposed, self.outbox_bytes_max);
        let retention = Duration::from_secs(self.gate_retention_seconds);
        let cleanup = retention::run(
            chassis.database.clone(),
            retention,
            metrics.gate.clone(),
            chassis.shutdown.clone(),
        );
        chassis.background.spawn("the gate's clean-up", cleanup);
        let pool = chassis.pool("definitions", sessions::DEFINITIONS, self.database_connections)?;
        // A session of its own: who changes definitions must not keep it from following.
        let (registry, follower) = Registry::new(chassis.database.pool(sessions::DEFINITIONS, 1)?);
        chassis.background.spawn("reading definitions", follower.run(chassis.drained.clone()));

        let pipeline = Pipeline::start(&self, &mut chassis, registry.clone(), &metrics)?;
        let publisher = Publisher::new(
            registry,
            pipeline.committer,
            pipeline.backlog,
            self.observation_limits(),
            metrics.tally,
        );
        let bounds = definitions::Bounds {
            count_max: self.organisation_definitions_max.into(),
            text_bytes_max: self.organisation_schema_bytes_max.into(),
        };
        let definitions = definitions::Definitions::new(pool, bounds);
        let calls = DefinitionCalls::new(definitions, retention, publisher.turns());
        let request_bytes_max = self.limits.request_bytes_max;
        let surface = http::Ingest { publisher: publisher.clone(), request_bytes_max };
        let api = http::api(chassis.keys.clone(), &surface, &calls)?;
        // What holds a publisher must be gone when the lanes are to end.
        drop(surface);
        let files = Files::new(
            publisher.clone(),
            pipeline.uploads,
            pipeline.store,
            Rations::new(self.files_max, Gauge::default()),
            Duration::from_secs(self.file_idle_seconds),
        );
        let ingest = IngestServiceServer::new(grpc::publish::Ingest::new(publisher, files))
            .max_decoding_message_size(request_bytes_max)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let definitions = DefinitionServiceServer::new(grpc::definitions::DefinitionHandlers::new(calls));
        let add = |routes: tonic::service::Routes| routes.add_service(ingest).add_service(definitions);
        chassis.serve(api, add, pipeline.working.end()).await
    }
}
