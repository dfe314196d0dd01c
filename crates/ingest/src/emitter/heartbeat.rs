//! Says that this instance is alive. Others take over what a silent one has and end its
//! gate sessions, so this waits for nothing else: it is a task and a session of its own.

use std::time::Duration;

use deadpool_postgres::Pool;
use sluice_service::{
    backoff::Rounds,
    postgres::{Session, execute},
};
use uuid::Uuid;

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// While the database is away.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(4);

/// Its session. A beat that a crash undoes is followed by the next.
pub const SESSION: Session = Session {
    application_name: "sluice-ingest-heartbeat",
    role: None,
    parameters: &[
        ("synchronous_commit", "off"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "4s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ],
};

/// Beats, on a pool of one session.
pub async fn run(pool: Pool, instance: Uuid) {
    let mut rounds = Rounds::new("the heartbeat", BEAT_EVERY, BEAT_EVERY_MAX);
    loop {
        let done = execute(&pool, include_str!("../sql/heartbeat.sql"), &[&instance]).await;
        tokio::time::sleep(rounds.ended(&done)).await;
    }
}
