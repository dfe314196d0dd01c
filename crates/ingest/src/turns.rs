//! Turns at work that keeps a processor busy for long: as many at a time as there are
//! processors, and each organisation one after the other, so that whoever asks for
//! much of it delays nobody's but its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
};

use sluice_service::OrganisationId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out turns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<Option<OrganisationId>, Arc<Semaphore>>>>,
}

/// A turn; the next one's begins when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _of_all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Turns {
    /// As many turns at a time as there are processors.
    #[must_use]
    pub fn new() -> Self {
        Self::of(available_parallelism().map_or(1, usize::from))
    }

    /// So many turns at a time.
    #[must_use]
    pub fn of(at_a_time: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(at_a_time)), of: Arc::default() }
    }

    /// Waits for a turn. Those who wait are served in order: for the organisation's
    /// turn, and then, one of each organisation, for one of all. What is system-wide has a
    /// turn like an organisation's.
    pub async fn take(&self, organisation: Option<&OrganisationId>) -> Option<Turn> {
        let own = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            // Who neither works nor waits is not kept.
            of.retain(|_, own| Arc::strong_count(own) > 1);
            of.entry(organisation.cloned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        // Neither is ever closed.
        let own = own.acquire_owned().await.ok()?;
        Some(Turn { _of_all: self.all.clone().acquire_owned().await.ok()?, _own: own })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_that_asks_for_much_delays_nobody_else() {
        let (turns, flood, other) = (Turns::of(2), "flood".parse().unwrap(), "other".parse().unwrap());
        let first = turns.take(Some(&flood)).await.unwrap();
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(turns.take(Some(&flood)))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        // There is a turn left, and it is not the flood's.
        let others = turns.take(Some(&other)).now_or_never().flatten().expect("a turn");
        drop(first);
        assert!(waiting[0].as_mut().now_or_never().is_some());
        drop((others, waiting));
        drop(turns.take(Some(&other)).await);
        assert!(turns.of.lock().unwrap().len() <= 1, "who has gone is not kept");
    }
}
