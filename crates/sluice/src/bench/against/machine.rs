//! On what it was measured: without it a figure means nothing.

use std::fs;

use tokio_postgres::Client;

use crate::failure::{Context, Failure};

/// Processor, memory, the server's version and settings.
pub(super) async fn describe(client: &Client) -> Result<String, Failure> {
    let row = client.query_one(include_str!("sql/server.sql"), &[]).await.context("PostgreSQL")?;
    let version: String = row.get(0);
    let version = version.split(" on ").next().unwrap_or_default();
    let settings: String = row.get(1);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let kib: Option<u64> =
        field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
    let memory = kib.map_or(String::new(), |kib| format!(", {} GiB of memory", kib / 1024 / 1024));
    Ok(format!("{cores} cores ({processor}){memory}; {version}: {settings}"))
}
