//! What a replica of the results service recorded last is in its memory: consumers
//! see no difference, whichever replica they ask.

use sluice_proto::results::v1::{
    BatchAcknowledgeResultsRequest, DownloadResultRequest, ListResultsRequest, NewResult, Result as Record,
    list_results_request::Order, result::State,
};
use sluice_tests::Tenant;
use uuid::Uuid;

use crate::results::shelf::{ACME, Results, Shelf, ids, new, record, walk};

fn with_data() -> ListResultsRequest {
    ListResultsRequest { data_bytes_max: 100_000, page_size: 5, ..Default::default() }
}

async fn acknowledge(results: &mut Results, ids: &[&str]) -> Vec<String> {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids };
    let told = results.batch_acknowledge_results(request).await.unwrap().into_inner();
    told.ids
}

/// Results of three polls, recorded by a replica.
async fn filled(shelf: &Shelf, replica: usize, count: usize) -> Vec<NewResult> {
    let result = |n: usize| NewResult {
        poll: format!("poll-{}", n % 3),
        task: format!("task-{n}"),
        identifier: format!("identifier-{n}"),
        ..new(format!("data {n}"))
    };
    let results: Vec<NewResult> = (0..count).map(result).collect();
    record(&mut shelf.intake(replica), ACME, results.clone()).await.unwrap();
    results
}

#[tokio::test]
async fn the_replica_that_recorded_it_lists_it_from_memory_and_another_the_same_from_the_database() {
    let shelf = Shelf::with_replicas(2).await;
    let given = filled(&shelf, 0, 12).await;
    let [mut own, mut other] = [0, 1].map(|replica| shelf.results_of(Tenant::Acme, replica));
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let request = ListResultsRequest { order: order.into(), ..with_data() };
        let (from_memory, read) =
            (walk(&mut own, request.clone()).await, walk(&mut other, request.clone()).await);
        assert_eq!(from_memory, read);
        assert_eq!(read.len(), given.len());
    }
    let sql = shelf.0.results_database.sql().await;
    sql.batch_execute("DELETE FROM data_block").await.unwrap();
    let data = |listed: Vec<Record>| listed.iter().filter(|record| record.data.is_some()).count();
    assert_eq!(data(walk(&mut own, with_data()).await), 12);
    assert_eq!(data(walk(&mut other, with_data()).await), 0);
}

#[tokio::test]
async fn what_is_not_kept_is_read() {
    let shelf = Shelf::without_memory().await;
    filled(&shelf, 0, 12).await;
    let listed = walk(&mut shelf.results(Tenant::Acme), with_data()).await;
    assert_eq!(listed.iter().filter(|record| record.data.is_some()).count(), 12);
    shelf.0.results_database.sql().await.batch_execute("DELETE FROM data_block").await.unwrap();
    let listed = walk(&mut shelf.results(Tenant::Acme), with_data()).await;
    assert_eq!(listed.iter().filter(|record| record.data.is_some()).count(), 0);
}

#[tokio::test]
async fn only_its_organisation_sees_what_is_in_memory() {
    let shelf = Shelf::start().await;
    filled(&shelf, 0, 3).await;
    let mut globex = shelf.results(Tenant::Globex);
    let own = NewResult { id: filled(&shelf, 0, 1).await[0].id.clone(), ..new("theirs") };
    record(&mut shelf.intake(0), "globex", vec![own]).await.unwrap();
    let listed = walk(&mut globex, with_data()).await;
    let data: Vec<Option<&[u8]>> = listed.iter().map(|record| record.data.as_deref()).collect();
    assert_eq!(data, [Some(&b"theirs"[..])]);
    assert_eq!(walk(&mut shelf.results(Tenant::Acme), with_data()).await.len(), 4);
}

#[tokio::test]
async fn acknowledging_takes_what_is_asked_for_whether_its_batch_is_known_or_not() {
    let shelf = Shelf::with_replicas(2).await;
    let [mut own, mut other] = [0, 1].map(|replica| shelf.results_of(Tenant::Acme, replica));
    filled(&shelf, 0, 12).await;
    filled(&shelf, 1, 12).await;
    // So that it knows the batches of what it recorded.
    let listed = walk(&mut own, ListResultsRequest { order: Order::OldestFirst.into(), ..with_data() }).await;
    let (first, second) = listed.split_at(12);
    let unknown = Uuid::now_v7().to_string();
    let mut left: Vec<&str> = ids(&listed);
    let (known, others) = (ids(first), ids(second));
    let calls: [(Vec<&str>, usize); 6] = [
        // Some of each batch, then what is left of them and some of it again.
        (known[..5].to_vec(), 5),
        (known[..7].to_vec(), 2),
        // Known, not known, and nobody's.
        (vec![known[7], others[0], &unknown, others[1], known[8]], 4),
        (others[..6].to_vec(), 4),
        (vec![&unknown], 0),
        (known.clone(), 3),
    ];
    for (asked, taken) in calls {
        let moved = acknowledge(&mut own, &asked).await;
        assert_eq!(moved.len(), taken, "{asked:?}");
        assert!(moved.iter().all(|id| asked.contains(&id.as_str())));
        left.retain(|id| !asked.contains(id));
        for results in [&mut own, &mut other] {
            let available = walk(results, with_data()).await;
            let mut available = ids(&available).into_iter().map(str::to_owned).collect::<Vec<_>>();
            available.reverse();
            assert_eq!(available, left);
        }
    }
    let consumed = ListResultsRequest { states: vec![State::Consumed.into()], ..with_data() };
    assert_eq!(walk(&mut own, consumed).await.len(), 24 - left.len());
}

#[tokio::test]
async fn what_another_replica_took_is_not_taken_again() {
    let shelf = Shelf::with_replicas(2).await;
    let [mut own, mut other] = [0, 1].map(|replica| shelf.results_of(Tenant::Acme, replica));
    filled(&shelf, 0, 6).await;
    let listed = walk(&mut own, with_data()).await;
    let asked = ids(&listed);
    assert_eq!(acknowledge(&mut other, &asked[..4]).await.len(), 4);
    assert_eq!(ids(&walk(&mut own, with_data()).await), asked[4..]);
    let mut taken = acknowledge(&mut own, &asked).await;
    taken.sort();
    let mut rest = asked[4..].to_vec();
    rest.sort_unstable();
    assert_eq!(taken, rest);
}

/// So many batches of a poll, of which a page of five was listed; what of them is
/// acknowledged in one call.
async fn acknowledges_batches_that_are_known_in_part(count: usize) {
    let shelf = Shelf::start().await;
    let mut results = shelf.results(Tenant::Acme);
    let given: Vec<NewResult> = (0..count).map(|n| new(format!("{n}"))).collect();
    shelf.record(&given).await;
    results.list_results(with_data()).await.unwrap();
    let asked: Vec<&str> = given.iter().map(|result| result.id.as_str()).collect();
    assert_eq!(acknowledge(&mut results, &asked).await.len(), count);
    let consumed =
        "SELECT count(*), count(DISTINCT id) FROM consumed CROSS JOIN LATERAL unnest(ids) AS of(id)";
    let told = shelf.0.results_database.sql().await.query_one(consumed, &[]).await.unwrap();
    let count = i64::try_from(count).unwrap();
    assert_eq!((told.get::<_, i64>(0), told.get::<_, i64>(1)), (count, count));
    assert!(walk(&mut results, with_data()).await.is_empty());
}

#[tokio::test]
async fn a_batch_that_is_known_in_part_is_acknowledged_once() {
    acknowledges_batches_that_are_known_in_part(12).await;
}

#[tokio::test]
async fn so_are_several_of_one_commit_and_poll() {
    acknowledges_batches_that_are_known_in_part(450).await;
}

#[tokio::test]
async fn what_is_handed_over_again_is_read_and_what_comes_next_is_in_memory() {
    let shelf = Shelf::start().await;
    let [first, second, third] = ["first", "second", "third"].map(new);
    let of_second = DownloadResultRequest { organisation: String::new(), id: second.id.clone() };
    shelf.record(std::slice::from_ref(&first)).await;
    shelf.record(&[first, second]).await;
    shelf.record(&[third]).await;
    let mut parts = shelf.results(Tenant::Acme).download_result(of_second).await.unwrap().into_inner();
    assert_eq!(parts.message().await.unwrap().unwrap().data, "second");
    shelf.0.results_database.sql().await.batch_execute("DELETE FROM data_block").await.unwrap();
    let listed = walk(&mut shelf.results(Tenant::Acme), with_data()).await;
    let data: Vec<Option<&[u8]>> = listed.iter().map(|record| record.data.as_deref()).collect();
    assert_eq!(data, [Some(&b"third"[..]), None, Some(&b"first"[..])]);
}
