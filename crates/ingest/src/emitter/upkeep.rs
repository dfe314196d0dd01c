//! What goes on beside emission: taking over rows of silent and released instances,
//! looking for forgotten ones of its own, deleting what is recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool_postgres::Pool;
use sluice_service::{
    Error,
    backoff::Rounds,
    postgres::{execute, query},
};
use tokio::sync::mpsc::{self, Permit};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{call::set_aside, measure::backlog_of, queue::Row};
use crate::{backlog::Backlog, committer::AtGate};

const ROUND_EVERY: Duration = Duration::from_secs(1);
/// While the database is away.
const ROUND_EVERY_MAX: Duration = Duration::from_secs(4);
/// Rows taken over, or looked through, in one statement. More of them follow at once, as
/// fast as the emitter takes them.
const PAGE: usize = 512;
/// Dead instances are forgotten, and owners nobody has met are looked for, every so many
/// rounds.
const FORGET_EVERY_ROUNDS: u64 = 600;
const MEET_EVERY_ROUNDS: u64 = 60;
/// This instance's own rows are looked through every so many rounds, so many pages of
/// them: the emitter may have left many there for want of room.
const LOOK_THROUGH_EVERY_ROUNDS: u64 = 3;
const LOOK_THROUGH_PAGES: usize = 16;
/// Ids deleted in one statement.
const DELETE_MAX: usize = 512;

/// Finds what is to be emitted beside what was committed just now.
pub struct Upkeep {
    /// Sessions without synchronous commit: losing one of these writes in a
    /// crash costs a repeated hand-over at most.
    pub pool: Pool,
    /// This process.
    pub instance: Uuid,
    /// While it does, nothing is taken over.
    pub emission_fails: Arc<AtomicBool>,
    /// Rows that are not to be handed on yet.
    pub at_gate: Arc<AtGate>,
    /// Where rows found in the database go.
    pub found: mpsc::Sender<Row>,
}

impl Upkeep {
    /// Round after round.
    pub async fn run(self) {
        let mut looked_through = Uuid::nil();
        let mut rounds = Rounds::new("upkeep of the outbox", ROUND_EVERY, ROUND_EVERY_MAX);
        for round in 0_u64.. {
            let done = self.once(round, &mut looked_through).await;
            tokio::time::sleep(rounds.ended(&done)).await;
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
        let taken = self.take_over().await;
        if round.is_multiple_of(LOOK_THROUGH_EVERY_ROUNDS) {
            self.look_through(looked_through).await?;
        }
        taken
    }

    /// Room for a page with the emitter, so that nothing is owned and forgotten. `None`
    /// while emission fails, and when the emitter has ended.
    async fn room(&self) -> Option<impl Iterator<Item = Permit<'_, Row>>> {
        if self.emission_fails.load(Relaxed) {
            return None;
        }
        let room = self.found.reserve_many(PAGE).await.ok()?;
        (!self.emission_fails.load(Relaxed)).then_some(room)
    }

    /// Takes over page after page, as long as they are full.
    async fn take_over(&self) -> Result<(), Error> {
        let mut taken = 0;
        let mut done = Ok(());
        while let Some(room) = self.room().await {
            let params: [&(dyn ToSql + Sync); 2] = [&self.instance, &(PAGE as i64)];
            let page = match query(&self.pool, include_str!("../sql/take_over_outbox.sql"), &params).await {
                Ok(page) => page,
                Err(error) => {
                    done = Err(error);
                    break;
                }
            };
            taken += page.len();
            self.hand_to_emitter(page.iter(), room).await;
            if page.len() < PAGE {
                break;
            }
        }
        if taken > 0 {
            tracing::info!(rows = taken, "outbox rows taken over");
        }
        done
    }

    /// Goes on after what is looked through, and begins anew when that is all.
    async fn look_through(&self, looked_through: &mut Uuid) -> Result<(), Error> {
        for _ in 0..LOOK_THROUGH_PAGES {
            let Some(room) = self.room().await else { break };
            let params: [&(dyn ToSql + Sync); 3] = [&self.instance, &*looked_through, &(PAGE as i64)];
            let page = query(&self.pool, include_str!("../sql/waiting_outbox.sql"), &params).await?;
            self.hand_to_emitter(page.iter().filter(|row| !self.at_gate.holds(row.get("id"))), room).await;
            let last = page.last().filter(|_| page.len() == PAGE);
            *looked_through = last.map_or(Uuid::nil(), |row| row.get("id"));
            if last.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// The emitter passes over what it knows of already.
    async fn hand_to_emitter(
        &self,
        rows: impl Iterator<Item = &tokio_postgres::Row>,
        mut room: impl Iterator<Item = Permit<'_, Row>>,
    ) {
        for row in rows {
            let (id, organisation): (Uuid, &str) = (row.get("id"), row.get("organisation"));
            let number = |column: &str| usize::try_from(row.get::<_, i32>(column)).unwrap_or(0);
            let Ok(organisation) = organisation.parse() else {
                set_aside(&self.pool, id, organisation, "no possible organisation").await;
                continue;
            };
            let Some(place) = room.next() else { break };
            place.send(Row::found(id, organisation, number("results"), number("bytes")));
        }
    }
}

/// Deletes recorded rows, those of many calls at once, until the emitter ends.
/// What can't be deleted now is tried again; if the process ends before, the
/// next owner hands it over once more, which changes nothing.
pub async fn delete_recorded(pool: Pool, backlog: Arc<Backlog>, mut done: mpsc::UnboundedReceiver<Uuid>) {
    let mut ids = Vec::with_capacity(DELETE_MAX);
    let mut rounds = Rounds::new("deleting recorded rows", ROUND_EVERY, ROUND_EVERY_MAX);
    while done.recv_many(&mut ids, DELETE_MAX).await > 0 {
        for tries in 1.. {
            let deleted = delete(&pool, &backlog, &ids).await;
            let wait = rounds.ended(&deleted);
            if deleted.is_ok() {
                break;
            }
            if done.is_closed() && tries > 2 {
                return;
            }
            tokio::time::sleep(wait).await;
        }
        ids.clear();
    }
}

async fn delete(pool: &Pool, backlog: &Backlog, ids: &[Uuid]) -> Result<(), Error> {
    let deleted = query(pool, include_str!("../sql/delete_outbox.sql"), &[&ids]).await?;
    for (organisation, bytes) in deleted.iter().filter_map(backlog_of) {
        backlog.remove(&organisation, bytes);
    }
    Ok(())
}
