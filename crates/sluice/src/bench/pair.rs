//! A pair under load: publishers, consumers, and what they saw. One [`Bench`] can
//! be run any number of times, each time with observations of its own.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sluice_proto::ingest::v1::{Definition, PutDefinitionRequest};
use tokio::task::JoinSet;

use super::{
    consume::{self, Consumed},
    load::{self, Maker, Seen, Shape},
    pace::{Flow, Schedule},
    report::{Percentiles, Report},
    usage::{self, Meter, Used},
};
use crate::{
    failure::{Context, Failure},
    target::Target,
    text::to_proto,
};

/// How long equal observations are suppressed: longer than any run.
const UNIQUE_SECONDS: u64 = 86_400;
/// Connections that all callers share.
pub(super) const CONNECTIONS_MAX: usize = 4;
/// How long what was accepted may take to be listed and acknowledged after the end.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
const SETTLE_POLL: Duration = Duration::from_millis(50);
/// How long publishing a given number may take.
const FILL_DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// How often it is told how far that is.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// With consumers, so many observations may be under way.
pub(super) const UNDER_WAY_MAX: u64 = 20_000;

/// What is done to a pair, and how.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) target: Target,
    pub(super) meter: Meter,
    pub(super) shape: Shape,
    /// The name of what is done, in reports.
    pub(super) scenario: &'static str,
    /// Callers that publish.
    pub(super) concurrency: usize,
    pub(super) consumers: usize,
    /// Observations a second; none: as many as possible.
    pub(super) rate: Option<u32>,
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
    /// Tells this run's observations apart from all others'.
    pub(super) run: u64,
}

impl Bench {
    /// Makes the definitions that the shape needs.
    pub(super) async fn put_definitions(&self) -> Result<(), Failure> {
        let mut client = self.target.definitions()?;
        for organisation in &self.shape.organisations {
            for path in &self.shape.definitions {
                let definition = Definition {
                    organisation: organisation.clone(),
                    path: path.clone(),
                    unique: (!self.shape.plain).then(|| to_proto(UNIQUE_SECONDS)),
                    ..Definition::default()
                };
                client.put_definition(PutDefinitionRequest { definition: Some(definition) }).await?;
            }
        }
        Ok(())
    }

    fn schedule(&self, warmup: Duration, measured: Duration) -> Schedule {
        let per_request = |rate: u32| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let requests = self.concurrency as f64 * self.shape.batch as f64;
            Duration::from_secs_f64(requests / f64::from(rate.max(1)))
        };
        Schedule::new(warmup, measured, self.rate.map(per_request))
    }

    /// Starts the publishers; they end by the schedule.
    fn publishers(&self, schedule: Schedule, flow: &Arc<Flow>) -> Result<JoinSet<Seen>, Failure> {
        let connections = self.concurrency.min(CONNECTIONS_MAX);
        let clients = (0..connections).map(|_| self.target.ingest()).collect::<Result<Vec<_>, _>>()?;
        let mut publishers = JoinSet::new();
        for worker in 0..self.concurrency {
            let client = clients[worker % connections].clone();
            let maker = Maker::new(self.shape.clone(), self.run, u16::try_from(worker).unwrap_or(u16::MAX));
            let flow = flow.clone();
            publishers.spawn(async move { load::publish(client, maker, schedule, &flow).await });
        }
        Ok(publishers)
    }

    /// Publishes; nobody consumes.
    pub(super) async fn publish(&self) -> Result<Report, Failure> {
        let schedule = self.schedule(self.warmup, self.measured);
        let publishers = self.publishers(schedule, &Arc::new(Flow::unbounded()))?;
        let (seen, used) = self.watch(schedule, publishers).await?;
        Ok(Report { latency: Percentiles::of(seen.latencies.clone()), seen: Some(seen), ..self.report(used) })
    }

    /// Acknowledges what earlier runs left in its organisations, until no more comes: it
    /// would count for this one's.
    pub(super) async fn empty(&self) -> Result<(), Failure> {
        let mut client = self.target.results()?;
        let mut looks_at_nothing = 0;
        while looks_at_nothing < 2 {
            let waiting = self.batches(consume::waiting(&mut client, &self.shape.organisations).await?);
            looks_at_nothing = if waiting.is_empty() { looks_at_nothing + 1 } else { 0 };
            consume::acknowledge_all(client.clone(), &Mutex::new(waiting)).await?;
            tokio::time::sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    fn batches(&self, waiting: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
        let of_one = |(organisation, ids): (String, Vec<String>)| {
            let chunks: Vec<Vec<String>> = ids.chunks(self.shape.batch).map(<[String]>::to_vec).collect();
            chunks.into_iter().map(move |chunk| (organisation.clone(), chunk))
        };
        waiting.into_iter().flat_map(of_one).collect()
    }

    /// Publishes, lists with data, checks it, acknowledges; in the end, all of it.
    pub(super) async fn end_to_end(&self) -> Result<Report, Failure> {
        let schedule = self.schedule(self.warmup, self.measured);
        let flow = Arc::new(Flow::bounded(UNDER_WAY_MAX));
        let publishers = self.publishers(schedule, &flow)?;
        let consumers = self.consuming(schedule, &flow)?;
        let watched = self.watch(schedule, publishers).await;
        let missing = flow.drained(SETTLE_DEADLINE).await;
        flow.stop();
        let mut consumed = Consumed::default();
        for ended in consumers.join_all().await {
            consumed.merge(ended?);
        }
        let (seen, used) = watched?;
        Ok(Report {
            latency: Percentiles::of(seen.latencies.clone()),
            seen: Some(seen),
            acknowledged: Some(consumed.acknowledged),
            available: Percentiles::of(consumed.available),
            corrupt: consumed.corrupt,
            missing,
            ..self.report(used)
        })
    }

    /// Publishes so many observations as fast as it goes, and acknowledges them or
    /// not. `tell` hears how far it is, now and then.
    pub(super) async fn fill(
        &self,
        observations: u64,
        acknowledged: bool,
        tell: impl Fn(u64, u64, Duration),
    ) -> Result<(), Failure> {
        let schedule = Schedule::new(Duration::ZERO, FILL_DEADLINE, None);
        let under_way_max = if acknowledged { UNDER_WAY_MAX } else { u64::MAX };
        let flow = Arc::new(Flow::bounded(under_way_max).ending_at(observations));
        let mut publishers = self.publishers(schedule, &flow)?;
        let consumers = if acknowledged { self.consuming(schedule, &flow)? } else { JoinSet::new() };
        let mut seen = Seen::default();
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.tick().await;
        loop {
            tokio::select! {
                ended = publishers.join_next() => match ended {
                    Some(ended) => seen.merge(ended.context("publisher")?),
                    None => break,
                },
                _ = ticks.tick() => tell(flow.so_far(), observations, schedule.start.elapsed()),
            }
        }
        let missing = if acknowledged { flow.drained(SETTLE_DEADLINE).await } else { 0 };
        flow.stop();
        for ended in consumers.join_all().await {
            ended?;
        }
        match (seen.failed_calls, missing) {
            (0, 0) => Ok(()),
            (failed, missing) => {
                Err(Failure::new(format!("{failed} calls failed, {missing} results are missing")))
            }
        }
    }

    fn consuming(
        &self,
        schedule: Schedule,
        flow: &Arc<Flow>,
    ) -> Result<JoinSet<Result<Consumed, Failure>>, Failure> {
        let mut consumers = JoinSet::new();
        for consumer in 0..self.consumers {
            let own = self.shape.organisations.iter().skip(consumer).step_by(self.consumers);
            let (client, own, flow) = (self.target.results()?, own.cloned().collect(), flow.clone());
            consumers.spawn(async move { consume::consume(client, own, schedule, &flow).await });
        }
        Ok(consumers)
    }

    /// Publishes for the given time, waits until all of it is listed, and then
    /// measures how fast it can be acknowledged.
    pub(super) async fn acknowledge(&self) -> Result<Report, Failure> {
        let (schedule, flow) = (self.schedule(Duration::ZERO, self.measured), Arc::new(Flow::unbounded()));
        let mut published = Seen::default();
        for seen in self.publishers(schedule, &flow)?.join_all().await {
            published.merge(seen);
        }
        if published.failed_calls > 0 {
            return Err(Failure::new(format!("{} calls to publish failed", published.failed_calls)));
        }
        let accepted = flow.so_far();
        let batches = Arc::new(Mutex::new(self.settled(accepted).await?));
        let mut callers = JoinSet::new();
        let (before, began) = (self.meter.now().await?, Instant::now());
        for _ in 0..self.concurrency {
            let (client, batches) = (self.target.results()?, batches.clone());
            callers.spawn(async move { consume::acknowledge_all(client, &batches).await });
        }
        let (mut changed, mut latencies) = (0, Vec::new());
        for ended in callers.join_all().await {
            let (more, took) = ended?;
            changed += more;
            latencies.extend(took);
        }
        let elapsed = began.elapsed().as_secs_f64();
        let report = self.report(self.meter.now().await?.since(before));
        Ok(Report {
            elapsed,
            acknowledged: Some(changed),
            latency: Percentiles::of(latencies),
            missing: accepted.saturating_sub(changed),
            ..report
        })
    }

    /// What waits to be acknowledged, in batches, once all that was accepted does, or the
    /// deadline is over.
    async fn settled(&self, accepted: u64) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let mut client = self.target.results()?;
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            tokio::time::sleep(SETTLE_POLL).await;
            let waiting = consume::waiting(&mut client, &self.shape.organisations).await?;
            let count: usize = waiting.iter().map(|(_, ids)| ids.len()).sum();
            if count as u64 >= accepted || Instant::now() > deadline {
                return Ok(self.batches(waiting));
            }
        }
    }

    /// Waits for the publishers, and takes what was used in the measured part.
    async fn watch(&self, schedule: Schedule, publishers: JoinSet<Seen>) -> Result<(Seen, Used), Failure> {
        tokio::time::sleep_until(schedule.measured_from.into()).await;
        let before = self.meter.now().await?;
        tokio::time::sleep_until(schedule.end.into()).await;
        let used = self.meter.now().await?.since(before);
        let mut all = Seen::default();
        let mut publishers = publishers;
        while let Some(seen) = publishers.join_next().await {
            all.merge(seen.context("publisher")?);
        }
        Ok((all, used))
    }

    /// A report with what is the same for every scenario.
    fn report(&self, used: Used) -> Report {
        let pids = self.meter.pids.unwrap_or_default();
        Report {
            scenario: self.scenario,
            batch: self.shape.batch,
            concurrency: self.concurrency,
            size: self.shape.size,
            elapsed: self.measured.as_secs_f64(),
            seen: None,
            acknowledged: None,
            latency: None,
            available: None,
            corrupt: 0,
            missing: 0,
            used,
            peak_mib: [pids.ingest, pids.results].map(usage::peak_mib),
        }
    }
}
