//! Lists: every filter on both sides, and walks that miss and repeat nothing.

use std::collections::{HashSet, VecDeque};

use prost_types::Timestamp;
use sluice_proto::results::v1::{
    BatchAcknowledgeResultsRequest, ListResultsRequest, NewResult, Result as Record, TimeRange,
    list_results_request::Order, result::State,
};
use sluice_tests::Tenant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    http::support::Http,
    results::shelf::{Results, Shelf, ids, new, walk},
};

fn oldest_first() -> ListResultsRequest {
    ListResultsRequest { order: Order::OldestFirst as i32, page_size: 7, ..Default::default() }
}

/// Sixty results in commits of six, the first half acknowledged, the first
/// three expired; and what is kept of each, oldest first.
async fn filled() -> (Shelf, Vec<Record>) {
    let shelf = Shelf::start().await;
    for commit in 0..10 {
        let results: Vec<NewResult> = (0..6)
            .map(|n| NewResult {
                poll: format!("poll-{}", n % 2),
                task: if n % 3 == 0 { String::new() } else { format!("task-{}", n % 3) },
                identifier: format!("identifier-{commit}"),
                ..new(format!("{commit}/{n}"))
            })
            .collect();
        shelf.record(&results).await;
    }
    let mut results = shelf.results(Tenant::Acme);
    let all = walk(&mut results, oldest_first()).await;
    for half in all[..30].chunks(10) {
        let ids = ids(half).into_iter().map(str::to_owned).collect();
        let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids };
        results.batch_acknowledge_results(request).await.unwrap();
    }
    for record in &all[..3] {
        shelf.expire(&record.id).await;
    }
    let any = ListResultsRequest { states: every_state(), ..oldest_first() };
    let all = walk(&mut results, any).await;
    assert_eq!(all.len(), 60);
    (shelf, all)
}

fn every_state() -> Vec<i32> {
    [State::Available, State::Consumed, State::Expired].map(i32::from).into()
}

/// Both orders and several page sizes give exactly what matches.
async fn expect(
    results: &mut Results,
    all: &[Record],
    filter: ListResultsRequest,
    matches: impl Fn(&Record) -> bool,
) {
    let mut expected: Vec<&Record> = all.iter().filter(|record| matches(record)).collect();
    for order in [Order::OldestFirst, Order::NewestFirst] {
        for page_size in [1, 4, 1000] {
            let request = ListResultsRequest { order: order.into(), page_size, ..filter.clone() };
            let found = walk(results, request).await;
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        }
        expected.reverse();
    }
}

#[tokio::test]
async fn text_and_state_filters_give_exactly_what_matches() {
    let (shelf, all) = filled().await;
    let mut results = shelf.results(Tenant::Acme);
    let none = ListResultsRequest::default();
    expect(&mut results, &all, none.clone(), |r| r.state() == State::Available).await;
    for states in [vec![2], vec![3], vec![1, 2], vec![2, 3], vec![3, 1], every_state()] {
        let filter = ListResultsRequest { states: states.clone(), ..none.clone() };
        expect(&mut results, &all, filter.clone(), |r| states.contains(&r.state)).await;
        let filter = ListResultsRequest { poll: Some("poll-1".into()), ..filter };
        expect(&mut results, &all, filter, |r| states.contains(&r.state) && r.poll == "poll-1").await;
    }
    let any = ListResultsRequest { states: every_state(), ..none.clone() };
    for task in ["", "task-1", "task"] {
        let filter = ListResultsRequest { task: Some(task.into()), ..any.clone() };
        expect(&mut results, &all, filter, |r| r.task == task).await;
    }
    let sought = &all[40];
    let filter = ListResultsRequest { identifier: Some(sought.identifier.clone()), ..none.clone() };
    expect(&mut results, &all, filter, |r| r.identifier == sought.identifier).await;
    let filter = ListResultsRequest { checksum: Some(sought.checksum.to_uppercase()), ..none.clone() };
    expect(&mut results, &all, filter, |r| r.checksum == sought.checksum).await;
    let filter = ListResultsRequest {
        poll: Some(sought.poll.clone()),
        task: Some(sought.task.clone()),
        identifier: Some(sought.identifier.clone()),
        ..none
    };
    let alike =
        |r: &Record| (&r.poll, &r.task, &r.identifier) == (&sought.poll, &sought.task, &sought.identifier);
    expect(&mut results, &all, filter, alike).await;
}

fn nanos(moment: &Timestamp) -> i128 {
    i128::from(moment.seconds) * 1_000_000_000 + i128::from(moment.nanos)
}

/// All bounds around a moment that records have, to the nanosecond.
async fn expect_ranges(
    results: &mut Results,
    all: &[Record],
    moment: &Timestamp,
    date: impl Fn(&Record) -> Option<Timestamp>,
    filter: impl Fn(TimeRange) -> ListResultsRequest,
) {
    for shift in [-1, 0, 1] {
        let bound = Timestamp { nanos: moment.nanos + shift, ..*moment };
        let ranges = [
            TimeRange { gt: Some(bound), ..Default::default() },
            TimeRange { gte: Some(bound), ..Default::default() },
            TimeRange { lt: Some(bound), ..Default::default() },
            TimeRange { lte: Some(bound), ..Default::default() },
            TimeRange { gte: Some(bound), lte: Some(bound), ..Default::default() },
        ];
        for range in ranges {
            let within = |at: Timestamp| {
                let holds = |bound: &Option<Timestamp>, test: fn(&i128, &i128) -> bool| {
                    bound.as_ref().is_none_or(|bound| test(&nanos(&at), &nanos(bound)))
                };
                let after = holds(&range.gt, i128::gt) && holds(&range.gte, i128::ge);
                after && holds(&range.lt, i128::lt) && holds(&range.lte, i128::le)
            };
            expect(results, all, filter(range), |record| date(record).is_some_and(within)).await;
        }
    }
}

#[tokio::test]
async fn time_ranges_hold_to_the_nanosecond() {
    let (shelf, all) = filled().await;
    let mut results = shelf.results(Tenant::Acme);
    let any = ListResultsRequest { states: every_state(), ..Default::default() };
    let moment = |date: Option<Timestamp>| date.filter(|d| d.nanos > 0).unwrap_or_default();
    let created = |range| ListResultsRequest { date_created: Some(range), ..any.clone() };
    expect_ranges(&mut results, &all, &moment(all[20].date_created), |r| r.date_created, created).await;
    let consumed = |range| ListResultsRequest { date_consumed: Some(range), ..any.clone() };
    expect_ranges(&mut results, &all, &moment(all[15].date_consumed), |r| r.date_consumed, consumed).await;
    let deleted = |range| ListResultsRequest { date_deleted: Some(range), ..any.clone() };
    expect_ranges(&mut results, &all, &moment(all[1].date_deleted), |r| r.date_deleted, deleted).await;
    // What waits was neither consumed nor deleted.
    let range = TimeRange { gte: Some(Timestamp::default()), ..Default::default() };
    let filter = ListResultsRequest { date_consumed: Some(range), ..Default::default() };
    expect(&mut results, &all, filter, |_| false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_is_stable_while_others_record() {
    let shelf = Shelf::start().await;
    let given: Vec<NewResult> = (0..400).map(|n| new(format!("{n}"))).collect();
    shelf.record(&given).await;
    let expected: HashSet<String> = given.iter().map(|result| result.id.clone()).collect();
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let mut results = shelf.results(Tenant::Acme);
        let mut request = ListResultsRequest { page_size: 37, order: order.into(), ..Default::default() };
        let mut found = vec![];
        // Oldest first the walk ends where the recording does.
        for page in 0.. {
            let answer = results.list_results(request.clone()).await.unwrap().into_inner();
            found.extend(answer.results.into_iter().map(|record| record.id));
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
            if page < 10 {
                shelf.record(&(0..20).map(|_| new("late")).collect::<Vec<_>>()).await;
            }
        }
        let distinct: HashSet<String> = found.iter().cloned().collect();
        assert_eq!(distinct.len(), found.len(), "nothing twice");
        assert!(distinct.is_superset(&expected), "nothing missed");
    }
}

/// Pages end within batches, of which others acknowledge what was read and what was not: the
/// next page begins behind a place that may be gone.
#[tokio::test]
async fn a_walk_misses_nothing_while_others_acknowledge() {
    let shelf = Shelf::with_replicas(2).await;
    let mut replicas = [0, 1].map(|at| shelf.results_of(Tenant::Acme, at));
    for (round, order) in [Order::NewestFirst, Order::OldestFirst].repeat(2).into_iter().enumerate() {
        let poll = format!("poll-{round}");
        let mut batches: Vec<VecDeque<String>> = vec![];
        for _ in 0..20 {
            let batch: Vec<_> =
                (0..20).map(|n| NewResult { poll: poll.clone(), ..new(n.to_string()) }).collect();
            shelf.record(&batch).await;
            batches.push(batch.into_iter().map(|result| result.id).collect());
        }
        let of_all = ListResultsRequest { page_size: 7, order: order.into(), ..Default::default() };
        // Of the list of all, and of that of a poll.
        let poll = (round >= 2).then_some(poll);
        let mut request = ListResultsRequest { poll, ..of_all };
        let mut found = vec![];
        for page in 0.. {
            let results = &mut replicas[page % 2];
            let answer = results.list_results(request.clone()).await.unwrap().into_inner();
            found.extend(answer.results.into_iter().map(|record| record.id));
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
            let last = found.last().unwrap();
            let Some(cut) = batches.iter_mut().find(|batch| batch.contains(last)) else { continue };
            let ids = [cut.pop_front(), cut.pop_back()].into_iter().flatten().collect();
            let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids };
            results.batch_acknowledge_results(request).await.unwrap();
        }
        let distinct: HashSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "nothing twice");
        let missed = batches.iter().flatten().filter(|id| !distinct.contains(id)).count();
        assert_eq!(missed, 0, "{order:?}, of those that nobody acknowledged");
    }
}

#[tokio::test]
async fn a_rare_match_is_found_over_pages_of_bounded_scans() {
    let shelf = Shelf::start().await;
    let mut given: Vec<NewResult> = (0..20_500).map(|_| new("x")).collect();
    let sought = [0, 10_000, 20_499];
    for place in sought {
        given[place].task = "rare".into();
    }
    given[20_000].task = "once".into();
    shelf.record(&given).await;
    let mut results = shelf.results(Tenant::Acme);
    for (states, poll) in [(vec![], None), (every_state(), None), (vec![], Some("poll".to_owned()))] {
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let task = Some("rare".to_owned());
            let (states, poll) = (states.clone(), poll.clone());
            let request =
                ListResultsRequest { task, states, poll, order: order.into(), ..Default::default() };
            let first = results.list_results(request.clone()).await.unwrap().into_inner();
            assert_eq!(first.results.len(), 1, "one in the first ten thousand");
            assert!(!first.next_page_token.is_empty(), "and more to look through");
            let mut found = walk(&mut results, request).await;
            if order == Order::NewestFirst {
                found.reverse();
            }
            assert_eq!(ids(&found), sought.map(|place| given[place].id.as_str()));
        }
    }
    // A page over HTTP looks further, and knows whether there is more.
    let http = Http::results(&shelf.0, Tenant::Acme);
    for query in ["", "&state=available,consumed,expired", "&poll=poll"] {
        for (task, limit, has_more) in [("rare", 2, true), ("rare", 3, false), ("once", 1, false)] {
            let list = http.get(&format!("/results?task={task}&limit={limit}{query}")).await.json();
            let told = (list["data"].as_array().unwrap().len(), list["has_more"].as_bool());
            assert_eq!(told, (limit, Some(has_more)), "{task} {query}");
        }
    }
}

async fn refused(results: &mut Results, request: ListResultsRequest) -> Status {
    let status = results.list_results(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    status
}

#[tokio::test]
async fn a_page_token_serves_only_its_own_walk() {
    let (shelf, _) = filled().await;
    let mut results = shelf.results(Tenant::Acme);
    let request = ListResultsRequest { page_size: 3, ..Default::default() };
    let page_token = results.list_results(request).await.unwrap().into_inner().next_page_token;
    // The moment in it, which is eight bytes, is put beyond what the database knows.
    let far = format!("{}{:016x}{}", &page_token[..18], i64::MAX - 1, &page_token[34..]);
    let same = ListResultsRequest { page_token, ..Default::default() };
    assert!(results.list_results(same.clone()).await.is_ok(), "also with another page size");
    let others = [
        ListResultsRequest { order: Order::OldestFirst.into(), ..same.clone() },
        ListResultsRequest { poll: Some("poll-1".into()), ..same.clone() },
        ListResultsRequest { task: Some(String::new()), ..same.clone() },
        ListResultsRequest { states: every_state(), ..same.clone() },
        ListResultsRequest { page_token: "nonsense".into(), ..same.clone() },
        ListResultsRequest { page_token: far, ..same.clone() },
    ];
    let mut told = vec![];
    for other in others {
        told.push(refused(&mut results, other).await);
    }
    told.push(refused(&mut shelf.results(Tenant::Globex), same).await);
    for status in told {
        let reason = status.get_error_details().error_info().map(|info| info.reason.clone());
        assert_eq!(reason.as_deref(), Some("INVALID_PAGE_TOKEN"));
        let named = status.get_error_details().bad_request().map(|bad| bad.field_violations[0].field.clone());
        assert_eq!(named.as_deref(), Some("page_token"));
    }
}

#[tokio::test]
async fn limits_hold_on_both_sides_and_wrong_fields_are_named() {
    let shelf = Shelf::start().await;
    shelf.record(&(0..11).map(|_| new("x")).collect::<Vec<_>>()).await;
    let mut results = shelf.results(Tenant::Acme);
    let none = ListResultsRequest::default();
    let page = results.list_results(none.clone()).await.unwrap().into_inner();
    assert_eq!(page.results.len(), 10, "the default");
    let page_size = |page_size| ListResultsRequest { page_size, ..none.clone() };
    let data_bytes_max = |data_bytes_max| ListResultsRequest { data_bytes_max, ..none.clone() };
    assert!(results.list_results(page_size(1000)).await.is_ok());
    assert!(results.list_results(data_bytes_max(16 << 20)).await.is_ok());
    let far = Timestamp { seconds: i64::MAX, nanos: 0 };
    let range = TimeRange { lt: Some(far), ..Default::default() };
    for (field, request) in [
        ("page_size", page_size(1001)),
        ("page_size", page_size(-1)),
        ("data_bytes_max", data_bytes_max((16 << 20) + 1)),
        ("poll", ListResultsRequest { poll: Some("a\0".into()), ..none.clone() }),
        ("checksum", ListResultsRequest { checksum: Some("abc".into()), ..none.clone() }),
        ("states", ListResultsRequest { states: vec![7], ..none.clone() }),
        ("order", ListResultsRequest { order: 7, ..none.clone() }),
        ("date_consumed.lt", ListResultsRequest { date_consumed: Some(range), ..none.clone() }),
    ] {
        let status = refused(&mut results, request).await;
        let bad = status.get_error_details().bad_request().cloned().unwrap();
        assert_eq!(bad.field_violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), [field]);
    }
}
