//! What `deploy/` says of the services, held against them: metrics of alerts and
//! dashboard, roles of the databases, commands of the runbook.

mod databases;
mod metrics;
mod promql;
mod runbook;
