//! Consumers: list with data, check it, acknowledge in batches, as a consumer
//! of small records does.

use std::time::{Duration, Instant};

use md5::{Digest as _, Md5};
use sluice_proto::results::v1::{
    BatchAcknowledgeResultsRequest, ListResultsRequest, Result as Record, list_results_request::Order,
    results_service_client::ResultsServiceClient,
};

use super::{
    load::{DEFINITIONS_FOLDER, micros_since, sent_of},
    pace::{Flow, Schedule},
};
use crate::{connection::Authorised, failure::Failure, text::visible};

/// How many results a page brings.
const PAGE_SIZE: i32 = 1000;
/// How many bytes of data a page brings along.
const PAGE_DATA_BYTES: u32 = 8 * 1024 * 1024;
/// How long to wait when nothing is there.
const IDLE: Duration = Duration::from_millis(2);

/// What one consumer saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Consumed {
    /// Results that its acknowledgements changed.
    pub(super) acknowledged: u64,
    /// Microseconds from sending to being in a page.
    pub(super) available: Vec<u32>,
    /// Results whose data did not match their checksum.
    pub(super) corrupt: u64,
}

impl Consumed {
    /// Takes in one result's data, read at `read_at` since the start.
    pub(super) fn read(&mut self, schedule: &Schedule, data: &[u8], intact: bool, read_at: Duration) {
        self.corrupt += u64::from(!intact);
        let measured_after = schedule.measured_from.duration_since(schedule.start);
        if let Some(sent) = sent_of(data).filter(|sent| *sent >= measured_after && *sent <= read_at) {
            self.available.push(u32::try_from((read_at - sent).as_micros()).unwrap_or(u32::MAX));
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.available.extend(other.available);
        self.corrupt += other.corrupt;
    }
}

fn page_request(organisation: &str, page_token: String, data_bytes_max: u32) -> ListResultsRequest {
    ListResultsRequest {
        organisation: organisation.into(),
        page_size: PAGE_SIZE,
        page_token,
        order: Order::OldestFirst.into(),
        data_bytes_max,
        ..ListResultsRequest::default()
    }
}

/// Consumes the results of some organisations in turn, until told to stop.
/// While a page is read the one before is being acknowledged.
pub(super) async fn consume(
    mut client: ResultsServiceClient<Authorised>,
    organisations: Vec<String>,
    schedule: Schedule,
    flow: &Flow,
) -> Result<Consumed, Failure> {
    let mut consumed = Consumed::default();
    while !flow.is_stopped() {
        let mut idle = true;
        for organisation in &organisations {
            let mut acknowledging: Option<tokio::task::JoinHandle<Result<u64, tonic::Status>>> = None;
            let mut token = String::new();
            loop {
                let request = page_request(organisation, token, PAGE_DATA_BYTES);
                let page = client.list_results(request).await?.into_inner();
                let read_at = schedule.start.elapsed();
                if let Some(before) = acknowledging.take() {
                    count(&mut consumed, &schedule, flow, before).await?;
                }
                idle &= page.results.is_empty();
                check(&mut consumed, &schedule, &page.results, read_at);
                if !page.results.is_empty() {
                    acknowledging = Some(acknowledge(client.clone(), organisation, &page.results));
                }
                token = page.next_page_token;
                if token.is_empty() || flow.is_stopped() {
                    break;
                }
            }
            if let Some(last) = acknowledging {
                count(&mut consumed, &schedule, flow, last).await?;
            }
        }
        if idle {
            tokio::time::sleep(IDLE).await;
        }
    }
    Ok(consumed)
}

fn check(consumed: &mut Consumed, schedule: &Schedule, results: &[Record], read_at: Duration) {
    for result in results {
        if let Some(data) = &result.data {
            let mut told = [0; 16];
            let intact = hex::decode_to_slice(&result.checksum, &mut told).is_ok()
                && told[..] == Md5::digest(data)[..];
            consumed.read(schedule, data, intact, read_at);
        }
    }
}

fn acknowledge(
    mut client: ResultsServiceClient<Authorised>,
    organisation: &str,
    results: &[Record],
) -> tokio::task::JoinHandle<Result<u64, tonic::Status>> {
    let request = BatchAcknowledgeResultsRequest {
        organisation: organisation.into(),
        ids: results.iter().map(|result| result.id.clone()).collect(),
    };
    tokio::spawn(async move {
        let answer = client.batch_acknowledge_results(request).await?;
        Ok(answer.into_inner().ids.len() as u64)
    })
}

async fn count(
    consumed: &mut Consumed,
    schedule: &Schedule,
    flow: &Flow,
    acknowledging: tokio::task::JoinHandle<Result<u64, tonic::Status>>,
) -> Result<(), Failure> {
    let changed = acknowledging.await.map_err(|fault| Failure::new(fault.to_string()))??;
    flow.acknowledge(changed);
    if schedule.counts() {
        consumed.acknowledged += changed;
    }
    Ok(())
}

/// The ids of everything that waits.
///
/// # Errors
/// If any of it is not a benchmark's: somebody else is to consume it.
pub(super) async fn waiting(
    client: &mut ResultsServiceClient<Authorised>,
    organisations: &[String],
) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let mut all = Vec::new();
    for organisation in organisations {
        let (mut token, mut ids) = (String::new(), Vec::new());
        loop {
            let page = client.list_results(page_request(organisation, token, 0)).await?.into_inner();
            if let Some(result) =
                page.results.iter().find(|one| !one.definition.starts_with(DEFINITIONS_FOLDER))
            {
                return Err(Failure::unusable(format!(
                    "{organisation} has results of {}, which a benchmark would consume: take another organisation",
                    visible(&result.definition)
                )));
            }
            ids.extend(page.results.into_iter().map(|result| result.id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        all.push((organisation.clone(), ids));
    }
    Ok(all)
}

/// Acknowledges batches taken from a shared list until it is empty; microseconds
/// of each call, and how many results changed.
pub(super) async fn acknowledge_all(
    mut client: ResultsServiceClient<Authorised>,
    batches: &std::sync::Mutex<Vec<(String, Vec<String>)>>,
) -> Result<(u64, Vec<u32>), Failure> {
    let (mut changed, mut latencies) = (0, Vec::new());
    loop {
        let next = batches.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let Some((organisation, ids)) = next else { return Ok((changed, latencies)) };
        let began = Instant::now();
        let request = BatchAcknowledgeResultsRequest { organisation, ids };
        changed += client.batch_acknowledge_results(request).await?.into_inner().ids.len() as u64;
        latencies.push(micros_since(began));
    }
}
