//! A pool of sessions that organisations share, each by its turns.

use std::sync::Arc;

use deadpool_postgres::{Pool, Status};
use tokio::time::timeout;

use super::{Borrowed, pool::WAIT};
use crate::{Error, OrganisationId, metrics::Gauge, rations::Rations, shares::Owner};

/// A pool whose sessions organisations share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedPool {
    pool: Pool,
    /// Rights to a session.
    turns: Arc<Rations>,
}

impl SharedPool {
    /// Over a pool that nobody else uses.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        // Its sessions in use are told with those of the other pools.
        let turns = Rations::new(pool.status().max_size, Gauge::default());
        Self { pool, turns }
    }

    /// Waits for a session that may be used for an organisation.
    ///
    /// # Errors
    /// UNAVAILABLE if there is none within the pool's patience.
    pub async fn borrow(&self, organisation: &OrganisationId) -> Result<Borrowed, Error> {
        let busy = |late| Error::database_busy().because(late);
        let owner = Owner::from(organisation);
        let turn = timeout(WAIT, self.turns.take(&owner, 1)).await.map_err(busy)?;
        Ok(Borrowed::from(&self.pool).await?.in_turn(turn))
    }

    /// How much of it is in use, and how many wait.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = self.pool.status();
        Status { waiting: status.waiting + self.turns.waiting(), ..status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Kind,
        postgres::{Database, Session},
    };

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let nowhere = Database::parse("host=127.0.0.1 port=1 user=nobody dbname=none").unwrap();
        let session = Session { application_name: "test", parameters: &[], role: None };
        let (pool, acme) = (SharedPool::new(nowhere.pool(session, 1).unwrap()), "acme".parse().unwrap());
        let _taken = pool.turns.take(&Owner::from(&acme), 1).await;
        let told = pool.borrow(&acme).await.err().unwrap();
        assert_eq!((told.kind(), pool.turns.waiting()), (Kind::Unavailable, 0));
    }
}
