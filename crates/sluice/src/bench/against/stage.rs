//! A private pair and, in the same PostgreSQL, the floor's database: what one
//! scenario runs on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls};

use crate::{
    bench::{
        BenchArgs,
        floor::{Floor, Kind},
        load::{DEFINITIONS_FOLDER, Shape},
        pair::{Bench, CONNECTIONS_MAX},
        report::Report,
        usage::Meter,
    },
    failure::{Context, Failure},
    private::{Options, PrivatePair},
    ready::Ready,
    target::Target,
};

/// The mix of every scenario.
const ORGANISATIONS: usize = 10;
const DEFINITIONS: usize = 20;
const BATCH: usize = 100;
const CALLERS: usize = 4;
/// How long what one side left behind may go on into the other's round.
const SETTLE_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Stage {
    pub(super) pair: PrivatePair,
    pub(super) bench: Bench,
    pub(super) floor: Floor,
    /// Superuser sessions of the services' databases.
    pub(super) ingest: Arc<Client>,
    pub(super) results: Arc<Client>,
    /// Whether the results service takes what ingest accepted.
    emits: bool,
}

/// What every stage is like.
pub(super) fn shape(args: &BenchArgs, plain: bool) -> Shape {
    let kind = if plain { "plain" } else { "unique" };
    Shape {
        organisations: (0..ORGANISATIONS).map(|n| format!("bench-{n}")).collect(),
        definitions: (0..DEFINITIONS).map(|n| format!("{DEFINITIONS_FOLDER}{kind}-{n}")).collect(),
        batch: BATCH,
        size: args.size as usize,
        duplicates: 0.0,
        plain,
    }
}

async fn connect(url: &str) -> Result<Arc<Client>, Failure> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("PostgreSQL")?;
    tokio::spawn(connection);
    Ok(Arc::new(client))
}

impl Stage {
    /// Starts a pair and makes the floor's tables beside it.
    pub(super) async fn start(args: &BenchArgs, plain: bool) -> Result<Self, Failure> {
        let pair = PrivatePair::start(Options::temporary(!args.no_install)).await?;
        match Self::on(args, &pair, plain).await {
            Ok((bench, floor, ingest, results)) => {
                Ok(Self { pair, bench, floor, ingest, results, emits: true })
            }
            Err(failure) => {
                pair.stop().await;
                Err(failure)
            }
        }
    }

    async fn on(
        args: &BenchArgs,
        pair: &PrivatePair,
        plain: bool,
    ) -> Result<(Bench, Floor, Arc<Client>, Arc<Client>), Failure> {
        let ingest = connect(&pair.database_url("sluice_ingest")).await?;
        let results = connect(&pair.database_url("sluice_results")).await?;
        let ready = pair.ready();
        let meter = Meter { pids: Some(ready.pids), postgres: Some(results.clone()) };
        let (warmup, seconds) = (args.warmup, args.seconds.unwrap_or(5).max(1));
        let (warmup, measured) = (Duration::from_secs(warmup), Duration::from_secs(seconds));
        let bench = Bench {
            target: Target::of(&Ready { token: ready.admin_token.clone(), ..ready }),
            meter: meter.clone(),
            shape: shape(args, plain),
            scenario: "Sluice",
            concurrency: CALLERS,
            consumers: CONNECTIONS_MAX,
            rate: None,
            warmup,
            measured,
            run: 0,
        };
        bench.put_definitions().await?;
        ingest.batch_execute("CREATE DATABASE floor").await.context("floor")?;
        let floor = Floor {
            url: pair.database_url("floor"),
            kind: if plain { Kind::Pgmq } else { Kind::Sql },
            meter,
            shape: bench.shape.clone(),
            concurrency: CALLERS,
            consumers: CONNECTIONS_MAX,
            batch: i64::from(args.rounds.floor_batch),
            warmup,
            measured,
            run: 0,
        };
        Ok((bench, floor, ingest, results))
    }

    /// The same with other callers and batches.
    pub(super) fn calling(&mut self, callers: usize, batch: usize) {
        (self.bench.concurrency, self.floor.concurrency) = (callers, callers);
        (self.bench.shape.batch, self.floor.shape.batch) = (batch, batch);
    }

    /// Stops the results service: what is accepted stays in the outbox.
    pub(super) async fn stop_results(&mut self) {
        self.pair.stop_results().await;
        self.emits = false;
    }

    /// A round of Sluice, publishing only.
    pub(super) async fn publish(&mut self) -> Result<Report, Failure> {
        self.bench.run = rand::random();
        let report = self.bench.publish().await?;
        self.settle().await?;
        Ok(report)
    }

    /// A round of Sluice, from publishing to acknowledging.
    pub(super) async fn end_to_end(&mut self) -> Result<Report, Failure> {
        self.bench.run = rand::random();
        let report = self.bench.end_to_end().await?;
        self.settle().await?;
        Ok(report)
    }

    /// A round of the floor, publishing only.
    pub(super) async fn floor_publish(&mut self) -> Result<Report, Failure> {
        self.floor.run = rand::random();
        let report = self.floor.publish().await?;
        self.settle().await?;
        Ok(report)
    }

    /// A round of the floor, from publishing to acknowledging.
    pub(super) async fn floor_end_to_end(&mut self) -> Result<Report, Failure> {
        self.floor.run = rand::random();
        let report = self.floor.end_to_end().await?;
        self.settle().await?;
        Ok(report)
    }

    /// Another session to each service's database: those of the stage itself must see
    /// what happens.
    pub(super) async fn more_sessions(&self) -> Result<[Arc<Client>; 2], Failure> {
        let ingest = connect(&self.pair.database_url("sluice_ingest")).await?;
        Ok([ingest, connect(&self.pair.database_url("sluice_results")).await?])
    }

    /// Waits until nothing goes on that the last round caused, so that it does not
    /// count for the next one's.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let until = Instant::now() + SETTLE_DEADLINE;
        while Instant::now() < until {
            let waiting = match self.emits {
                true => count(&self.ingest, include_str!("sql/outbox_rows.sql")).await?,
                false => 0,
            };
            if waiting == 0 && count(&self.ingest, include_str!("sql/busy.sql")).await? == 0 {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The services' process ids.
    pub(super) fn pids(&self) -> crate::ready::Pids {
        self.pair.ready().pids
    }

    pub(super) async fn stop(self) {
        self.pair.stop().await;
    }
}

async fn count(client: &Client, sql: &str) -> Result<i64, Failure> {
    Ok(client.query_one(sql, &[]).await.context("PostgreSQL")?.get(0))
}
