//! S10: listing and getting, one call after the other, among many results.

use std::time::Instant;

use rand::seq::IndexedRandom as _;
use sluice_proto::results::v1::{
    GetResultRequest, ListResultsRequest, Result as Record, TimeRange, list_results_request::Order,
    result::State, results_service_client::ResultsServiceClient,
};

use super::{
    fill::SHELF,
    outcome::{Bound, Figure},
    stage::Stage,
    stats::Spread,
};
use crate::{
    bench::{load::micros_since, report::Percentiles},
    connection::Authorised,
    failure::Failure,
};

/// Pages of one kind that are measured.
const PAGES: usize = 500;
/// Results that are got.
const GETS: usize = 2000;
/// The walk that finds the places takes large steps.
const STEP: i32 = 1000;
const PAGE: i32 = 100;
const LIST_MS_MAX: f64 = 10.0;
const GET_MS_MAX: f64 = 3.0;

type Client = ResultsServiceClient<Authorised>;

/// Lists and gets, and what they have to stay below.
pub(super) async fn measure(stage: &Stage) -> Result<Vec<Figure>, Failure> {
    let mut client = stage.bench.target.results()?;
    let all = vec![State::Available.into(), State::Consumed.into(), State::Expired.into()];
    let waiting = ListResultsRequest { organisation: SHELF.into(), ..ListResultsRequest::default() };
    let any = ListResultsRequest {
        organisation: stage.bench.shape.organisations[0].clone(),
        states: all,
        ..ListResultsRequest::default()
    };
    let (waiting_places, known) = walk(&mut client, &waiting).await?;
    let (any_places, mut others) = walk(&mut client, &any).await?;
    others.extend(known.clone());
    let figures = vec![
        pages(&mut client, "p99, available", waiting_places).await?,
        pages(&mut client, "p99, any state", any_places).await?,
        pages(&mut client, "p99, of a poll", of_polls(&waiting, &known)).await?,
        pages(&mut client, "p99, since a date", since_dates(&any, &others)).await?,
        gets(&mut client, &others).await?,
    ];
    Ok(figures)
}

/// Every place of a list where a page can begin, and some results on the way.
async fn walk(
    client: &mut Client,
    request: &ListResultsRequest,
) -> Result<(Vec<ListResultsRequest>, Vec<Record>), Failure> {
    let (mut places, mut known) = (Vec::new(), Vec::new());
    let mut next =
        ListResultsRequest { page_size: STEP, order: Order::OldestFirst.into(), ..request.clone() };
    loop {
        places.push(ListResultsRequest { page_size: PAGE, ..next.clone() });
        let page = client.list_results(next.clone()).await?.into_inner();
        known.extend(page.results.choose(&mut rand::rng()).cloned());
        if page.next_page_token.is_empty() {
            return Ok((places, known));
        }
        next.page_token = page.next_page_token;
    }
}

fn of_polls(request: &ListResultsRequest, known: &[Record]) -> Vec<ListResultsRequest> {
    let of = |record: &Record| ListResultsRequest {
        poll: Some(record.poll.clone()),
        page_size: PAGE,
        ..request.clone()
    };
    known.iter().map(of).collect()
}

fn since_dates(request: &ListResultsRequest, known: &[Record]) -> Vec<ListResultsRequest> {
    let since = |record: &Record| ListResultsRequest {
        date_created: Some(TimeRange { gte: record.date_created, ..TimeRange::default() }),
        page_size: PAGE,
        order: Order::OldestFirst.into(),
        ..request.clone()
    };
    known.iter().map(since).collect()
}

async fn pages(
    client: &mut Client,
    name: &'static str,
    places: Vec<ListResultsRequest>,
) -> Result<Figure, Failure> {
    let mut micros = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let Some(place) = places.choose(&mut rand::rng()) else { break };
        let began = Instant::now();
        client.list_results(place.clone()).await?;
        micros.push(micros_since(began));
    }
    figure(name, micros, LIST_MS_MAX)
}

async fn gets(client: &mut Client, known: &[Record]) -> Result<Figure, Failure> {
    let mut micros = Vec::with_capacity(GETS);
    for _ in 0..GETS {
        let Some(record) = known.choose(&mut rand::rng()) else { break };
        let request = GetResultRequest { organisation: record.organisation.clone(), id: record.id.clone() };
        let began = Instant::now();
        client.get_result(request).await?;
        micros.push(micros_since(began));
    }
    figure("p99, getting one", micros, GET_MS_MAX)
}

fn figure(name: &'static str, micros: Vec<u32>, below: f64) -> Result<Figure, Failure> {
    let percentiles = Percentiles::of(micros).ok_or_else(|| Failure::new("nothing was there to be read"))?;
    let value = Spread { median: percentiles.p99, min: percentiles.p50, max: percentiles.max };
    Ok(Figure { name, unit: " ms", value, bound: Bound::Below(below) })
}
