//! How much of the pools of database sessions is in use, read when it is
//! scraped.

use std::fmt;

use deadpool_postgres::Status;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

/// Reads how much of a pool is in use.
pub type ReadStatus = Box<dyn Fn() -> Status + Send + Sync>;

/// Pools by name.
pub(super) struct Pools(pub(super) Vec<(&'static str, ReadStatus)>);

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A metric of a pool: its name, what it is, and where it is found.
type Row = (&'static str, &'static str, fn(&Status) -> usize);

const ROWS: [Row; 4] = [
    ("sluice_pool_sessions_max", "Database sessions the pool may have", |status| status.max_size),
    ("sluice_pool_sessions", "Database sessions the pool has", |status| status.size),
    ("sluice_pool_sessions_idle", "Database sessions nobody uses now", |status| status.available),
    ("sluice_pool_waiting", "Tasks that wait for a database session", |status| status.waiting),
];

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.0.iter().map(|(name, read)| ([("pool", *name)], read())).collect();
        for (name, help, value) in ROWS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, status) in &statuses {
                let value = ConstGauge::new(i64::try_from(value(status)).unwrap_or(i64::MAX));
                value.encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}
