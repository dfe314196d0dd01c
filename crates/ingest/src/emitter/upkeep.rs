//! What goes on beside emission: this instance's heartbeat, taking over rows of
//! silent and released ones, measuring the backlog, deleting what is recorded.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use deadpool_postgres::Pool;
use sluice_service::Error;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Healthy, call::set_aside, queue};
use crate::backlog::Backlog;

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Rows taken over per beat.
const TAKE_OVER_MAX: i64 = 256;
/// The backlog is measured, and dead instances forgotten, every so many beats.
const MEASURE_EVERY_BEATS: u64 = 2;
const FORGET_EVERY_BEATS: u64 = 600;
/// How often rows of this instance are compared with what the emitter knows, and
/// how many. A commit whose end nobody learnt, or a deletion that a crash of the
/// database undid, leaves rows that are owned and forgotten.
const LOOK_BACK_EVERY_BEATS: u64 = 3;
const LOOK_BACK_MAX: i64 = 256;
/// Ids deleted in one statement.
const DELETE_MAX: usize = 512;

/// The heartbeat and what hangs on it.
pub struct Upkeep {
    /// Sessions without synchronous commit: losing one of these writes in a
    /// crash costs a repeated hand-over at most.
    pub pool: Pool,
    /// This process.
    pub instance: Uuid,
    /// Set to what the database says.
    pub backlog: Arc<Backlog>,
    /// Nothing is taken over while emission fails.
    pub healthy: Healthy,
    /// Where rows found in the database go.
    pub found: mpsc::Sender<queue::Row>,
}

impl Upkeep {
    /// Says that this instance is alive, before it owns any row.
    ///
    /// # Errors
    /// If the database can't be written now.
    pub async fn beat(&self) -> Result<(), Error> {
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(include_str!("../sql/heartbeat.sql")).await?;
        client.execute(&statement, &[&self.instance]).await?;
        Ok(())
    }

    /// Beats until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut beats = 0_u64;
        loop {
            if let Err(error) = self.once(beats).await {
                tracing::warn!(%error, "upkeep of the outbox failed");
            }
            beats += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
        }
    }

    async fn once(&self, beats: u64) -> Result<(), Error> {
        self.beat().await?;
        let client = self.pool.get().await?;
        if beats.is_multiple_of(MEASURE_EVERY_BEATS) {
            let statement = client.prepare_cached(include_str!("../sql/outbox_bytes.sql")).await?;
            let bytes: i64 = client.query_one(&statement, &[]).await?.get("bytes");
            self.backlog.set(bytes.unsigned_abs());
        }
        if beats.is_multiple_of(FORGET_EVERY_BEATS) {
            client.execute(include_str!("../sql/forget_instances.sql"), &[]).await?;
        }
        if !self.healthy.load(Relaxed) {
            return Ok(());
        }
        // As many as the emitter has room for, so that nothing is owned and
        // forgotten.
        let room = i64::try_from(self.found.capacity()).unwrap_or(0).min(TAKE_OVER_MAX);
        if room == 0 {
            return Ok(());
        }
        let statement = client.prepare_cached(include_str!("../sql/take_over_outbox.sql")).await?;
        let rows = client.query(&statement, &[&self.instance, &room]).await?;
        if !rows.is_empty() {
            tracing::info!(rows = rows.len(), "outbox rows taken over");
        }
        self.hand_on(&rows).await;
        if beats.is_multiple_of(LOOK_BACK_EVERY_BEATS) {
            let statement = client.prepare_cached(include_str!("../sql/own_outbox.sql")).await?;
            let rows = client.query(&statement, &[&self.instance, &LOOK_BACK_MAX]).await?;
            self.hand_on(&rows).await;
        }
        Ok(())
    }

    async fn hand_on(&self, rows: &[Row]) {
        for row in rows {
            let organisation: &str = row.get("organisation");
            let bytes: i32 = row.get("bytes");
            let Ok(organisation) = organisation.parse() else {
                set_aside(&self.pool, row.get("id"), organisation, "no possible organisation").await;
                continue;
            };
            let bytes = usize::try_from(bytes).unwrap_or(0);
            let found = queue::Row { id: row.get("id"), organisation, bytes, message: None };
            // The emitter ends before its upkeep; then nobody needs the row.
            let _stopping = self.found.send(found).await;
        }
    }
}

/// Deletes recorded rows, those of many calls at once, until the emitter ends.
/// What can't be deleted now is tried again; if the process ends before, the
/// next owner hands it over once more, which changes nothing.
pub async fn delete_recorded(pool: Pool, mut done: mpsc::UnboundedReceiver<Vec<Uuid>>) {
    let mut batches = Vec::new();
    while done.recv_many(&mut batches, DELETE_MAX).await > 0 {
        let ids: Vec<Uuid> = batches.drain(..).flatten().collect();
        let mut tries = 0;
        while let Err(error) = delete(&pool, &ids).await {
            tries += 1;
            if done.is_closed() && tries > 2 {
                return;
            }
            tracing::warn!(%error, rows = ids.len(), "recorded rows not deleted yet");
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }
}

async fn delete(pool: &Pool, ids: &[Uuid]) -> Result<(), Error> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(include_str!("../sql/delete_outbox.sql")).await?;
    client.execute(&statement, &[&ids]).await?;
    Ok(())
}
