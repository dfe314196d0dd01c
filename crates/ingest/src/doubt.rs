//! Finding out how a transaction ended whose session broke while it committed.
//!
//! `pg_xact_status` alone would not do: after a crash the server may give the
//! number of a lost transaction to another one, and then says `committed` of
//! that. So `committed` is believed only together with rows that nobody else
//! could have written.
//!
//! Of one that passed the gate in one trip no number is known. Its session's row tells:
//! deleting it waits for the transaction's end, and lets none begin later. Then what it
//! wrote is there, or it never will be.

use std::time::Duration;

use sluice_service::{
    backoff::Backoff,
    postgres::{Database, is_unknown_transaction},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::{Client, Error as PgError};
use uuid::Uuid;

use crate::{
    gate::error::{Doubt, Who},
    sessions,
};

/// How long callers wait for the truth before they are told that it is unknown.
const DEADLINE: Duration = Duration::from_secs(5);
const ASK_AGAIN_MIN: Duration = Duration::from_millis(50);
const ASK_AGAIN_MAX: Duration = Duration::from_millis(500);

sluice_service::label! {
    /// How a transaction ended.
    pub enum Ended {
        /// It was committed: the decisions hold.
        Committed = "committed",
        /// Nothing was kept.
        RolledBack = "rolled_back",
        /// Not to be found out in time.
        Unknown = "unknown",
    }
}

/// Asks on fresh connections until the transaction is no longer in progress.
pub async fn resolve(database: &Database, doubt: &Doubt) -> Ended {
    let deadline = Instant::now() + DEADLINE;
    let mut backoff = Backoff::new(ASK_AGAIN_MIN, ASK_AGAIN_MAX);
    loop {
        match timeout_at(deadline, ask(database, doubt)).await {
            Err(_) => break,
            Ok(Ok(Some(ended))) => {
                tracing::info!(who = ?doubt.who, ?ended, "a commit in doubt was resolved");
                return ended;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a commit in doubt is not resolved yet"),
        }
        sleep(backoff.failed()).await;
    }
    tracing::error!(who = ?doubt.who, "a commit in doubt could not be resolved");
    Ended::Unknown
}

/// `None`: still in progress.
async fn ask(database: &Database, doubt: &Doubt) -> Result<Option<Ended>, PgError> {
    let mut client = database.connect(sessions::GATE).await?;
    match &doubt.who {
        Who::Transaction(xid) => ask_for_transaction(&client, xid, doubt).await,
        Who::Session(id) => ask_for_session(&mut client, *id, doubt).await.map(Some),
    }
}

async fn ask_for_session(client: &mut Client, id: Uuid, doubt: &Doubt) -> Result<Ended, PgError> {
    let transaction = client.transaction().await?;
    let ended = transaction.execute(include_str!("sql/end_gate_session.sql"), &[&id]).await?;
    let evidence = has_evidence(transaction.client(), doubt).await?;
    transaction.commit().await?;
    Ok(match (evidence, ended) {
        (true, _) => Ended::Committed,
        (false, 1..) => Ended::RolledBack,
        // Its outbox rows may have been taken over since, and handed on.
        (false, 0) => Ended::Unknown,
    })
}

async fn ask_for_transaction(client: &Client, xid: &str, doubt: &Doubt) -> Result<Option<Ended>, PgError> {
    let status = client.query_one(include_str!("sql/transaction_status.sql"), &[&xid]).await;
    let status: Option<String> = match status {
        Ok(row) => row.get(0),
        // The server has never heard of the number: it lost it in a crash, or
        // this is another server, on which the row may or may not appear.
        Err(error) if is_unknown_transaction(&error) => return Ok(Some(Ended::Unknown)),
        Err(error) => return Err(error),
    };
    match status.as_deref() {
        Some("in progress") => Ok(None),
        Some("aborted") => Ok(Some(Ended::RolledBack)),
        Some("committed") if has_evidence(client, doubt).await? => Ok(Some(Ended::Committed)),
        _ => Ok(Some(Ended::Unknown)),
    }
}

async fn has_evidence(client: &Client, doubt: &Doubt) -> Result<bool, PgError> {
    let (keys, ids): (Vec<Uuid>, Vec<Uuid>) = doubt.markers.iter().copied().unzip();
    let outbox_ids: Vec<Uuid> = doubt.outbox.iter().map(|row| row.id).collect();
    if outbox_ids.is_empty() && keys.is_empty() {
        return Ok(false);
    }
    let row = client.query_one(include_str!("sql/commit_evidence.sql"), &[&outbox_ids, &keys, &ids]).await?;
    Ok(row.get("found"))
}
