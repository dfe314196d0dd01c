//! Publishers: single calls, streams and files. Each sends again what it doesn't know
//! the end of, to whichever replica, and sometimes what it knows.

use std::time::Duration;

use futures_util::StreamExt as _;
use sluice::connection::Clients;
use sluice_proto::ingest::v1::{
    FileMetadata, Observation, PublicationOutcome, PublishObservationsRequest, PublishObservationsResponse,
};
use sluice_tests::history::{Answer, Did, Micros, Outcome, Sent, Told, Via};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Streaming};

use super::{
    batches::{Batch, Batches},
    progress::Served,
    random::Random,
    recorder::{Recorder, told},
};
use crate::files::support::{chunk_message, metadata_message};

/// How often something is sent again at most.
const TRIES_MAX: usize = 5;
/// Requests under way in one stream.
const PIPELINED_MAX: usize = 3;
const CHUNK_BYTES: usize = 32 * 1024;

pub struct Publisher {
    pub batches: Batches,
    /// Of when and whereto, and of who gives up; never of what is sent.
    pub random: Random,
    pub recorder: Recorder,
    pub served: Served,
    /// Of each replica.
    pub clients: [Clients; 2],
    pub ending: CancellationToken,
}

impl Publisher {
    /// A replica and its clients.
    fn any(&mut self) -> (usize, Clients) {
        let replica = self.random.below(2);
        (replica, self.clients[replica].clone())
    }

    fn record(&self, (via, replica): (Via, usize), began: Micros, batch: &Batch, told: Answer<Vec<Told>>) {
        let sent = batch.items.iter().map(|(sent, _)| sent.clone()).collect();
        let fresh = told.said().into_iter().flatten().filter(|told| told.outcome == Outcome::Success);
        self.served.add(replica, fresh.count());
        let did = Did::Publish { via, request_id: batch.request_id.clone(), sent, told };
        self.recorder.call(&self.batches.process, self.batches.organisation, began, did);
    }

    /// Publishes by single calls until told to end.
    pub async fn single_calls(mut self) {
        while !self.ending.is_cancelled() {
            let mut batch = self.batches.next();
            for _ in 0..TRIES_MAX {
                if batch.items.is_empty() {
                    break;
                }
                let told = self.publish(&batch).await;
                if told.said().is_none() {
                    // A replica that is gone says so at once; asking it all the time
                    // proves nothing more.
                    self.breathe().await;
                }
                batch = batch.undecided(&told);
                self.breathe().await;
            }
        }
    }

    async fn breathe(&mut self) {
        tokio::time::sleep(self.random.millis(60)).await;
    }

    async fn publish(&mut self, batch: &Batch) -> Answer<Vec<Told>> {
        let mut request = Request::new(batch.request());
        // Some callers leave before they can be answered.
        if self.random.percent(4) {
            request.set_timeout(Duration::from_millis(1 + self.random.below(8) as u64));
        }
        let (replica, Clients { mut ingest, .. }) = self.any();
        let began = self.recorder.now();
        let answer = self.recorder.answer(ingest.publish_observations(request)).await;
        let told = outcomes(answer, |answer| answer.into_inner().observations);
        self.record((Via::Batch, replica), began, batch, told.clone());
        told
    }

    /// Publishes over long-lived streams until told to end.
    pub async fn streams(mut self) {
        let mut left: Vec<Batch> = Vec::new();
        while !self.ending.is_cancelled() {
            let (replica, Clients { mut ingest, .. }) = self.any();
            let (requests, sent) = mpsc::channel(PIPELINED_MAX);
            let opening = ingest.stream_observations(ReceiverStream::new(sent));
            // It is answered at once, before the first request.
            let Answer::Said(answers) = self.recorder.answer(opening).await else {
                self.breathe().await;
                continue;
            };
            let mut stream = (requests, answers.into_inner());
            while !self.ending.is_cancelled() {
                let (goes_on, undecided) =
                    self.stream_some(replica, &mut stream, std::mem::take(&mut left)).await;
                left = undecided;
                self.breathe().await;
                if !goes_on {
                    break;
                }
            }
        }
    }

    /// Sends a few requests before it reads their answers. Whether the stream goes
    /// on, and what has to be sent again.
    async fn stream_some(
        &mut self,
        replica: usize,
        (requests, answers): &mut (
            mpsc::Sender<PublishObservationsRequest>,
            Streaming<PublishObservationsResponse>,
        ),
        left: Vec<Batch>,
    ) -> (bool, Vec<Batch>) {
        let count = 1 + self.random.below(PIPELINED_MAX);
        let mut batches: Vec<_> = left.into_iter().filter(|batch| !batch.items.is_empty()).collect();
        while batches.len() < count {
            batches.push(self.batches.next());
        }
        let later = batches.split_off(count);
        let mut began = Vec::new();
        for batch in &batches {
            began.push(self.recorder.now());
            drop(requests.send(batch.request()).await);
        }
        let mut goes_on = true;
        let mut undecided = later;
        for (batch, began) in batches.iter().zip(began) {
            let answer = if goes_on {
                let next = async {
                    let ended = || tonic::Status::cancelled("the stream ended");
                    answers.message().await?.ok_or_else(ended)
                };
                self.recorder.answer(next).await
            } else {
                Answer::Unknown("the stream broke".into())
            };
            goes_on = answer.said().is_some();
            let told = outcomes(answer, |answer| {
                assert_eq!(answer.status, None, "no request is refused");
                answer.observations
            });
            self.record((Via::Stream, replica), began, batch, told.clone());
            undecided.push(batch.undecided(&told));
        }
        // What was sent too often, nobody waits for.
        undecided.truncate(2 * PIPELINED_MAX);
        (goes_on, undecided)
    }

    /// Publishes files until told to end.
    pub async fn files(mut self) {
        while !self.ending.is_cancelled() {
            let (sent, bytes, again) = self.batches.next_file();
            for _ in 0..TRIES_MAX {
                let told = self.file(&sent, &bytes).await;
                self.breathe().await;
                let decided = !matches!(told, None | Some(Outcome::NotKept | Outcome::OutcomeUnknown));
                if decided && !again {
                    break;
                }
            }
        }
    }

    async fn file(&mut self, sent: &Sent, bytes: &[u8]) -> Option<Outcome> {
        let metadata = FileMetadata {
            definition: sent.definition.clone(),
            chkpt: sent.chkpt.clone(),
            identifier: sent.nonce.clone(),
            poll: sent.labels.poll.clone(),
            task: sent.labels.task.clone(),
            r#type: sent.labels.r#type.clone(),
            checksum: sent.data.md5.clone(),
            ..FileMetadata::default()
        };
        let chunks = bytes.chunks(CHUNK_BYTES).map(|chunk| chunk_message(chunk.to_vec()));
        let mut messages: Vec<_> = [metadata_message(metadata)].into_iter().chain(chunks).collect();
        // Some break off: their last chunk never comes, and neither does an end.
        let breaks_off = self.random.percent(15);
        if breaks_off {
            messages.pop();
        }
        let leaves_after = self.random.millis(200);
        let ends = futures_util::stream::iter(messages);
        let (replica, Clients { mut ingest, .. }) = self.any();
        let began = self.recorder.now();
        let told = if breaks_off {
            let call = ingest.publish_file(ends.chain(futures_util::stream::pending()));
            match tokio::time::timeout(leaves_after, call).await {
                // Certain without the bytes.
                Ok(Ok(answer)) => Answer::Said(vec![told(&answer.into_inner().outcome.unwrap())]),
                // Nothing is kept of it; but that it is throttled may be known before
                // its end, and decided.
                _ if sent.definition == "plain" => Answer::Said(vec![told(&never_sent())]),
                _ => Answer::Unknown("broken off".into()),
            }
        } else {
            let answer = self.recorder.answer(ingest.publish_file(ends)).await;
            outcomes(answer, |answer| vec![answer.into_inner().outcome.unwrap()])
        };
        let batch = Batch { request_id: String::new(), items: vec![(sent.clone(), Observation::default())] };
        self.record((Via::File, replica), began, &batch, told.clone());
        told.said().map(|told| told[0].outcome)
    }
}

/// What is known of a file of which some bytes were never sent, though nobody said so: it
/// leaves nothing.
fn never_sent() -> PublicationOutcome {
    let mut outcome = PublicationOutcome { reason: "NOT_KEPT".into(), ..PublicationOutcome::default() };
    outcome.set_outcome(sluice_proto::ingest::v1::Outcome::Retry);
    outcome
}

fn outcomes<T>(answer: Answer<T>, of: impl FnOnce(T) -> Vec<PublicationOutcome>) -> Answer<Vec<Told>> {
    match answer {
        Answer::Said(answer) => Answer::Said(of(answer).iter().map(told).collect()),
        Answer::Unknown(why) => Answer::Unknown(why),
    }
}
