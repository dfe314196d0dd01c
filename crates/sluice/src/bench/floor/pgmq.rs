//! pgmq as the floor of what passes no gate: send, read, delete, each in batches.
//! Its SQL comes from a file: the one named, or the one in the crate `pgmq`, which
//! cargo fetches and verifies like any other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sluice_proto::ingest::v1::{PublishObservationsRequest, observation::Content};
use tokio_postgres::{Client, Statement};

use super::{Floor, IDLE, floor_sql};
use crate::{
    bench::{
        consume::Consumed,
        pace::{Flow, Schedule},
    },
    failure::{Context, Failure},
};

/// The crate and the file in it.
const CRATE: &str = "pgmq";
const VERSION: &str = "0.34.0-alpha.7";
const FILE: &str = "src/install/embedded/sql/pgmq.sql";

/// pgmq's SQL, if it is to be had.
pub(in crate::bench) fn sql(file: Option<&Path>, may_fetch: bool) -> Result<String, Failure> {
    if let Some(file) = file {
        return fs::read_to_string(file).context(file.display());
    }
    if let Some(found) = in_registry() {
        return fs::read_to_string(&found).context(found.display());
    }
    if may_fetch {
        // Asking about a crate fetches it.
        let spec = format!("{CRATE}@{VERSION}");
        let mut asking = Command::new("cargo");
        asking.args(["info", "--quiet", &spec]).current_dir(std::env::temp_dir());
        drop(asking.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
        if let Some(found) = in_registry() {
            return fs::read_to_string(&found).context(found.display());
        }
    }
    Err(Failure::unusable(format!(
        "s3 needs pgmq's SQL: `cargo info {CRATE}@{VERSION}` fetches it, or give --pgmq-sql FILE"
    )))
}

fn in_registry() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    let file = format!("{CRATE}-{VERSION}/{FILE}");
    registries.flatten().map(|registry| registry.path().join(&file)).find(|path| path.is_file())
}

/// An organisation's queue.
pub(super) fn queue(organisation: &str) -> String {
    organisation.replace('-', "_")
}

/// One connection that sends.
pub(super) struct Sender {
    client: Client,
    send: Statement,
}

impl Sender {
    pub(super) async fn open(floor: &Floor) -> Result<Self, Failure> {
        let client = floor.connect().await?;
        let send = client.prepare(floor_sql!("pgmq_send")).await.context("pgmq")?;
        Ok(Self { client, send })
    }

    /// One commit; how many were accepted.
    pub(super) async fn send(&self, request: PublishObservationsRequest) -> Result<u64, Failure> {
        let queue = queue(&request.organisation);
        let contents = request.observations.into_iter().filter_map(|one| one.content);
        let texts: Vec<String> = contents
            .filter_map(|content| match content {
                Content::Data(data) => String::from_utf8(Vec::from(data)).ok(),
                _ => None,
            })
            .collect();
        let rows = self.client.query(&self.send, &[&queue, &texts]).await.context("pgmq, sending")?;
        Ok(rows.len() as u64)
    }
}

/// One connection that reads and deletes, from some queues in turn.
pub(super) struct Consumer {
    client: Client,
    read: Statement,
    delete: Statement,
    queues: Vec<String>,
    batch: i32,
}

impl Consumer {
    pub(super) async fn open(floor: &Floor, organisations: Vec<String>) -> Result<Self, Failure> {
        let client = floor.connect().await?;
        let read = client.prepare(floor_sql!("pgmq_read")).await.context("pgmq")?;
        let delete = client.prepare(floor_sql!("pgmq_delete")).await.context("pgmq")?;
        let queues = organisations.iter().map(|organisation| queue(organisation)).collect();
        let batch = i32::try_from(floor.batch).unwrap_or(i32::MAX);
        Ok(Self { client, read, delete, queues, batch })
    }

    pub(super) async fn run(self, schedule: Schedule, flow: &Flow) -> Result<Consumed, Failure> {
        let mut consumed = Consumed::default();
        while !flow.is_stopped() {
            let mut idle = true;
            for queue in &self.queues {
                let rows = self.client.query(&self.read, &[queue, &self.batch]).await;
                let rows = rows.context("pgmq, reading")?;
                let read_at = schedule.start.elapsed();
                if rows.is_empty() {
                    continue;
                }
                idle = false;
                for row in &rows {
                    let text: &str = row.get("message");
                    consumed.read(&schedule, text.as_bytes(), !text.is_empty(), read_at);
                }
                let ids: Vec<i64> = rows.iter().map(|row| row.get("msg_id")).collect();
                let deleted = self.client.query(&self.delete, &[queue, &ids]).await;
                let deleted = deleted.context("pgmq, deleting")?.len() as u64;
                flow.acknowledge(deleted);
                if schedule.counts() {
                    consumed.acknowledged += deleted;
                }
            }
            if idle {
                tokio::time::sleep(IDLE).await;
            }
        }
        Ok(consumed)
    }
}
