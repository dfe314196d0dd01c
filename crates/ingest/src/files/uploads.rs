//! The uploads under way, in the database and in memory. Each ends in one of two
//! transactions, whichever takes its row: the gate's, which decides, or one that
//! gives it up and leaves word in the outbox that its bytes are to be discarded.
//! So nothing here has to know how a gate ended, or whether it was asked at all.
//!
//! Who relays a file gives it up at once if it ends undecided. The upkeep does it
//! for all others: callers who left, instances that died.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool_postgres::{GenericClient, Pool};
use sluice_service::{
    Error, OrganisationId,
    backoff::Rounds,
    postgres::{TxError, execute, query},
    transaction,
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{
    check::Candidate,
    gate::{
        decide::{Counter, Found, Presumed, Seen, decide},
        rows::marker_of,
    },
    outbox,
    outcome::Decision,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While the database is away.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(4);
const GIVE_UP: &str = include_str!("../sql/give_up_uploads.sql");
/// Uploads given up in one transaction.
const GIVE_UP_MAX: usize = 256;

/// The uploads of this instance, and the look at those of others.
#[derive(Clone, Debug)]
pub struct Uploads {
    pool: Pool,
    instance: Uuid,
    active: Arc<Mutex<HashSet<Uuid>>>,
}

/// An upload that is seen to for as long as this exists. Dropping it leaves what
/// is left of the upload to the upkeep.
#[derive(Debug)]
pub struct Upload {
    id: Uuid,
    organisation: OrganisationId,
    uploads: Uploads,
}

impl Uploads {
    /// None yet. The pool's sessions must commit durably: a stored file whose row
    /// is lost would stay for ever.
    #[must_use]
    pub fn new(pool: Pool, instance: Uuid) -> Self {
        Self { pool, instance, active: Arc::default() }
    }

    fn active(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        // A set is whole after every step.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is certain of a file before its bytes are read: that its marker was
    /// processed, or that no slot is free. Nothing is kept of it.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't be read now.
    pub async fn look_ahead(&self, candidate: &Candidate) -> Result<Option<Decision>, Error> {
        let (marker, counter) = (candidate.marker, candidate.throttle.map(|(key, _)| key));
        if marker.is_none() && counter.is_none() {
            return Ok(None);
        }
        let rows = query(&self.pool, include_str!("../sql/look_ahead.sql"), &[&marker, &counter]).await?;
        let row = rows.first().ok_or_else(|| Error::internal("a look ahead that saw nothing"))?;
        let mut seen = Seen::at(row.get("now"));
        if let Some(key) = row.get::<_, Option<Uuid>>("marker") {
            seen.markers.insert(key, Found { row: marker_of(row)?, in_current_slot: true });
        }
        if let Some(key) = row.get::<_, Option<Uuid>>("counter") {
            let counter = Counter { window_start: row.get("window_start"), used: row.get("used") };
            seen.counters.insert(key, counter);
        }
        let verdict = decide(&[candidate], &Presumed::of(&[candidate]), &seen);
        Ok(verdict.ok().and_then(|mut verdict| verdict.decisions.pop()))
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't be written now.
    pub async fn open(&self, id: Uuid, organisation: &OrganisationId) -> Result<Upload, Error> {
        // Known before its row is there: a row that is not known has been left.
        self.active().insert(id);
        let upload = Upload { id, organisation: organisation.clone(), uploads: self.clone() };
        let params: [&(dyn ToSql + Sync); 3] = [&id, &organisation.as_str(), &self.instance];
        execute(&self.pool, include_str!("../sql/open_upload.sql"), &params).await?;
        Ok(upload)
    }

    /// Gives up what nobody sees to any more, again and again.
    pub async fn run(self) {
        let mut looked_through = Uuid::nil();
        let mut rounds = Rounds::new("the look for dead uploads", LOOK_EVERY, LOOK_EVERY_MAX);
        loop {
            let done = self.give_up_dead(&mut looked_through).await;
            let mut pause = rounds.ended(&done);
            let count = done.unwrap_or(0);
            if count > 0 {
                tracing::info!(count, "dead uploads given up");
            }
            // Where there is a whole page of them there may be more.
            if count >= GIVE_UP_MAX {
                pause = Duration::ZERO;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One look. How many uploads were given up.
    async fn give_up_dead(&self, looked_through: &mut Uuid) -> Result<usize, Error> {
        let mut dead = self.left(looked_through).await?;
        dead.extend(self.orphaned().await?);
        if dead.is_empty() {
            return Ok(0);
        }
        transaction!(self.pool, "give up dead uploads", |tx| {
            let statement = tx.prepare_cached(include_str!("../sql/lock_dead_uploads.sql")).await?;
            let mut locked = HashMap::<String, Vec<Uuid>>::new();
            let rows = tx.query(&statement, &[&dead]).await?;
            for row in &rows {
                locked.entry(row.get("organisation")).or_default().push(row.get("id"));
            }
            for (organisation, ids) in &locked {
                give_up_in_tx(&tx, organisation, ids).await?;
            }
            Ok(rows.len())
        })
    }

    /// Uploads of instances that are silent.
    async fn orphaned(&self) -> Result<Vec<Uuid>, Error> {
        let params: [&(dyn ToSql + Sync); 2] = [&self.instance, &(GIVE_UP_MAX as i64)];
        let rows = query(&self.pool, include_str!("../sql/orphaned_uploads.sql"), &params).await?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Uploads of this instance that no [`Upload`] stands for, a page of them per
    /// call. The rows are read first: what is not known after that was known
    /// before, and has been left.
    async fn left(&self, looked_through: &mut Uuid) -> Result<Vec<Uuid>, Error> {
        let params: [&(dyn ToSql + Sync); 3] = [&self.instance, &*looked_through, &(GIVE_UP_MAX as i64)];
        let rows = query(&self.pool, include_str!("../sql/own_uploads.sql"), &params).await?;
        *looked_through = rows.last().map_or(Uuid::nil(), |row| row.get("id"));
        let active = self.active();
        Ok(rows.iter().map(|row| row.get("id")).filter(|id| !active.contains(id)).collect())
    }
}

impl Upload {
    /// Gives it up, unless the gate decided about it: then its row is gone. What
    /// can't be done now the upkeep does.
    pub async fn give_up(self) {
        let (organisation, ids) = (self.organisation.as_str(), vec![self.id]);
        let given_up = async {
            let payload = outbox::discarding(organisation, &ids)?;
            let params: [&(dyn ToSql + Sync); 5] =
                [&ids, &Uuid::now_v7(), &organisation, &outbox::FORMAT, &&payload[..]];
            execute(&self.uploads.pool, GIVE_UP, &params).await
        };
        if let Err(error) = given_up.await {
            tracing::warn!(upload = %self.id, %error, "an upload is not given up yet");
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.active().remove(&self.id);
    }
}

/// Gives up uploads of one organisation that this transaction holds.
async fn give_up_in_tx(client: &impl GenericClient, organisation: &str, ids: &[Uuid]) -> Result<(), TxError> {
    let payload = outbox::discarding(organisation, ids)?;
    let statement = client.prepare_cached(GIVE_UP).await?;
    let format = outbox::FORMAT;
    client.execute(&statement, &[&ids, &Uuid::now_v7(), &organisation, &format, &&payload[..]]).await?;
    Ok(())
}
