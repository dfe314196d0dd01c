//! Results from before: published and acknowledged as callers do, so that every row
//! is one that the services made.

use std::time::{Duration, Instant};

use prost_types::Duration as ProtoDuration;
use sluice_proto::results::v1::{
    CreateStorageConfigRequest, SetDefaultStorageConfigRequest, StorageConfig, TestStorageConfigRequest,
};

use super::stage::Stage;
use crate::{
    failure::{Context, Failure},
    text::say,
};

/// The organisation whose results nobody acknowledged.
pub(super) const SHELF: &str = "bench-shelf";
/// Its share of all results: one in so many.
const SHELF_SHARE: u64 = 10;
/// About how many are published and acknowledged per second on two cores.
const PER_SECOND: u64 = 18_000;
/// Larger than in what is measured: it is to be over soon.
const BATCH: usize = 500;

/// Publishes `results` observations; nine in ten are acknowledged.
pub(super) async fn fill(stage: &Stage, results: u64) -> Result<(), Failure> {
    let minutes = results.div_ceil(PER_SECOND).div_ceil(60);
    say!("Publishing {results} observations first: {minutes} minutes or more.");
    let began = Instant::now();
    let mut bench = stage.bench.clone();
    bench.shape.batch = BATCH;
    bench.run = rand::random();
    let waiting = results / SHELF_SHARE;
    bench.fill(results - waiting, true, tell).await?;
    bench.shape.organisations = vec![SHELF.into()];
    bench.put_definitions().await?;
    bench.fill(waiting, false, tell).await?;
    stage.settle().await?;
    for client in [&stage.ingest, &stage.results] {
        client.batch_execute(include_str!("sql/tidy.sql")).await.context("VACUUM")?;
    }
    stage.results.batch_execute("CHECKPOINT").await.context("CHECKPOINT")?;
    say!("{results} results are there, after {} s.", began.elapsed().as_secs());
    Ok(())
}

fn tell(so_far: u64, all: u64, took: Duration) {
    say!("{so_far} of {all} published after {} s", took.as_secs());
}

/// Keeps the data of every organisation for a short time only.
pub(super) async fn keep_briefly(stage: &Stage, retention: &ProtoDuration) -> Result<(), Failure> {
    let mut client = stage.bench.target.storage()?;
    for organisation in &stage.bench.shape.organisations {
        let config = StorageConfig {
            organisation: organisation.clone(),
            url: "db://results".into(),
            managed: true,
            retention: Some(*retention),
            ..StorageConfig::default()
        };
        let request = CreateStorageConfigRequest { storage_config: Some(config) };
        let made = client.create_storage_config(request).await?.into_inner().storage_config;
        let id = made.map(|config| config.id).unwrap_or_default();
        let organisation = organisation.clone();
        let probe = TestStorageConfigRequest { organisation: organisation.clone(), id: id.clone() };
        client.test_storage_config(probe).await?;
        client.set_default_storage_config(SetDefaultStorageConfigRequest { organisation, id }).await?;
    }
    Ok(())
}
