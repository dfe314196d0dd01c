//! The floor's publishers: each batch is one statement and one commit.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use sluice_proto::ingest::v1::{PublishObservationsRequest, observation::Content};
use tokio_postgres::{Client, Statement, types::ToSql};
use uuid::Uuid;

use super::{Floor, MOVERS, floor_sql};
use crate::failure::{Context, Failure};

/// One connection that publishes.
pub(super) struct Sender {
    client: Client,
    many: Statement,
    one: Statement,
}

/// A batch as the statement takes it: one array per column.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    markers: Vec<Uuid>,
    fingerprints: Vec<i64>,
    keys: Vec<Uuid>,
    definitions: Vec<String>,
    data: Vec<Vec<u8>>,
}

/// 128 bits of a hash over parts, as narrow a key as Sluice's.
fn key(parts: &[&str]) -> Uuid {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Uuid::from_bytes(hasher.finalize().into())
}

fn fingerprint(data: &[u8]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..]: [u8; 16] = Md5::digest(data).into();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Columns {
    fn of(request: PublishObservationsRequest) -> Self {
        let mut columns = Self::default();
        for observation in request.observations {
            let Some(Content::Data(data)) = observation.content else { continue };
            let parts = ["m", &request.organisation, &observation.definition, &observation.chkpt];
            columns.ids.push(Uuid::now_v7());
            columns.markers.push(key(&parts));
            // Every observation has a unique key of its own, named like its marker.
            columns.keys.push(key(&["w", parts[1], parts[2], parts[3]]));
            columns.fingerprints.push(fingerprint(&data));
            columns.definitions.push(observation.definition);
            columns.data.push(Vec::from(data));
        }
        columns
    }
}

/// Which mover an organisation's rows go to.
fn lane(organisation: &str) -> i16 {
    let sum = organisation.bytes().fold(0_usize, |sum, byte| sum * 31 % 1_000_003 + usize::from(byte));
    i16::try_from(sum % MOVERS).unwrap_or(0)
}

impl Sender {
    pub(super) async fn open(floor: &Floor) -> Result<Self, Failure> {
        let client = floor.connect().await?;
        let many = client.prepare(floor_sql!("publish")).await.context("floor")?;
        let one = client.prepare(floor_sql!("publish_one")).await.context("floor")?;
        Ok(Self { client, many, one })
    }

    /// One commit; how many were accepted.
    pub(super) async fn send(&self, request: PublishObservationsRequest) -> Result<u64, Failure> {
        let organisation = request.organisation.clone();
        let (lane, poll) = (lane(&organisation), Uuid::now_v7().to_string());
        let mut columns = Columns::of(request);
        let rows = if columns.ids.len() == 1 {
            let data = Bytes::from(columns.data.remove(0));
            let params: [&(dyn ToSql + Sync); 9] = [
                &columns.ids[0],
                &columns.markers[0],
                &columns.fingerprints[0],
                &columns.keys[0],
                &columns.definitions[0],
                &&data[..],
                &lane,
                &organisation,
                &poll,
            ];
            self.client.query(&self.one, &params).await
        } else {
            let params: [&(dyn ToSql + Sync); 9] = [
                &columns.ids,
                &columns.markers,
                &columns.fingerprints,
                &columns.keys,
                &columns.definitions,
                &columns.data,
                &lane,
                &organisation,
                &poll,
            ];
            self.client.query(&self.many, &params).await
        };
        Ok(rows.context("floor, publishing")?.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_every_part_and_by_where_they_are_cut() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["m", "x"]), key(&["w", "x"]));
        assert_eq!(key(&["m", "x"]), key(&["m", "x"]));
    }

    #[test]
    fn organisations_spread_over_the_movers() {
        let lanes: Vec<i16> = (0..10).map(|n| lane(&format!("bench-{n}"))).collect();
        assert_eq!(lanes.iter().filter(|lane| **lane == 0).count(), 5, "{lanes:?}");
    }
}
