//! Acknowledging: batch by batch, since that is how the database keeps what is AVAILABLE.

use std::collections::BTreeMap;

use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join4;
use sluice_service::OrganisationId;
use tokio_postgres::{Error as PgError, Statement, types::ToSql};
use uuid::Uuid;

use crate::{recent::Recent, slices::Slices, time::Micros};

/// What moves results, prepared once for what is sent together.
pub const ACKNOWLEDGE: &str = include_str!("../sql/acknowledge.sql");
const BATCHES_OF: &str = include_str!("../sql/batches_of.sql");

/// What is to be acknowledged: batches, each with a part of the ids. See the statement.
#[derive(Debug, Default)]
pub struct Asked {
    organisation: String,
    ids: Vec<Uuid>,
    dates: Vec<Micros>,
    polls: Vec<String>,
    parts: Slices,
}

impl Asked {
    /// Ids with their batches, from memory or from the database. What is unknown is
    /// left out.
    pub async fn of(
        client: &ClientWrapper,
        recent: &Recent,
        organisation: &OrganisationId,
        ids: &[Uuid],
    ) -> Result<Self, PgError> {
        let (known, unknown) = recent.batches(organisation, ids);
        let mut batches: BTreeMap<(Micros, String), Vec<Uuid>> =
            known.into_iter().map(|batch| ((batch.date_created, batch.poll), batch.ids)).collect();
        if !unknown.is_empty() {
            let statement = client.prepare_cached(BATCHES_OF).await?;
            for row in client.query(&statement, &[&organisation.as_str(), &unknown]).await? {
                let batch = (row.try_get("date_created")?, row.try_get("poll")?);
                batches.entry(batch).or_default().push(row.try_get("id")?);
            }
        }
        let mut asked = Self { organisation: organisation.as_str().into(), ..Self::default() };
        for ((date, poll), mut ids) in batches {
            ids.sort_unstable();
            asked.parts.push(ids.len());
            asked.ids.append(&mut ids);
            asked.dates.push(date);
            asked.polls.push(poll);
        }
        Ok(asked)
    }
}

/// What was moved; `None` if another call was at the same batches at this moment.
pub async fn acknowledge(
    client: &ClientWrapper,
    statement: &Statement,
    asked: &Asked,
) -> Result<Option<Vec<Uuid>>, PgError> {
    let Asked { organisation, ids, dates, polls, parts } = asked;
    let params: [&(dyn ToSql + Sync); 6] = [organisation, ids, dates, polls, &parts.firsts, &parts.lasts];
    let rows = client.query(statement, &params).await?;
    let mut moved = Vec::with_capacity(ids.len());
    for batch in &rows {
        match batch.try_get::<_, Option<Vec<Uuid>>>(0)? {
            Some(ids) => moved.extend(ids),
            None => return Ok(None),
        }
    }
    Ok(Some(moved))
}

/// Acknowledges what other calls are at, too: the first try waits for them and locks,
/// the second does it. One round trip.
pub async fn insist(
    client: &ClientWrapper,
    statement: &Statement,
    asked: &Asked,
) -> Result<Vec<Uuid>, PgError> {
    // Polled in this order, so sent in this order. If one fails, COMMIT rolls back.
    let (_, first, second, _) = try_join4(
        client.batch_execute("BEGIN"),
        acknowledge(client, statement, asked),
        acknowledge(client, statement, asked),
        client.batch_execute("COMMIT"),
    )
    .await?;
    Ok([first, second].into_iter().flatten().flatten().collect())
}
