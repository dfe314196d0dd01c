//! `sluice dev`: the whole pair on this machine, from nothing, until it is told
//! to stop. What it prints is all a newcomer needs to call it.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use sluice_service::shutdown;

use crate::{
    failure::{Context, Failure},
    private::{Options, PrivatePair},
    ready::{self, Ready},
    text::{out, say},
};

/// Where the pair lives.
#[derive(Debug, clap::Args)]
#[command(after_help = "The services see this command's environment: other settings are taken from there, \
such as SLUICE_STORAGE_ENDPOINTS=http://127.0.0.1:9000, the endpoints of object stores that storage configs \
may name. Storage of type local lies in the data directory's folder `storage`.")]
pub struct DevArgs {
    /// Keep databases, tokens and logs here [default: `dev` in /var/lib/sluice
    /// for root, else in $XDG_STATE_HOME/sluice or ~/.local/state/sluice].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where ingest listens; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7401")]
    ingest_addr: SocketAddr,
    /// Where results listens; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7402")]
    results_addr: SocketAddr,
    /// Write this file when the pair serves [default: `ready.json` in the data
    /// directory].
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Never install PostgreSQL's server programs.
    #[arg(long)]
    no_install: bool,
}

/// Runs the pair until SIGTERM or SIGINT.
pub(crate) async fn run(args: DevArgs) -> Result<ExitCode, Failure> {
    let stop = shutdown::on_signal().context("signals")?;
    let data_dir = args.data_dir.unwrap_or_else(|| ready::state_dir().join("dev"));
    let ready_file = args.ready_file.unwrap_or_else(|| data_dir.join("ready.json"));
    let options = Options {
        data_dir: data_dir.clone(),
        ingest: args.ingest_addr,
        results: args.results_addr,
        may_install: !args.no_install,
        temporary: false,
        // What an earlier, killed run left would tell of a pair that is not there.
        ready_file: Some(ready_file.clone()),
    };
    let pair = tokio::select! {
        pair = PrivatePair::start(options) => pair?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let mut now = pair.ready();
    now.write(&ready_file)?;
    if let Err(failure) = ready::announce(&ready_file) {
        say!("sluice: other commands will need --ready-file: {failure}");
    }
    print_welcome(&now, &data_dir, &ready_file);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = pair.changed(now.pids) => {}
        }
        now = pair.ready();
        if let Err(failure) = now.write(&ready_file) {
            say!("sluice: {failure}");
        }
    }
    let removed = ready::remove(&ready_file);
    ready::withdraw(&ready_file);
    pair.stop().await;
    removed?;
    drop(out!("Stopped. The data is kept in {}.", data_dir.display()));
    Ok(ExitCode::SUCCESS)
}

fn print_welcome(ready: &Ready, data_dir: &std::path::Path, ready_file: &std::path::Path) {
    let sluice = crate::invocation();
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    drop(out!(
        "Sluice is running: ingest on {}, results on {}. Ctrl-C stops it.
Data and logs are in {}; {} says where everything is.

Make a rule, publish to it, look at what was kept:
  {sluice} definitions put --path demo/hello --unique 1d
  echo '{{\"path\":\"demo/hello\",\"keys\":{{\"greeting\":\"hello\"}}}}' | {sluice} publish -
  {sluice} results list

The same from any gRPC client:
  grpcurl -plaintext -H 'authorization: Bearer {}' \\
    -d '{{\"observations\":[{{\"definition\":\"demo/hello\",\"body\":{{\"keys\":{{\"greeting\":\"again\"}}}}}}]}}' \\
    {} sluice.ingest.v1.IngestService/PublishObservations
  grpcurl -plaintext -H 'authorization: Bearer {}' \\
    {} sluice.results.v1.ResultsService/ListResults",
        ready.ingest,
        ready.results,
        data_dir.display(),
        ready_file.display(),
        ready.token,
        address(&ready.ingest),
        ready.token,
        address(&ready.results),
    ));
}
