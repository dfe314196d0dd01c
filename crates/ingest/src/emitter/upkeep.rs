//! What goes on beside emission: this instance's heartbeat, taking over rows of
//! silent and released ones, measuring the backlog, deleting what is recorded.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use deadpool_postgres::Pool;
use sluice_service::{
    Error, OrganisationId,
    backoff::Backoff,
    postgres::{execute, query},
};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Healthy, call::set_aside, queue::Row};
use crate::{backlog::Backlog, committer::AtGate, metrics::Outbox};

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// While the database is away.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(4);
/// Rows taken over per beat.
const TAKE_OVER_MAX: i64 = 256;
/// The backlog is measured, dead instances are forgotten, and owners nobody has met
/// are looked for, every so many beats.
const MEASURE_EVERY_BEATS: u64 = 2;
const FORGET_EVERY_BEATS: u64 = 600;
const MEET_EVERY_BEATS: u64 = 60;
/// This instance's own rows are looked through every so many beats.
const LOOK_THROUGH_EVERY_BEATS: u64 = 3;
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
    /// Told what the database says, too.
    pub metrics: Arc<Outbox>,
    /// Nothing is taken over while emission fails.
    pub healthy: Healthy,
    /// Rows that are not to be handed on yet.
    pub at_gate: Arc<AtGate>,
    /// Where rows found in the database go.
    pub found: mpsc::Sender<Row>,
}

impl Upkeep {
    /// Says that this instance is alive, before it owns any row.
    ///
    /// # Errors
    /// If the database can't be written now.
    pub async fn beat(&self) -> Result<(), Error> {
        execute(&self.pool, include_str!("../sql/heartbeat.sql"), &[&self.instance]).await.map(drop)
    }

    /// Beats until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut beats = 0_u64;
        let mut looked_through = Uuid::nil();
        // An outage is one line in the log.
        let mut failing = false;
        let mut backoff = Backoff::new(BEAT_EVERY, BEAT_EVERY_MAX);
        loop {
            let done = self.once(beats, &mut looked_through).await;
            if let (Err(error), false) = (&done, failing) {
                tracing::warn!(%error, "upkeep of the outbox fails");
            }
            failing = done.is_err();
            let wait = backoff.after(&done, BEAT_EVERY);
            beats += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn once(&self, beats: u64, looked_through: &mut Uuid) -> Result<(), Error> {
        self.beat().await?;
        if beats.is_multiple_of(MEASURE_EVERY_BEATS) {
            let measured = query(&self.pool, include_str!("../sql/outbox_bytes.sql"), &[]).await?;
            self.backlog.set(measured.iter().filter_map(backlog_of).collect());
            let sum = |column: &str| measured.iter().map(|row| row.get::<_, i64>(column)).sum();
            let ages = measured.iter().map(|row| row.get::<_, f64>("oldest_age_seconds"));
            let oldest = ages.fold(0.0, f64::max);
            self.metrics.measured(sum("rows"), sum("bytes"), sum("set_aside"), oldest);
        }
        if beats.is_multiple_of(FORGET_EVERY_BEATS) {
            execute(&self.pool, include_str!("../sql/forget_instances.sql"), &[]).await?;
        }
        if beats.is_multiple_of(MEET_EVERY_BEATS) {
            let met = execute(&self.pool, include_str!("../sql/meet_owners.sql"), &[]).await?;
            if met > 0 {
                tracing::warn!(owners = met, "outbox rows or uploads of owners without a heartbeat");
            }
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
        let taken = self.take_over(room).await;
        if beats.is_multiple_of(LOOK_THROUGH_EVERY_BEATS) {
            let room = i64::try_from(self.found.capacity()).unwrap_or(0).min(TAKE_OVER_MAX);
            let params: [&(dyn ToSql + Sync); 3] = [&self.instance, &*looked_through, &room];
            let rows = query(&self.pool, include_str!("../sql/waiting_outbox.sql"), &params).await?;
            *looked_through = rows.last().map_or(Uuid::nil(), |row| row.get("id"));
            self.hand_to_emitter(rows.iter().filter(|row| !self.at_gate.holds(row.get("id")))).await;
        }
        taken
    }

    async fn take_over(&self, room: i64) -> Result<(), Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&self.instance, &room];
        let rows = query(&self.pool, include_str!("../sql/take_over_outbox.sql"), &params).await?;
        if !rows.is_empty() {
            tracing::info!(rows = rows.len(), "outbox rows taken over");
        }
        self.hand_to_emitter(rows.iter()).await;
        Ok(())
    }

    /// The emitter passes over what it knows of already.
    async fn hand_to_emitter(&self, rows: impl Iterator<Item = &tokio_postgres::Row>) {
        for row in rows {
            let (id, organisation): (Uuid, &str) = (row.get("id"), row.get("organisation"));
            let bytes = usize::try_from(row.get::<_, i32>("bytes")).unwrap_or(0);
            let Ok(organisation) = organisation.parse() else {
                set_aside(&self.pool, id, organisation, "no possible organisation").await;
                continue;
            };
            // The emitter has ended: the row is released, or found later.
            let _ended = self.found.send(Row { id, organisation, bytes, message: None }).await;
        }
    }
}

/// An organisation and its bytes. A name that is none can't publish.
fn backlog_of(row: &tokio_postgres::Row) -> Option<(OrganisationId, u64)> {
    let organisation = row.get::<_, &str>("organisation").parse().ok()?;
    Some((organisation, row.get::<_, i64>("bytes").unsigned_abs()))
}

/// Deletes recorded rows, those of many calls at once, until the emitter ends.
/// What can't be deleted now is tried again; if the process ends before, the
/// next owner hands it over once more, which changes nothing.
pub async fn delete_recorded(pool: Pool, mut done: mpsc::UnboundedReceiver<Vec<Uuid>>) {
    let mut batches = Vec::new();
    while done.recv_many(&mut batches, DELETE_MAX).await > 0 {
        let ids: Vec<Uuid> = batches.drain(..).flatten().collect();
        let mut tries = 0;
        let mut backoff = Backoff::new(BEAT_EVERY, BEAT_EVERY_MAX);
        while let Err(error) = delete(&pool, &ids).await {
            tries += 1;
            if done.is_closed() && tries > 2 {
                return;
            }
            tracing::warn!(%error, rows = ids.len(), "recorded rows not deleted yet");
            tokio::time::sleep(backoff.failed()).await;
        }
    }
}

async fn delete(pool: &Pool, ids: &[Uuid]) -> Result<(), Error> {
    execute(pool, include_str!("../sql/delete_outbox.sql"), &[&ids]).await.map(drop)
}
