//! What goes on beside emission: taking over rows of silent and released instances,
//! looking for forgotten ones of its own, deleting what is recorded.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use deadpool_postgres::Pool;
use sluice_service::{
    Error,
    backoff::Backoff,
    postgres::{execute, query},
};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Healthy, call::set_aside, queue::Row};
use crate::committer::AtGate;

const ROUND_EVERY: Duration = Duration::from_secs(1);
/// While the database is away.
const ROUND_EVERY_MAX: Duration = Duration::from_secs(4);
/// Rows taken over per round.
const TAKE_OVER_MAX: i64 = 256;
/// Dead instances are forgotten, and owners nobody has met are looked for, every so many
/// rounds.
const FORGET_EVERY_ROUNDS: u64 = 600;
const MEET_EVERY_ROUNDS: u64 = 60;
/// This instance's own rows are looked through every so many rounds.
const LOOK_THROUGH_EVERY_ROUNDS: u64 = 3;
/// Ids deleted in one statement.
const DELETE_MAX: usize = 512;

/// Finds what is to be emitted beside what was committed just now.
pub struct Upkeep {
    /// Sessions without synchronous commit: losing one of these writes in a
    /// crash costs a repeated hand-over at most.
    pub pool: Pool,
    /// This process.
    pub instance: Uuid,
    /// Nothing is taken over while emission fails.
    pub healthy: Healthy,
    /// Rows that are not to be handed on yet.
    pub at_gate: Arc<AtGate>,
    /// Where rows found in the database go.
    pub found: mpsc::Sender<Row>,
}

impl Upkeep {
    /// Goes on until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut rounds = 0_u64;
        let mut looked_through = Uuid::nil();
        // An outage is one line in the log.
        let mut failing = false;
        let mut backoff = Backoff::new(ROUND_EVERY, ROUND_EVERY_MAX);
        loop {
            let done = self.once(rounds, &mut looked_through).await;
            if let (Err(error), false) = (&done, failing) {
                tracing::warn!(%error, "upkeep of the outbox fails");
            }
            failing = done.is_err();
            let wait = backoff.after(&done, ROUND_EVERY);
            rounds += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn once(&self, round: u64, looked_through: &mut Uuid) -> Result<(), Error> {
        if round.is_multiple_of(FORGET_EVERY_ROUNDS) {
            execute(&self.pool, include_str!("../sql/forget_instances.sql"), &[]).await?;
        }
        if round.is_multiple_of(MEET_EVERY_ROUNDS) {
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
        if round.is_multiple_of(LOOK_THROUGH_EVERY_ROUNDS) {
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
            let number = |column: &str| usize::try_from(row.get::<_, i32>(column)).unwrap_or(0);
            let Ok(organisation) = organisation.parse() else {
                set_aside(&self.pool, id, organisation, "no possible organisation").await;
                continue;
            };
            // The emitter has ended: the row is released, or found later.
            let _ended =
                self.found.send(Row::found(id, organisation, number("results"), number("bytes"))).await;
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
        let mut backoff = Backoff::new(ROUND_EVERY, ROUND_EVERY_MAX);
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
