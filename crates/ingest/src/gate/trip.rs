//! Statements that are sent together: one round trip to the database.

use std::time::Duration;

use tokio_postgres::{Client, Error as PgError, Row, Statement, types::ToSql};

/// How long one round trip may take before the session is given up.
pub const TRIP_TIMEOUT: Duration = Duration::from_secs(6);

pub type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// One statement of a round trip.
enum Step<'a> {
    /// Transaction control, as text.
    Control(&'static str),
    /// What is asked for are rows.
    Query(&'a Statement, Params<'a>),
    /// What is asked for is how many rows it made.
    Insert(&'a Statement, Params<'a>),
}

/// What one statement answered.
#[derive(Default)]
pub struct Answer {
    pub rows: Vec<Row>,
    /// Of an insert: how many rows it made.
    pub inserted: u64,
}

/// Statements of one round trip, in order.
#[derive(Default)]
pub struct Trip<'a>(Vec<Step<'a>>);

impl<'a> Trip<'a> {
    /// Adds transaction control.
    pub fn control(&mut self, sql: &'static str) {
        self.0.push(Step::Control(sql));
    }

    /// Adds a statement and says which answer will be its.
    pub fn add(&mut self, statement: &'a Statement, params: Params<'a>) -> usize {
        self.push(Step::Query(statement, params))
    }

    /// Adds an insert whose rows are counted, and says which answer will be its.
    pub fn insert(&mut self, statement: &'a Statement, params: Params<'a>) -> usize {
        self.push(Step::Insert(statement, params))
    }

    fn push(&mut self, step: Step<'a>) -> usize {
        self.0.push(step);
        self.0.len() - 1
    }

    /// Sends everything at once and waits for every answer. `None`: it took too
    /// long, and what became of it is not known.
    pub async fn run(&self, client: &Client) -> Option<Vec<Result<Answer, PgError>>> {
        // `join_all` polls up to 30 futures in order, so what they send on their
        // first poll is sent in order; a trip stays well below.
        let answers = futures_util::future::join_all(self.0.iter().map(|step| step.run(client)));
        tokio::time::timeout(TRIP_TIMEOUT, answers).await.ok()
    }
}

impl Step<'_> {
    async fn run(&self, client: &Client) -> Result<Answer, PgError> {
        match self {
            Self::Control(sql) => client.batch_execute(sql).await.map(|()| Answer::default()),
            Self::Query(statement, params) => {
                client.query(*statement, params).await.map(|rows| Answer { rows, inserted: 0 })
            }
            Self::Insert(statement, params) => {
                client.execute(*statement, params).await.map(|inserted| Answer { rows: vec![], inserted })
            }
        }
    }
}
