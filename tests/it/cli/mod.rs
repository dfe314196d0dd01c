//! The command `sluice`, as people and scripts run it: processes, files, exit
//! codes.

mod answers;
mod bench;
mod commands;
mod dev;
mod download;
mod file;
mod publish;
mod storage;

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::Value;
use sluice_proto::ingest::v1::ingest_service_server::{IngestService, IngestServiceServer};
use sluice_tests::{Pair, Tenant, program, scratch};
use tokio::{net::TcpListener, process::Command};
use tokio_stream::wrappers::TcpListenerStream;

/// The command with nothing from this machine's environment that says whom to
/// talk to.
pub fn sluice(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["INGEST", "RESULTS", "TOKEN", "ORGANISATION", "READY_FILE"] {
        command.env_remove(format!("SLUICE_{name}"));
    }
    command.env("SLUICE_STATE_DIR", state_dir()).kill_on_drop(true);
    command
}

/// The same, as a tenant of a pair.
pub fn sluice_as(pair: &Pair, tenant: Tenant, args: &[&str]) -> Command {
    let mut command = sluice(args);
    command.env("SLUICE_INGEST", pair.ingest[0].url()).env("SLUICE_RESULTS", pair.results[0].url());
    command.env("SLUICE_TOKEN", pair.token(tenant));
    if tenant == Tenant::Acme {
        command.env("SLUICE_ORGANISATION", "acme");
    }
    command
}

/// Serves ingest as a test has it; where.
async fn serve_ingest(service: impl IngestService) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(IngestServiceServer::new(service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Runs it to its end.
pub async fn run(mut command: Command) -> Output {
    command.output().await.unwrap()
}

/// Runs it to its end, which must be a good one, and returns what it printed.
pub async fn run_well(command: Command) -> String {
    let output = run(command).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// JSON lines.
pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How many lines of `publish --json` ended so.
pub fn count(lines: &[Value], outcome: &str) -> usize {
    lines.iter().filter(|line| line["outcome"] == outcome).count()
}

/// A state folder that no test writes to.
fn state_dir() -> PathBuf {
    scratch("state")
}
