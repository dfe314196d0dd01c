//! A stop that nobody notices: unready at once, requests taken for a while still,
//! streams ended when they are answered, and a deadline that holds.

use std::time::Duration;

use sluice::connection::is_serving;
use sluice_proto::ingest::v1::{Outcome, PublishFileRequest};
use sluice_tests::{Service, Tenant, eventually};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{ingest::streams::Stream, support::*};

/// Nothing here takes longer, on a slow machine neither.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn requests_are_taken_after_it_is_said_that_no_more_will_be() {
    let mut pair = builder().processes().flag(Service::Ingest, "shutdown-wait-seconds", "5").start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let url = pair.ingest[0].url();
    let mut stream = Stream::open(&acme).await;
    stream.send(request(vec![json("plain", "1")])).await;
    assert_eq!(stream.outcomes().await, [Outcome::Success]);

    pair.ingest[0].terminate();
    eventually("not serving", || async { (!is_serving(&url).await).then_some(()) }).await;
    // On connections that are open and on new ones, and streams go on.
    assert_eq!(publish_one(&acme, json("plain", "2")).await.outcome(), Outcome::Success);
    let new = pair.clients(Tenant::Acme);
    assert_eq!(publish_one(&new, json("plain", "3")).await.outcome(), Outcome::Success);
    stream.send(request(vec![json("plain", "4")])).await;
    assert_eq!(stream.outcomes().await, [Outcome::Success]);
    // In the end they are told to go elsewhere.
    let end = tokio::time::timeout(PATIENCE, stream.answer()).await.expect("the end").unwrap_err();
    let reason = end.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!((end.code(), reason.as_str()), (Code::Unavailable, "STREAM_ENDING"));
    // A second signal changes nothing: it still ends well.
    tokio::time::timeout(PATIENCE, pair.ingest[0].stop()).await.expect("a clean stop");
}

#[tokio::test]
async fn who_never_ends_is_cut_off_at_the_deadline() {
    let mut pair =
        builder().processes().flag(Service::Ingest, "shutdown-deadline-seconds", "2").start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let mut client = acme.ingest.clone();
    // A file whose bytes never come.
    let stuck = tokio::spawn(async move {
        client.publish_file(tokio_stream::pending::<PublishFileRequest>().map(|request| request)).await
    });
    let mut stream = Stream::open(&acme).await;
    stream.send(request(vec![json("plain", "1")])).await;
    assert_eq!(stream.outcomes().await, [Outcome::Success]);
    assert!(!stuck.is_finished());
    tokio::time::timeout(PATIENCE, pair.ingest[0].stop()).await.expect("a clean stop");
    assert!(stuck.await.unwrap().is_err());
}
