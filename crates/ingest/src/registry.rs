//! Definitions in memory. Every check reads one [`Snapshot`]; a follower task
//! brings in changes by revision, and who must not answer from an old snapshot
//! asks for a look at the database that begins after the question.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use deadpool_postgres::Pool;
use sluice_service::{Error, OrganisationId, backoff::Rounds, postgres::query};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

use crate::{definition::Definition, schema::Schema, schemas::Schemas};

/// How often changes are looked for when nobody asks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// The same, while the database can't be read.
const FOLLOW_EVERY_MAX: Duration = Duration::from_secs(2);
/// After how long without a look one begins anew: what was deleted is told for a day.
const BLIND_MAX: Duration = Duration::from_secs(12 * 3600);
/// How many may wait for one look.
const WAITING_MAX: usize = 4096;

/// The definitions of one path: the system-wide one and those of organisations.
#[derive(Clone, Debug, Default)]
struct Rules {
    system_wide: Option<Arc<Definition>>,
    own: HashMap<OrganisationId, Arc<Definition>>,
}

/// The definitions of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: i64,
    paths: HashMap<String, Rules>,
    /// Shared with the snapshots before and after.
    schemas: Schemas,
}

impl Snapshot {
    /// The revision this is a snapshot of.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The definition that rules an organisation's observations of a path: its
    /// own, or else the system-wide one.
    #[must_use]
    pub fn find(&self, organisation: &OrganisationId, path: &str) -> Option<&Arc<Definition>> {
        let rules = self.paths.get(path)?;
        rules.own.get(organisation).or(rules.system_wide.as_ref())
    }

    /// The compiled schema of a definition, if it has one.
    ///
    /// # Errors
    /// Why it can't be used. It was accepted when it was put, possibly by an earlier build
    /// with other limits.
    pub fn schema_of(&self, definition: &Definition) -> Result<Option<Arc<Schema>>, String> {
        let text = definition.draft.schema();
        text.map(|text| self.schemas.of(&definition.etag, text)).transpose()
    }

    /// What a content of so many bytes may take under a definition's schema, in
    /// nanoseconds, about; 0 if it has none. `None`: it is still to be compiled, which
    /// takes its time.
    #[must_use]
    pub fn work_of(&self, definition: &Definition, bytes: usize) -> Option<u64> {
        if definition.draft.schema().is_none() {
            return Some(0);
        }
        self.schemas.work_at_hand(&definition.etag, bytes)
    }

    /// A snapshot of given definitions.
    #[cfg(test)]
    pub fn of(revision: i64, definitions: impl IntoIterator<Item = Definition>) -> Self {
        let mut snapshot = Self { revision, ..Self::default() };
        for definition in definitions {
            snapshot.put(Arc::new(definition));
        }
        snapshot
    }

    fn put(&mut self, definition: Arc<Definition>) {
        let rules = self.paths.entry(definition.draft.path.as_str().to_owned()).or_default();
        match &definition.draft.organisation {
            None => rules.system_wide = Some(definition),
            Some(organisation) => drop(rules.own.insert(organisation.clone(), definition)),
        }
    }

    fn remove(&mut self, organisation: &str, path: &str) {
        let Some(rules) = self.paths.get_mut(path) else { return };
        if organisation.is_empty() {
            rules.system_wide = None;
        } else {
            rules.own.retain(|own, _| own.as_str() != organisation);
        }
        if rules.system_wide.is_none() && rules.own.is_empty() {
            self.paths.remove(path);
        }
    }
}

/// The definitions in force, and the way to a newer look at them.
#[derive(Clone, Debug)]
pub struct Registry {
    current: Arc<ArcSwap<Snapshot>>,
    ask: mpsc::Sender<oneshot::Sender<Result<(), ()>>>,
}

impl Registry {
    /// An empty registry and the follower that fills it; spawn the latter.
    #[must_use]
    pub fn new(pool: Pool) -> (Self, Follower) {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        let current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        (Self { current: current.clone(), ask }, Follower { pool, current, asked, last: None })
    }

    /// The newest snapshot at hand.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Waits for a look at the database that begins after this call. Calls at
    /// the same time share one look.
    ///
    /// # Errors
    /// UNAVAILABLE if the database can't be read now.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, Error> {
        let (answer, answered) = oneshot::channel();
        let unavailable = || Error::unavailable("the definitions can't be read now");
        self.ask.try_send(answer).map_err(|_| unavailable())?;
        match answered.await {
            Ok(Ok(())) => Ok(self.snapshot()),
            _ => Err(unavailable()),
        }
    }
}

/// Brings changes of definitions into memory.
#[derive(Debug)]
pub struct Follower {
    pool: Pool,
    current: Arc<ArcSwap<Snapshot>>,
    asked: mpsc::Receiver<oneshot::Sender<Result<(), ()>>>,
    last: Option<Look>,
}

/// When the database was looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Also counts while the machine stands still.
    date: SystemTime,
}

impl Look {
    fn now() -> Self {
        Self { at: Instant::now(), date: SystemTime::now() }
    }

    /// Whether what was deleted since is still told.
    fn may_go_on(self, now: Self) -> bool {
        let passed = now.date.duration_since(self.date).unwrap_or_default();
        passed.max(now.at.saturating_duration_since(self.at)) <= BLIND_MAX
    }
}

impl Follower {
    /// Follows until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut waiting = Vec::new();
        let mut rounds = Rounds::new("reading definitions", FOLLOW_EVERY, FOLLOW_EVERY_MAX);
        let mut wait = FOLLOW_EVERY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                1.. = self.asked.recv_many(&mut waiting, WAITING_MAX) => {}
                () = tokio::time::sleep(wait) => {}
            }
            let look = self.look().await;
            wait = rounds.ended(&look);
            for answer in waiting.drain(..) {
                // Who asked may have gone; then nobody needs the answer.
                let _gone = answer.send(look.as_ref().map(drop).map_err(drop));
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let (now, known) = (Look::now(), self.current.load_full());
        let rows = query(&self.pool, include_str!("sql/select_revision.sql"), &[]).await?;
        let revision: i64 =
            rows.first().ok_or_else(|| Error::internal("definitions without a revision"))?.get(0);
        if self.last.is_some() && revision == known.revision {
            self.last = Some(now);
            return Ok(());
        }
        // A revision below the known one is another database, for example one
        // restored from a backup: begin anew. So after a time in which what was deleted
        // may have been forgotten.
        let goes_on = self.last.is_some_and(|last| last.may_go_on(now)) && revision >= known.revision;
        let base = if goes_on { (*known).clone() } else { Snapshot::default() };
        let since = if goes_on { base.revision } else { -1 };
        let rows = query(&self.pool, include_str!("sql/select_changed_definitions.sql"), &[&since]).await?;
        let next = apply(base, &rows);
        tracing::debug!(revision = next.revision, changed = rows.len(), "definitions changed");
        self.current.store(Arc::new(next));
        self.last = Some(now);
        Ok(())
    }
}

fn apply(mut snapshot: Snapshot, rows: &[Row]) -> Snapshot {
    for row in rows {
        snapshot.revision = row.get("now_revision");
        // The row of the revision alone, when nothing changed.
        let Some(organisation) = row.get::<_, Option<&str>>("organisation") else { continue };
        let path: &str = row.get("path");
        if row.get("deleted") {
            snapshot.remove(organisation, path);
            continue;
        }
        match Definition::from_row(row) {
            Ok(definition) => snapshot.put(Arc::new(definition)),
            Err(fault) => {
                tracing::error!(organisation, path, fault, "a kept definition is not usable");
                snapshot.remove(organisation, path);
            }
        }
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use sluice_service::postgres::Database;
    use tokio::{net::TcpListener, time::Instant as Clock};

    use super::*;

    /// Until what is sealed is committed there is a follower.
    #[tokio::test(start_paused = true)]
    async fn when_nobody_can_ask_any_more_it_is_looked_as_often_as_before() {
        // It hangs up at once.
        let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://nobody@{}/none", database.local_addr().unwrap());
        let pool = Database::parse(&url).unwrap().pool(crate::sessions::DEFINITIONS, 1).unwrap();
        let (registry, follower) = Registry::new(pool);
        drop(registry);
        let stopped = CancellationToken::new();
        let following = tokio::spawn(follower.run(stopped.clone()));
        let began = Clock::now();
        for _ in 0..3 {
            drop(database.accept().await.unwrap());
        }
        assert!(began.elapsed() >= FOLLOW_EVERY, "{:?}", began.elapsed());
        stopped.cancel();
        following.await.unwrap();
    }

    #[test]
    fn who_has_not_looked_for_long_begins_anew() {
        let (last, second) = (Look::now(), Duration::from_secs(1));
        let after = |at: Duration, date: Duration| Look { at: last.at + at, date: last.date + date };
        assert!(last.may_go_on(after(BLIND_MAX, BLIND_MAX)));
        assert!(!last.may_go_on(after(second, BLIND_MAX + second)));
        assert!(!last.may_go_on(after(BLIND_MAX + second, second)));
        assert!(last.may_go_on(Look { at: last.at, date: last.date - second }), "a clock that was set back");
    }
}
