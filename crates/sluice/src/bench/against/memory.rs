//! S9: how much memory the services hold.

use std::time::Duration;

use sluice_proto::ingest::v1::PublishObservationsRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    outcome::{Bound, Figure},
    stage::Stage,
    stats::Spread,
};
use crate::{
    bench::usage::{peak_mib, resident_mib},
    failure::Failure,
};

/// Streams that are open and idle.
pub(super) const STREAMS: usize = 1000;
/// So many of them share a connection.
const STREAMS_PER_CONNECTION: usize = 125;
/// Each service has to stay below.
const MIB_MAX: f64 = 128.0;
/// How long a stream may take to be open.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// The figures; what S2 took is read before the streams come.
pub(super) async fn measure(stage: &Stage) -> Result<Vec<Figure>, Failure> {
    let pids = stage.pids();
    let under_load = [("ingest, peak", peak_mib(pids.ingest)), ("results, peak", peak_mib(pids.results))];
    let (mut senders, mut answers) = (Vec::new(), Vec::new());
    let mut client = stage.bench.target.ingest()?;
    for number in 0..STREAMS {
        if number % STREAMS_PER_CONNECTION == 0 {
            client = stage.bench.target.ingest()?;
        }
        let (sender, requests) = mpsc::channel::<PublishObservationsRequest>(1);
        let opening = client.stream_observations(ReceiverStream::new(requests));
        let opened = tokio::time::timeout(OPEN_DEADLINE, opening).await;
        answers.push(opened.map_err(|_| Failure::new("a stream does not open"))??);
        senders.push(sender);
    }
    let with_streams = [
        ("ingest, with streams", resident_mib(pids.ingest)),
        ("results, with streams", resident_mib(pids.results)),
    ];
    drop((senders, answers));
    let all = under_load.into_iter().chain(with_streams);
    let figure = |(name, mib): (&'static str, Option<f64>)| {
        let value = Spread::of(mib)?;
        Some(Figure { name, unit: " MiB", value, bound: Bound::Below(MIB_MAX) })
    };
    Ok(all.filter_map(figure).collect())
}
