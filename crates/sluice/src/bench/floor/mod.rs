//! The floor that Sluice is compared with: the same work as SQL statements, sent
//! from here over as many connections, without a service in between. The SQL and
//! what it stands for are in `sql` beside it.

mod chain;
mod gate;
pub(super) mod pgmq;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluice_proto::ingest::v1::Outcome;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use super::{
    consume::Consumed,
    load::{Maker, Seen, Shape, micros_since},
    pace::{Flow, Schedule},
    pair::UNDER_WAY_MAX,
    report::{Percentiles, Report},
    usage::{Meter, Used},
};
use crate::failure::{Context, Failure};

macro_rules! floor_sql {
    ($name:literal) => {
        include_str!(concat!("sql/", $name, ".sql"))
    };
}
use floor_sql;

/// Sessions that move rows from the outbox to the results.
const MOVERS: usize = 2;
/// How long what is under way may take to be acknowledged after the end.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long whoever finds nothing to do waits.
const IDLE: Duration = Duration::from_millis(1);

/// What stands below the publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The statements of `sql`.
    Sql,
    /// pgmq, installed before.
    Pgmq,
}

/// A floor's database, and how it is used.
#[derive(Clone)]
pub(super) struct Floor {
    pub(super) url: String,
    pub(super) kind: Kind,
    pub(super) meter: Meter,
    pub(super) shape: Shape,
    /// Publishers, each with a connection.
    pub(super) concurrency: usize,
    pub(super) consumers: usize,
    /// Rows that movers and consumers take at once.
    pub(super) batch: i64,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
    pub(super) run: u64,
}

impl Floor {
    /// Makes the tables, or the queues.
    pub(super) async fn prepare(&self, pgmq_sql: Option<&str>) -> Result<(), Failure> {
        let client = self.connect().await?;
        match (self.kind, pgmq_sql) {
            (Kind::Sql, _) => client.batch_execute(floor_sql!("schema")).await.context("floor")?,
            (Kind::Pgmq, sql) => {
                client.batch_execute(sql.unwrap_or_default()).await.context("pgmq's SQL")?;
                for organisation in &self.shape.organisations {
                    let queue = pgmq::queue(organisation);
                    client.query(floor_sql!("pgmq_create"), &[&queue]).await.context("pgmq")?;
                }
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.context("floor")?;
        tokio::spawn(connection);
        client.batch_execute(floor_sql!("session")).await.context("floor")?;
        Ok(client)
    }

    /// The publishers only.
    pub(super) async fn publish(&self) -> Result<Report, Failure> {
        let publishers = self.open_publishers().await?;
        let schedule = Schedule::new(self.warmup, self.measured, None);
        let (seen, used) = self.publishing(publishers, schedule, &Arc::new(Flow::unbounded())).await?;
        Ok(self.report(seen, used))
    }

    /// The whole chain; in the end all of it is acknowledged.
    pub(super) async fn end_to_end(&self) -> Result<Report, Failure> {
        let publishers = self.open_publishers().await?;
        let mut stages = Vec::new();
        if self.kind == Kind::Sql {
            for lane in 0..MOVERS {
                stages.push(Stage::Mover(chain::Mover::open(self, lane).await?));
            }
        }
        for consumer in 0..self.consumers {
            let own = self.shape.organisations.iter().skip(consumer).step_by(self.consumers).cloned();
            stages.push(match self.kind {
                Kind::Sql => Stage::Consumer(chain::Consumer::open(self, own.collect()).await?),
                Kind::Pgmq => Stage::Pgmq(pgmq::Consumer::open(self, own.collect()).await?),
            });
        }
        let schedule = Schedule::new(self.warmup, self.measured, None);
        let flow = Arc::new(Flow::bounded(UNDER_WAY_MAX));
        let mut running = JoinSet::new();
        for stage in stages {
            let flow = flow.clone();
            running.spawn(async move { stage.run(schedule, &flow).await });
        }
        let published = self.publishing(publishers, schedule, &flow).await;
        let missing = flow.drained(SETTLE_DEADLINE).await;
        flow.stop();
        let mut consumed = Consumed::default();
        for ended in running.join_all().await {
            consumed.merge(ended?);
        }
        let (seen, used) = published?;
        Ok(Report {
            acknowledged: Some(consumed.acknowledged),
            available: Percentiles::of(consumed.available),
            corrupt: consumed.corrupt,
            missing,
            ..self.report(seen, used)
        })
    }

    async fn open_publishers(&self) -> Result<Vec<Publisher>, Failure> {
        let mut publishers = Vec::new();
        for worker in 0..self.concurrency {
            let maker = Maker::new(self.shape.clone(), self.run, u16::try_from(worker).unwrap_or(u16::MAX));
            let sender = match self.kind {
                Kind::Sql => Sender::Gate(gate::Sender::open(self).await?),
                Kind::Pgmq => Sender::Pgmq(pgmq::Sender::open(self).await?),
            };
            publishers.push(Publisher { maker, sender });
        }
        Ok(publishers)
    }

    async fn publishing(
        &self,
        publishers: Vec<Publisher>,
        schedule: Schedule,
        flow: &Arc<Flow>,
    ) -> Result<(Seen, Used), Failure> {
        let mut running = JoinSet::new();
        for publisher in publishers {
            let flow = flow.clone();
            running.spawn(async move { publisher.run(schedule, &flow).await });
        }
        tokio::time::sleep_until(schedule.measured_from.into()).await;
        let before = self.meter.now().await?;
        tokio::time::sleep_until(schedule.end.into()).await;
        let used = self.meter.now().await?.since(before);
        let mut all = Seen::default();
        for seen in running.join_all().await {
            all.merge(seen?);
        }
        Ok((all, used))
    }

    fn report(&self, seen: Seen, used: Used) -> Report {
        Report {
            scenario: "floor",
            batch: self.shape.batch,
            concurrency: self.concurrency,
            size: self.shape.size,
            elapsed: self.measured.as_secs_f64(),
            latency: Percentiles::of(seen.latencies.clone()),
            seen: Some(seen),
            acknowledged: None,
            available: None,
            corrupt: 0,
            missing: 0,
            used,
            peak_mib: [None; 2],
        }
    }
}

struct Publisher {
    maker: Maker,
    sender: Sender,
}

enum Sender {
    Gate(gate::Sender),
    Pgmq(pgmq::Sender),
}

impl Publisher {
    async fn run(mut self, schedule: Schedule, flow: &Flow) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        while flow.room(&schedule).await {
            let began = Instant::now();
            let request = self.maker.request(began.duration_since(schedule.start));
            let accepted = match &self.sender {
                Sender::Gate(sender) => sender.send(request).await?,
                Sender::Pgmq(sender) => sender.send(request).await?,
            };
            flow.publish(accepted);
            if schedule.counts() {
                seen.count_as(Outcome::Success, accepted);
                seen.latencies.push(micros_since(began));
            }
        }
        Ok(seen)
    }
}

enum Stage {
    Mover(chain::Mover),
    Consumer(chain::Consumer),
    Pgmq(pgmq::Consumer),
}

impl Stage {
    async fn run(self, schedule: Schedule, flow: &Flow) -> Result<Consumed, Failure> {
        match self {
            Self::Mover(mover) => mover.run(flow).await.map(|()| Consumed::default()),
            Self::Consumer(consumer) => consumer.run(schedule, flow).await,
            Self::Pgmq(consumer) => consumer.run(schedule, flow).await,
        }
    }
}
