//! Consumers: they list, download and acknowledge, in competition with each other,
//! and try their hands at what belongs to others.

use sluice::connection::Clients;
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, DownloadResultRequest, GetResultRequest,
    ListResultsRequest, list_results_request::Order, result::State as WireState,
};
use sluice_tests::history::{Answer, Did, State};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    random::Random,
    recorder::{Recorder, data, record},
};

/// Pages of one walk at most. Some walks go on to their end.
const PAGES_MAX: usize = 5;

pub struct Consumer {
    pub process: String,
    pub organisation: &'static str,
    pub random: Random,
    pub recorder: Recorder,
    /// Of each replica.
    pub clients: [Clients; 2],
    /// The same replicas by other ways, on which acknowledgements alone go.
    pub signing: [Clients; 2],
    pub ending: CancellationToken,
}

impl Consumer {
    fn any(&mut self) -> Clients {
        self.clients[self.random.below(2)].clone()
    }

    fn record(&self, began: i64, did: Did) {
        self.recorder.call(&self.process, self.organisation, began, did);
    }

    /// Consumes until told to end.
    pub async fn consume(mut self) {
        while !self.ending.is_cancelled() {
            let mut ids = self.list().await;
            for _ in 0..self.random.below(3) {
                ids.extend(self.recorder.recent_id(&mut self.random));
            }
            for _ in 0..self.random.below(4) {
                if let Some(id) = self.random.pick(&ids).cloned() {
                    self.look(&id).await;
                    if self.random.percent(30) {
                        self.acknowledge(id).await;
                    }
                }
            }
            let chance = 30 + self.random.below(60);
            ids.retain(|_| self.random.percent(chance));
            if let (true, Some(id)) = (self.random.percent(20), ids.first().cloned()) {
                ids.push(id);
            }
            if self.random.percent(70) && !ids.is_empty() {
                self.acknowledge_all(ids).await;
            }
            tokio::time::sleep(self.random.millis(80)).await;
        }
    }

    /// The ids of a few pages.
    async fn list(&mut self) -> Vec<String> {
        let states = match self.random.below(4) {
            0 => vec![State::Available, State::Consumed],
            1 => vec![State::Consumed],
            _ => vec![State::Available],
        };
        let wire = |state: &State| match state {
            State::Available => WireState::Available as i32,
            State::Consumed => WireState::Consumed as i32,
            State::Expired => WireState::Expired as i32,
        };
        let to_the_end = self.random.percent(30);
        let (page_size, pages_max) = match to_the_end {
            true => (100 + self.random.below(400), usize::MAX),
            false => (5 + self.random.below(60), PAGES_MAX),
        };
        let poll = self.random.percent(30).then(|| format!("poll-{}", self.random.below(3)));
        let mut request = ListResultsRequest {
            states: states.iter().map(wire).collect(),
            page_size: page_size.try_into().unwrap(),
            poll: poll.clone(),
            ..ListResultsRequest::default()
        };
        request.set_order(if self.random.percent(30) { Order::OldestFirst } else { Order::NewestFirst });
        let began = self.recorder.now();
        let mut all = Vec::new();
        let (mut why, mut whole) = (None, false);
        for _ in 0..pages_max {
            let mut results = self.any().results;
            match self.recorder.answer(results.list_results(request.clone())).await {
                Answer::Said(page) => {
                    let page = page.into_inner();
                    all.extend(page.results.iter().map(record));
                    request.page_token = page.next_page_token;
                }
                Answer::Unknown(status) => {
                    why = Some(status);
                    break;
                }
            }
            if request.page_token.is_empty() {
                whole = true;
                break;
            }
        }
        let ids = all.iter().map(|record| record.id.clone()).collect();
        // Half a walk says what it says.
        let found = match why {
            Some(why) if all.is_empty() => Answer::Unknown(why),
            _ => Answer::Said(all),
        };
        self.record(began, Did::List { states, poll, whole, found });
        ids
    }

    async fn look(&mut self, id: &str) {
        let mut results = self.any().results;
        let began = self.recorder.now();
        let organisation = String::new();
        let did = if self.random.percent(50) {
            let request = GetResultRequest { id: id.into(), organisation };
            let call = async {
                let found = results.get_result(request).await?.into_inner().result;
                Ok(record(&found.ok_or_else(|| Status::data_loss("an answer without a result"))?))
            };
            Did::Get { id: id.into(), found: self.recorder.find(call).await }
        } else {
            let request = DownloadResultRequest { id: id.into(), organisation };
            let call = async {
                let mut chunks = results.download_result(request).await?.into_inner();
                let mut bytes = Vec::new();
                while let Some(chunk) = chunks.message().await? {
                    bytes.extend_from_slice(&chunk.data);
                }
                Ok(data(&bytes))
            };
            Did::Download { id: id.into(), found: self.recorder.find(call).await }
        };
        self.record(began, did);
    }

    fn any_signing(&mut self) -> Clients {
        self.signing[self.random.below(2)].clone()
    }

    async fn acknowledge(&mut self, id: String) {
        let mut results = self.any_signing().results;
        let began = self.recorder.now();
        let request = AcknowledgeResultRequest { id: id.clone(), organisation: String::new() };
        let call = async {
            let answer = results.acknowledge_result(request).await?.into_inner();
            let changed = if answer.changed { vec![id.clone()] } else { vec![] };
            let of = answer.result.ok_or_else(|| Status::data_loss("an answer without a result"))?;
            Ok((changed, record(&of)))
        };
        let (changed, record) = match self.recorder.find(call).await {
            Answer::Said(Some((changed, record))) => (Answer::Said(Some(changed)), Some(record)),
            Answer::Said(None) => (Answer::Said(None), None),
            Answer::Unknown(why) => (Answer::Unknown(why), None),
        };
        self.record(began, Did::Acknowledge { ids: vec![id], changed, record });
    }

    async fn acknowledge_all(&mut self, ids: Vec<String>) {
        let mut results = self.any_signing().results;
        let began = self.recorder.now();
        let request = BatchAcknowledgeResultsRequest { ids: ids.clone(), organisation: String::new() };
        let call = async { Ok(results.batch_acknowledge_results(request).await?.into_inner().ids) };
        let changed = self.recorder.find(call).await;
        self.record(began, Did::Acknowledge { ids, changed, record: None });
    }
}
