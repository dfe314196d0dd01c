//! What every service begins with, and how it ends: ports, certificates, tokens, metrics,
//! schema and health before its own work, and the order in which all of it stops.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc};

use deadpool_postgres::Pool;
use refinery::Runner;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    admin,
    answer_memory::AnswerMemory,
    auth::Keys,
    background::Background,
    config::Part,
    follow::Unusable,
    health,
    http::Api,
    limits::Limits,
    metrics::{ReadStatus, Registry, Requests},
    postgres::{self, Database, Schema, Session},
    probes,
    program::{Failure, listen_if},
    serve::{self, Served},
    shutdown::ENDING,
    telemetry, tls,
    tls::{Listener, Tls},
};

/// Those of a service's settings that every service has.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The address to serve on.
    pub listen: SocketAddr,
    /// The file of the valid tokens.
    pub keys_file: &'a Path,
    /// Whether to bring the schema up to date at the start.
    pub migrate: bool,
    /// What is told to operators.
    pub telemetry: &'a telemetry::Settings,
    /// Where its database is.
    pub database: &'a postgres::Settings,
    /// What callers may take up.
    pub limits: &'a Limits,
    /// How it is spoken to.
    pub tls: &'a tls::Settings,
}

/// A service, by its settings.
pub trait Service: Part {
    /// Its name, version and purpose.
    const PROGRAM: telemetry::Program;
    /// The full names of its gRPC services.
    const GRPC: &'static [&'static str];
    /// How health looks at its database.
    const HEALTH: Session;

    /// The migrations of its database.
    fn migrations() -> Runner;
    /// The settings that every service has.
    fn common(&self) -> Common<'_>;
    /// What it does with a chassis: begins its own work, serves, and ends it.
    fn run(self, chassis: Chassis) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Runs a service on a listener until shutdown. A database that is away, or without its
/// schema, is waited for: the service is NOT_SERVING meanwhile.
///
/// # Errors
/// If the settings can't be used, or its own work failed.
pub async fn run<S: Service>(
    settings: S,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let chassis = Chassis::start::<S>(settings.common(), listener, shutdown).await?;
    settings.run(chassis).await
}

/// A service that has begun and does not serve yet.
pub struct Chassis {
    /// Its database, as the user that serves.
    pub database: Database,
    /// Who may call.
    pub keys: Arc<Keys>,
    /// Where it exposes its metrics.
    pub exposed: Registry,
    /// Its pools of database sessions, to be exposed.
    pub pools: Vec<(&'static str, ReadStatus)>,
    /// Where requests are counted.
    pub requests: Arc<Requests>,
    /// Where files that can't be used are told of.
    pub unusable: Unusable,
    /// The memory of answers.
    pub answer_memory: Arc<AnswerMemory>,
    /// What goes on beside serving. What does not end by itself ends at [`Self::shutdown`],
    /// or at [`Self::drained`] if requests that are still open need it.
    pub background: Background,
    /// Cancelled when the service is to end.
    pub shutdown: CancellationToken,
    /// Cancelled when no request is open any more, and the service's own work has ended.
    pub drained: CancellationToken,
    grpc: &'static [&'static str],
    limits: Limits,
    listener: Listener,
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
    reporter: HealthReporter,
}

impl Chassis {
    async fn start<S: Service>(
        settings: Common<'_>,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<Self, Failure> {
        let admin = listen_if("admin_listen", settings.telemetry.admin_listen).await?;
        let probes = listen_if("health_listen", settings.tls.health_listen).await?;
        let tls = Tls::load(settings.tls)?;
        let mut exposed = Registry::new(S::PROGRAM.service, S::PROGRAM.version);
        let requests = Arc::new(Requests::register(&mut exposed));
        let unusable = Unusable::register(&mut exposed);
        let keys = Keys::load(settings.keys_file, settings.limits.organisation_rate(), &requests)?;
        let database = settings.database.database()?;
        let reporter = HealthReporter::new();
        health::set(&reporter, S::GRPC, ServingStatus::NotServing).await;

        let (mut background, drained) = (Background::default(), CancellationToken::new());
        background.spawn("the keys file", keys.clone().follow(unusable.clone(), drained.clone()));
        if let Some(tls) = tls.clone() {
            background.spawn("TLS files", tls.follow(unusable.clone(), drained.clone()));
        }
        if settings.migrate {
            let (migration, shutdown) = (settings.database.migration()?, shutdown.clone());
            let migrating = async move { migration.run_when_possible(S::migrations, &shutdown).await };
            background.spawn("migrating", migrating);
        }
        let healthy = health::follow_database(
            reporter.clone(),
            S::GRPC,
            database.clone(),
            S::HEALTH,
            Schema::of(&S::migrations()),
            shutdown.clone(),
        );
        background.spawn("health", healthy);
        let limits = settings.limits.clone();
        let answer_memory = AnswerMemory::new(limits.answer_bytes_in_flight_max, &requests);
        Ok(Self {
            database,
            keys,
            exposed,
            pools: Vec::new(),
            requests,
            unusable,
            answer_memory,
            background,
            shutdown,
            drained,
            grpc: S::GRPC,
            limits,
            listener: Listener::new(listener, tls),
            admin,
            probes,
            reporter,
        })
    }

    /// A pool of sessions to its database, whose use is exposed by this name.
    ///
    /// # Errors
    /// None that was not found when the settings were read.
    pub fn pool(&mut self, name: &'static str, session: Session, sessions: usize) -> Result<Pool, Failure> {
        let pool = self.database.pool(session, sessions)?;
        let read = pool.clone();
        self.pools.push((name, Box::new(move || read.status())));
        Ok(pool)
    }

    /// The address that is served on.
    ///
    /// # Errors
    /// If the system does not tell it.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.socket.local_addr()
    }

    /// Serves `api`, and what `add` adds to health and reflection, until shutdown and then
    /// until what is open has ended. After that, `last` ends the service's own work, and
    /// the background ends; what is not done within [`ENDING`] is dropped, so that a pod's
    /// grace period holds it.
    ///
    /// # Errors
    /// If the descriptors are broken; and those of `last`.
    pub async fn serve(
        self,
        api: Api,
        add: impl FnOnce(Routes) -> Routes,
        last: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let address = self.address()?;
        let Self { mut background, mut exposed, drained, reporter, .. } = self;
        let Self { keys, requests, limits, answer_memory, .. } = self;
        exposed.add_pools(self.pools);
        let admin = admin::serve(self.admin, exposed, reporter.clone(), drained.clone());
        background.spawn("the admin port", admin);
        background.spawn("probes", probes::serve(self.probes, reporter.clone(), drained.clone()));
        let routes = add(serve::base_routes(reporter, self.grpc)?);
        tracing::info!(%address, "listening");
        let served = Served { routes, api, keys, requests, limits, answer_memory };
        serve::serve(self.listener, served, self.shutdown).await;
        end(last, background, drained).await
    }
}

/// Waits for a service's own work to end, then for what went on beside it.
async fn end(
    last: impl Future<Output = Result<(), Failure>>,
    background: Background,
    drained: CancellationToken,
) -> Result<(), Failure> {
    let (mut tasks, mut outcome) = (background.into_tasks(), Ok(()));
    let ended = async {
        outcome = last.await;
        drained.cancel();
        while tasks.join_next().await.is_some() {}
    };
    if timeout(ENDING, ended).await.is_err() {
        tracing::warn!("background work was cut off");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    /// What goes on beside a service until it has drained; and a token that tells of its end.
    fn background() -> (Background, CancellationToken, CancellationToken) {
        let (mut background, drained, ended) =
            (Background::default(), CancellationToken::new(), CancellationToken::new());
        let (until, end) = (drained.clone(), ended.clone().drop_guard());
        background.spawn("this", async move {
            let _end = end;
            until.cancelled().await;
        });
        (background, drained, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_beside_a_service_ends_after_its_own_work() {
        let (background, drained, ended) = background();
        let last = async {
            tokio::time::sleep(ENDING / 2).await;
            Err(format!("goes on: {}", !ended.is_cancelled()).into())
        };
        let failure = end(last, background, drained).await.unwrap_err();
        assert_eq!(failure.to_string(), "goes on: true");
        assert!(ended.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn own_work_that_hangs_is_cut_off_in_time() {
        let (background, drained, ended) = background();
        let end = end(pending(), background, drained);
        timeout(ENDING + Duration::from_millis(1), end).await.expect("ends in time").unwrap();
        ended.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn background_work_that_hangs_is_cut_off_in_time() {
        let (mut background, drained, _) = background();
        background.spawn("that", pending());
        let end = end(async { Err("the own work's".into()) }, background, drained);
        let ended = timeout(ENDING + Duration::from_millis(1), end).await.expect("ends in time");
        assert_eq!(ended.unwrap_err().to_string(), "the own work's");
    }
}
