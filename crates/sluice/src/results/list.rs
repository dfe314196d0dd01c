//! `sluice results list`: every filter of the contract, page by page.

use std::process::ExitCode;

use clap::ValueEnum;
use prost_types::Timestamp;
use sluice_proto::results::v1::{
    ListResultsRequest, Result as Record, TimeRange, list_results_request::Order, result::State,
};

use super::{state_name, to_json};
use crate::{
    failure::Failure,
    target::TargetArgs,
    text::{Table, out, parse_time, say, time},
};

/// How many results a page brings when all are asked for.
const PAGE_SIZE_OF_ALL: i32 = 1000;

/// Which results to list. Times are such as 2026-02-28T12:00:00Z, or a duration
/// such as 15m, which means that long ago.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only of this poll.
    #[arg(long)]
    poll: Option<String>,
    /// Only of this task; empty: only those without one.
    #[arg(long)]
    task: Option<String>,
    /// Only with this identifier.
    #[arg(long)]
    identifier: Option<String>,
    /// Only with this MD5.
    #[arg(long)]
    checksum: Option<String>,
    /// Only in these states [default: available].
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<ListState>,
    #[command(flatten)]
    ranges: Ranges,
    /// The oldest first.
    #[arg(long)]
    oldest_first: bool,
    /// How many a page brings, up to 1000 [default: 10, with --all 1000].
    #[arg(long)]
    page_size: Option<i32>,
    /// Go on where a page ended.
    #[arg(long)]
    page_token: Option<String>,
    /// Walk over all pages.
    #[arg(long)]
    all: bool,
    /// Bring the data of small results along, up to so many bytes a page; shown
    /// with --json.
    #[arg(long, value_name = "BYTES", requires = "json")]
    data_bytes_max: Option<u32>,
    /// Print JSON, one result a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ListState {
    Available,
    Consumed,
    Expired,
    /// All three.
    All,
}

/// Ranges of time.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Times")]
struct Ranges {
    /// Created later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    created_gt: Option<Timestamp>,
    /// Created at or later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    created_gte: Option<Timestamp>,
    /// Created earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    created_lt: Option<Timestamp>,
    /// Created at or earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    created_lte: Option<Timestamp>,
    /// Consumed later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    consumed_gt: Option<Timestamp>,
    /// Consumed at or later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    consumed_gte: Option<Timestamp>,
    /// Consumed earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    consumed_lt: Option<Timestamp>,
    /// Consumed at or earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    consumed_lte: Option<Timestamp>,
    /// Data removed later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    deleted_gt: Option<Timestamp>,
    /// Data removed at or later than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    deleted_gte: Option<Timestamp>,
    /// Data removed earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    deleted_lt: Option<Timestamp>,
    /// Data removed at or earlier than.
    #[arg(long, value_parser = parse_time, value_name = "TIME")]
    deleted_lte: Option<Timestamp>,
}

fn range(
    gt: Option<Timestamp>,
    gte: Option<Timestamp>,
    lt: Option<Timestamp>,
    lte: Option<Timestamp>,
) -> Option<TimeRange> {
    let given = gt.is_some() || gte.is_some() || lt.is_some() || lte.is_some();
    given.then_some(TimeRange { gt, gte, lt, lte })
}

fn states(wanted: &[ListState]) -> Vec<i32> {
    let of = |state: &ListState| match state {
        ListState::Available => vec![State::Available],
        ListState::Consumed => vec![State::Consumed],
        ListState::Expired => vec![State::Expired],
        ListState::All => vec![State::Available, State::Consumed, State::Expired],
    };
    wanted.iter().flat_map(of).map(i32::from).collect()
}

impl ListArgs {
    fn request(&self, organisation: String) -> ListResultsRequest {
        let times = &self.ranges;
        let order = if self.oldest_first { Order::OldestFirst } else { Order::NewestFirst };
        ListResultsRequest {
            organisation,
            poll: self.poll.clone(),
            task: self.task.clone(),
            identifier: self.identifier.clone(),
            checksum: self.checksum.clone(),
            states: states(&self.state),
            date_created: range(times.created_gt, times.created_gte, times.created_lt, times.created_lte),
            date_consumed: range(
                times.consumed_gt,
                times.consumed_gte,
                times.consumed_lt,
                times.consumed_lte,
            ),
            date_deleted: range(times.deleted_gt, times.deleted_gte, times.deleted_lt, times.deleted_lte),
            page_size: self.page_size.unwrap_or(if self.all { PAGE_SIZE_OF_ALL } else { 0 }),
            page_token: self.page_token.clone().unwrap_or_default(),
            order: order.into(),
            data_bytes_max: self.data_bytes_max.unwrap_or_default(),
        }
    }
}

/// Lists results.
pub(super) async fn run(args: ListArgs) -> Result<ExitCode, Failure> {
    let target = args.target.clone().resolve()?;
    let mut client = target.results()?;
    let mut request = args.request(target.organisation.clone());
    let mut shown = vec![];
    loop {
        let page = client.list_results(request.clone()).await?.into_inner();
        if args.json {
            for result in &page.results {
                out!("{}", to_json(result))?;
            }
        } else {
            shown.extend(page.results);
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || !args.all {
            break;
        }
    }
    if !args.json {
        out!("{}", table(&shown))?;
    }
    if !request.page_token.is_empty() {
        say!("There are more: --page-token {} or --all.", request.page_token);
    }
    Ok(ExitCode::SUCCESS)
}

/// Results as a table.
pub(crate) fn table(results: &[Record]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "IDENTIFIER", "POLL", "TYPE", "SIZE", "CREATED"]);
    results.iter().for_each(|result| table.row(row(result)));
    table
}

fn row(result: &Record) -> [String; 7] {
    [
        result.id.clone(),
        state_name(result.state()).into(),
        result.identifier.clone(),
        result.poll.clone(),
        result.r#type.clone(),
        result.size.to_string(),
        time(result.date_created.as_ref()).unwrap_or_default(),
    ]
}
