//! The data of results: downloads and lists give the very bytes, or say that
//! they can't.

use sluice_proto::results::v1::{
    DownloadResultRequest, ListResultsRequest, NewResult, list_results_request::Order,
};
use sluice_tests::Tenant;
use tonic::{Code, Status};

use crate::results::shelf::{Results, Shelf, new, walk};

const CHUNK_BYTES_MAX: usize = 256 * 1024;

async fn download(results: &mut Results, id: &str) -> Result<Vec<u8>, Status> {
    let request = DownloadResultRequest { organisation: String::new(), id: id.into() };
    let mut stream = results.download_result(request).await?.into_inner();
    let mut data = vec![];
    while let Some(chunk) = stream.message().await? {
        assert!((1..=CHUNK_BYTES_MAX).contains(&chunk.data.len()));
        data.extend_from_slice(&chunk.data);
    }
    Ok(data)
}

/// Bytes that no compressor makes smaller.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(size)
    .collect()
}

#[tokio::test]
async fn every_size_is_downloaded_as_it_was_published() {
    let shelf = Shelf::start().await;
    let sizes = [0, 1, 600, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 1024 * 1024, 7];
    let given: Vec<NewResult> = sizes.iter().map(|size| new(noise(*size))).collect();
    shelf.record(&given).await;
    let mut results = shelf.results(Tenant::Acme);
    for result in &given {
        assert!(
            download(&mut results, &result.id).await.unwrap() == result.data,
            "{} bytes",
            result.data.len()
        );
    }
}

#[tokio::test]
async fn a_list_brings_the_data_along_as_long_as_it_fits() {
    let shelf = Shelf::start().await;
    let given: Vec<NewResult> = [30, 60, 5, 10].iter().map(|size| new(noise(*size))).collect();
    shelf.record(&given).await;
    let mut results = shelf.results(Tenant::Acme);
    let oldest_first = ListResultsRequest { order: Order::OldestFirst.into(), ..Default::default() };
    for (data_bytes_max, fits) in
        [(0, [false; 4]), (45, [true, false, true, true]), (104, [true, true, true, false]), (105, [true; 4])]
    {
        let request = ListResultsRequest { data_bytes_max, ..oldest_first.clone() };
        let listed = walk(&mut results, request).await;
        let data: Vec<_> = listed.into_iter().map(|record| record.data).collect();
        let expected: Vec<_> =
            given.iter().zip(fits).map(|(result, fits)| fits.then(|| result.data.clone())).collect();
        assert_eq!(data, expected, "{data_bytes_max} bytes");
    }
}

#[tokio::test]
async fn damaged_or_lost_data_is_never_handed_out() {
    let shelf = Shelf::without_memory().await;
    let damaged = new(noise(500));
    shelf.record(std::slice::from_ref(&damaged)).await;
    let sql = shelf.0.results_database.sql().await;
    let flip = "UPDATE data_block SET bytes = set_byte(bytes, 100, 255 - get_byte(bytes, 100))";
    assert_eq!(sql.execute(flip, &[]).await.unwrap(), 1);
    let mut results = shelf.results(Tenant::Acme);
    assert_eq!(download(&mut results, &damaged.id).await.unwrap_err().code(), Code::DataLoss);

    let whole = new("whole");
    shelf.record(std::slice::from_ref(&whole)).await;
    let request = ListResultsRequest { data_bytes_max: 10_000, ..Default::default() };
    let listed = walk(&mut results, request).await;
    let data: Vec<Option<&[u8]>> = listed.iter().map(|record| record.data.as_deref()).collect();
    assert_eq!(data, [Some(&b"whole"[..]), None], "one that is damaged keeps no other back");

    sql.batch_execute("DELETE FROM data_block").await.unwrap();
    assert_eq!(download(&mut results, &whole.id).await.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test]
async fn expired_data_is_gone_and_said_to_be() {
    let shelf = Shelf::start().await;
    let result = new("x");
    shelf.record(std::slice::from_ref(&result)).await;
    shelf.expire(&result.id).await;
    let gone = download(&mut shelf.results(Tenant::Acme), &result.id).await.unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition);
}
