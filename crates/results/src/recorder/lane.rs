//! One lane of the recorder: its own session, one statement and one commit per
//! group, and the search for the one to blame when the database refuses.

use std::{ops::Range, sync::Arc};

use sluice_service::{
    Error,
    backoff::{News, Outage},
    postgres::{
        Database, Meaning, Reconnect, Wary, blames_values, classify, is_known, patiently, state, told,
    },
};
use tokio::time::sleep_until;
use tokio_postgres::{Client, Error as PgError, Statement};

use super::{
    Job, Recording,
    columns::{Columns, Entry},
};
use crate::{
    partitions,
    recent::Recent,
    result::NewRecord,
    sessions::RECORDING,
    storage::inline::{self, Packed},
};

const RECORD_NEW: &str = include_str!("../sql/record_new.sql");
const RECORD: &str = include_str!("../sql/record.sql");
/// Tries of a statement that conflicts with another or whose session broke.
const TRIES_MAX: u32 = 5;

/// Why records were not recorded.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The same statement may succeed now.
    #[error("in conflict with others, again and again")]
    Conflict,
    /// The session broke; whether the commit was done is not known.
    #[error("the session broke: {0}")]
    Cut(String),
    /// Not now.
    #[error("not now: {0}")]
    Away(String),
    /// Not yet again: still what it was when the session was last tried at.
    #[error("not yet again")]
    Resting,
    /// The values of one of them can't be kept.
    #[error("not to be kept: {0}")]
    Values(PgError),
    /// A fault of the service or of the database.
    #[error("{0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// A session with its statements prepared.
#[derive(Debug)]
struct Session {
    client: Client,
    record_new: Statement,
    record: Statement,
    _counted: Arc<()>,
}

/// Counts the sessions of all lanes: each holds a clone of the inner one.
pub type Sessions = Arc<Arc<()>>;

/// A lane of the recorder.
#[derive(Debug)]
pub struct Lane {
    database: Database,
    session: Option<Session>,
    sessions: Sessions,
    wary: Wary,
    reconnect: Reconnect,
    /// So that an outage is one line and not thousands.
    outage: Outage,
    recent: Recent,
}

impl Lane {
    /// One of the lanes that share `sessions`.
    pub fn new(database: Database, sessions: &Sessions, recent: Recent) -> Self {
        Self {
            database,
            session: None,
            sessions: sessions.clone(),
            wary: Wary::default(),
            reconnect: Reconnect::default(),
            outage: Outage::default(),
            recent,
        }
    }

    /// As long as it has no session, it opens one with no job in hand, and leaves what
    /// waits to lanes that have one. If there is none, it takes what waits all the same, so
    /// that callers are told.
    pub async fn prepare(&mut self) {
        while !self.may_take() {
            if let Some(until) = self.reconnect.rests_until() {
                sleep_until(until).await;
            }
            if let Err(fault) = self.session().await {
                self.tell(Some(fault.to_string()));
            }
        }
    }

    /// Whether it has a session, or no lane has one.
    pub fn may_take(&mut self) -> bool {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        self.session.is_some() || Arc::strong_count(&*self.sessions) == 1
    }

    /// A group was given up half-way.
    pub fn panicked(&mut self) {
        self.session = None;
    }

    /// Records a group and answers each job of it, after the commit.
    pub async fn commit(&mut self, group: Vec<Job>) {
        let mut entries = Vec::with_capacity(group.iter().map(|job| job.records.len()).sum());
        let mut answers: Vec<Vec<Option<Recording>>> = Vec::with_capacity(group.len());
        let mut callers = Vec::with_capacity(group.len());
        for (number, job) in group.into_iter().enumerate() {
            answers.push(vec![None; job.records.len()]);
            callers.push((job.answer, job.share));
            let own = job.records.into_iter().enumerate();
            entries.extend(own.map(|(position, record)| Entry { record, job: number, position }));
        }
        entries.sort_unstable_by(|a, b| NewRecord::order(&a.record, &b.record));
        let entries = Arc::new(entries);
        let failed = match self.record(&entries, &mut answers).await {
            Ok(packed) => {
                // Before the answers, so that whoever has one finds it there.
                self.remember(entries, packed);
                None
            }
            Err(fault) => Some(fault),
        };
        for ((caller, _share), answer) in callers.into_iter().zip(answers) {
            let complete: Option<Vec<Recording>> = answer.into_iter().collect();
            let outcome = complete.ok_or_else(|| match &failed {
                Some(Fault::Broken(_)) => Error::internal("the group was not recorded"),
                _ => Error::database_busy(),
            });
            // A caller that gave up meanwhile hands over again.
            let _gone = caller.send(outcome);
        }
    }

    /// What was recorded just now, all of it in one statement. The data of the block is
    /// kept, not that of the request, which may be a small part of a large message.
    fn remember(&self, entries: Arc<Vec<Entry>>, packed: Vec<Packed>) {
        let complete = |entries: &Vec<Entry>| entries.len() == packed.len();
        let Some(entries) = Arc::into_inner(entries).filter(complete) else { return };
        let mut kept = Vec::with_capacity(packed.len());
        for (entry, Packed { placement, data }) in entries.into_iter().zip(packed) {
            kept.push((NewRecord { data, ..entry.record }, placement));
        }
        self.recent.keep(kept);
    }

    /// Records all entries, or all but those to blame: a refused statement is
    /// tried again in halves, down to the single record. Returns the data of each if it
    /// was only now recorded, all in one statement, else nothing.
    async fn record(
        &mut self,
        entries: &Arc<Vec<Entry>>,
        answers: &mut [Vec<Option<Recording>>],
    ) -> Result<Vec<Packed>, Fault> {
        let everything: Range<usize> = 0..entries.len();
        let mut open = Vec::from([everything]);
        let mut packed = Vec::new();
        while let Some(range) = open.pop() {
            let recording = match self.insert(entries, range.clone()).await {
                Ok(fresh) => {
                    packed = fresh.filter(|_| range.len() == entries.len()).unwrap_or_default();
                    Recording::Recorded
                }
                Err(Fault::Values(_)) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    open.extend([middle..range.end, range.start..middle]);
                    continue;
                }
                Err(Fault::Values(cause)) => {
                    let NewRecord { organisation, id, .. } = &entries[range.start].record;
                    tracing::error!(%organisation, %id, state = state(&cause), "result refused by the database");
                    Recording::Refused
                }
                Err(Fault::Resting) => return Err(Fault::Resting),
                Err(fault) => {
                    self.tell(Some(fault.to_string()));
                    return Err(fault);
                }
            };
            for entry in &entries[range] {
                answers[entry.job][entry.position] = Some(recording);
            }
        }
        self.tell(None);
        Ok(packed)
    }

    /// Logs a fault, or its end, when it is another one than before.
    fn tell(&mut self, fault: Option<String>) {
        match self.outage.news(fault) {
            Some(News::Fails(fault)) => tracing::error!(fault, "a lane can't record results"),
            Some(News::WorksAgain) => tracing::info!("a lane records results again"),
            None => {}
        }
    }

    /// Records some entries in one statement, which is one commit: again on a
    /// conflict, and on a fresh session when the old one broke (then it is not
    /// known whether it had been committed, and recording again does no harm).
    /// Returns the data of each, if none was there before.
    async fn insert(
        &mut self,
        entries: &Arc<Vec<Entry>>,
        range: Range<usize>,
    ) -> Result<Option<Vec<Packed>>, Fault> {
        let (shared, own) = (entries.clone(), range.clone());
        // Compressing megabytes would hold up everything else on this thread.
        let packing = tokio::task::spawn_blocking(move || {
            let records: Vec<&NewRecord> = shared[own].iter().map(|entry| &entry.record).collect();
            inline::pack(&records)
        });
        let packing = packing.await.map_err(|panic| Fault::Broken(panic.into()))?;
        let (blocks, packed) = packing.map_err(|fault| Fault::Broken(fault.into()))?;
        let results = range.len();
        let columns = Columns::of(&entries[range], &packed, &blocks);
        let mut tries = 1;
        let recorded = loop {
            match self.attempt(&columns).await {
                Err(Fault::Conflict | Fault::Cut(_)) if tries < TRIES_MAX => tries += 1,
                outcome => break outcome?,
            }
        };
        Ok((recorded == results).then_some(packed))
    }

    /// How many were not there before.
    async fn attempt(&mut self, columns: &Columns<'_>) -> Result<usize, Fault> {
        let looks_first = self.wary.looks_first();
        let session = self.session().await?;
        let statement = if looks_first { &session.record } else { &session.record_new };
        let outcome = match patiently(columns.execute(&session.client, statement)).await {
            Ok(Err(error)) if !looks_first && is_known(&error) => {
                self.wary.rouse();
                Err(Fault::Conflict)
            }
            Ok(outcome) => outcome.map_err(Fault::from),
            Err(_) => Err(Fault::Cut("the database is silent".into())),
        };
        if matches!(outcome, Err(Fault::Cut(_))) {
            self.session = None;
            // It may have been recorded.
            self.wary.rouse();
        }
        outcome
    }

    /// The lane's session; a new one if there is none or it was closed. A lane
    /// also looks after this week's partitions before it writes the first row:
    /// rows in the DEFAULT partition would keep their week from being made.
    async fn session(&mut self) -> Result<&Session, Fault> {
        if self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
            self.session = None;
            if self.reconnect.is_resting() {
                return Err(Fault::Resting);
            }
            let away = |error: PgError| Fault::Away(told(&error));
            let opening = async {
                let client = self.database.connect(RECORDING).await.map_err(away)?;
                partitions::make(&client).await;
                let record_new = client.prepare(RECORD_NEW).await.map_err(away)?;
                let record = client.prepare(RECORD).await.map_err(away)?;
                Ok(Session { client, record_new, record, _counted: Arc::clone(&*self.sessions) })
            };
            let opened = patiently(opening).await;
            let opened = opened.unwrap_or_else(|_| Err(Fault::Away("the database is silent".into())));
            self.session = Some(self.reconnect.tried(opened)?);
        }
        self.session.as_ref().ok_or_else(|| Fault::Away("no session".into()))
    }
}

impl From<PgError> for Fault {
    fn from(error: PgError) -> Self {
        match classify(&error) {
            Meaning::Conflict => Self::Conflict,
            Meaning::Connection => Self::Cut(told(&error)),
            Meaning::Busy => Self::Away(told(&error)),
            Meaning::Statement if blames_values(&error) => Self::Values(error),
            Meaning::Statement => Self::Broken(told(&error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::job, *};

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_as_it_began() {
        let nowhere = Database::parse("host=127.0.0.1 port=1 user=nobody dbname=none").unwrap();
        let mut lane = Lane::new(nowhere, &Sessions::default(), Recent::new(0));
        lane.commit(vec![job(1, 1)]).await;
        let told = lane.outage.clone();
        assert_ne!(told, Outage::default());
        assert!(lane.reconnect.is_resting());
        lane.commit(vec![job(1, 1)]).await;
        assert_eq!(lane.outage, told, "not a line for each that comes during a rest");
    }
}
