//! What follows the floor's gate: movers from the outbox to the results, and
//! consumers that list, check and acknowledge.

use std::time::{Duration, SystemTime};

use futures_util::future::{try_join, try_join3};
use md5::{Digest as _, Md5};
use tokio_postgres::{Client, Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{Floor, IDLE, floor_sql};
use crate::{
    bench::{
        consume::Consumed,
        pace::{Flow, Schedule},
    },
    failure::{Context, Failure},
};

fn checksum(data: &[u8]) -> Uuid {
    Uuid::from_bytes(Md5::digest(data).into())
}

/// Takes rows out of one lane of the outbox and records them. It has a session for
/// either side, as if they were different databases.
pub(super) struct Mover {
    outbox: Client,
    results: Client,
    read: Statement,
    delete: Statement,
    record: Statement,
    lane: i16,
    batch: i64,
}

impl Mover {
    pub(super) async fn open(floor: &Floor, lane: usize) -> Result<Self, Failure> {
        let (outbox, results) = (floor.connect().await?, floor.connect().await?);
        let (read, delete, record) = try_join3(
            outbox.prepare(floor_sql!("outbox_read")),
            outbox.prepare(floor_sql!("outbox_delete")),
            results.prepare(floor_sql!("record")),
        )
        .await
        .context("floor")?;
        let lane = i16::try_from(lane).unwrap_or(0);
        Ok(Self { outbox, results, read, delete, record, lane, batch: floor.batch })
    }

    pub(super) async fn run(self, flow: &Flow) -> Result<(), Failure> {
        let mut recorded: Vec<i64> = Vec::new();
        while !flow.is_stopped() {
            let rows = self.next(&recorded).await.context("floor, moving")?;
            recorded = rows.iter().map(|row| row.get("seq")).collect();
            if rows.is_empty() {
                tokio::time::sleep(IDLE).await;
            } else {
                self.keep(&rows).await.context("floor, recording")?;
            }
        }
        Ok(())
    }

    /// Deletes what is recorded and reads on, in one go: two statements, two
    /// commits, one wait.
    async fn next(&self, recorded: &Vec<i64>) -> Result<Vec<Row>, tokio_postgres::Error> {
        let deleting: [&(dyn ToSql + Sync); 2] = [&self.lane, recorded];
        let reading: [&(dyn ToSql + Sync); 2] = [&self.lane, &self.batch];
        if recorded.is_empty() {
            return self.outbox.query(&self.read, &reading).await;
        }
        let delete = self.outbox.execute(&self.delete, &deleting);
        let read = self.outbox.query(&self.read, &reading);
        try_join(delete, read).await.map(|(_, rows)| rows)
    }

    async fn keep(&self, rows: &[Row]) -> Result<(), tokio_postgres::Error> {
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get("id")).collect();
        let data: Vec<&[u8]> = rows.iter().map(|row| row.get("data")).collect();
        let checksums: Vec<Uuid> = data.iter().map(|data| checksum(data)).collect();
        let organisations: Vec<&str> = rows.iter().map(|row| row.get("organisation")).collect();
        let definitions: Vec<&str> = rows.iter().map(|row| row.get("definition")).collect();
        let polls: Vec<&str> = rows.iter().map(|row| row.get("poll")).collect();
        let params: [&(dyn ToSql + Sync); 6] =
            [&ids, &checksums, &organisations, &definitions, &polls, &data];
        self.results.execute(&self.record, &params).await.map(drop)
    }
}

/// Lists some organisations' results in turn, checks them, signs them off.
pub(super) struct Consumer {
    client: Client,
    list: Statement,
    acknowledge: Statement,
    organisations: Vec<String>,
    batch: i64,
}

/// The keys of a page.
#[derive(Default)]
struct Page {
    dates: Vec<SystemTime>,
    ids: Vec<Uuid>,
}

impl Consumer {
    pub(super) async fn open(floor: &Floor, organisations: Vec<String>) -> Result<Self, Failure> {
        let client = floor.connect().await?;
        let list = client.prepare(floor_sql!("list")).await.context("floor")?;
        let acknowledge = client.prepare(floor_sql!("acknowledge")).await.context("floor")?;
        Ok(Self { client, list, acknowledge, organisations, batch: floor.batch })
    }

    pub(super) async fn run(self, schedule: Schedule, flow: &Flow) -> Result<Consumed, Failure> {
        let mut consumed = Consumed::default();
        while !flow.is_stopped() {
            let mut idle = true;
            for organisation in &self.organisations {
                idle &= !self.consume(organisation, schedule, flow, &mut consumed).await?;
            }
            if idle {
                tokio::time::sleep(IDLE).await;
            }
        }
        Ok(consumed)
    }

    /// All that waits for one organisation. Each page is acknowledged while the
    /// next is read, in one go. Whether there was anything.
    async fn consume(
        &self,
        organisation: &str,
        schedule: Schedule,
        flow: &Flow,
        consumed: &mut Consumed,
    ) -> Result<bool, Failure> {
        let mut place = (SystemTime::UNIX_EPOCH, Uuid::nil());
        let mut before = Page::default();
        loop {
            let rows = self.turn(organisation, &place, &before).await.context("floor, consuming")?;
            let read_at = schedule.start.elapsed();
            let acknowledged = before.ids.len() as u64;
            flow.acknowledge(acknowledged);
            if schedule.counts() {
                consumed.acknowledged += acknowledged;
            }
            before = Page::default();
            for row in &rows {
                let data: &[u8] = row.get("data");
                let intact = checksum(data) == row.get::<_, Uuid>("checksum");
                consumed.read(&schedule, data, intact, read_at);
                place = (row.get("date_created"), row.get("id"));
                before.dates.push(place.0);
                before.ids.push(place.1);
            }
            if rows.is_empty() {
                return Ok(place.0 > SystemTime::UNIX_EPOCH + Duration::from_secs(1));
            }
        }
    }

    async fn turn(
        &self,
        organisation: &str,
        place: &(SystemTime, Uuid),
        done: &Page,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let listing: [&(dyn ToSql + Sync); 4] = [&organisation, &place.0, &place.1, &self.batch];
        if done.ids.is_empty() {
            return self.client.query(&self.list, &listing).await;
        }
        let acknowledging: [&(dyn ToSql + Sync); 3] = [&organisation, &done.dates, &done.ids];
        let acknowledge = self.client.execute(&self.acknowledge, &acknowledging);
        let list = self.client.query(&self.list, &listing);
        try_join(acknowledge, list).await.map(|(_, rows)| rows)
    }
}
