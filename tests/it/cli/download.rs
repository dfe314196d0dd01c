//! `sluice results download`: whole and correct, or nothing, against a service
//! that delivers by a script.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::Command as Process, time::Duration};

use bytes::Bytes;
use hex::encode;
use md5::{Digest as _, Md5};
use sluice_proto::results::v1::{
    AcknowledgeResultRequest, AcknowledgeResultResponse, BatchAcknowledgeResultsRequest,
    BatchAcknowledgeResultsResponse, DownloadResultRequest, DownloadResultResponse, GetResultRequest,
    GetResultResponse, ListResultsRequest, ListResultsResponse, Result as Record,
    results_service_server::{ResultsService, ResultsServiceServer},
};
use sluice_tests::{eventually, scratch};
use tokio::{io::AsyncReadExt as _, net::TcpListener, process::Command, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

use super::{run, sluice, text};

/// What the service delivers of [`DATA`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Delivers {
    Whole,
    /// Less than the record says, and says that this was all.
    Less,
    /// Another byte somewhere.
    Altered,
    /// Half, then DATA_LOSS.
    Lost,
    /// Half, then nothing more, and no end.
    Hangs,
}

const DATA: &[u8] = &[7; 3 * 256 * 1024 + 5];

fn chunk(data: &[u8]) -> DownloadResultResponse {
    DownloadResultResponse { data: Bytes::copy_from_slice(data) }
}

fn never<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl ResultsService for Delivers {
    type DownloadResultStream = ReceiverStream<Result<DownloadResultResponse, Status>>;

    async fn get_result(&self, _: Request<GetResultRequest>) -> Result<Response<GetResultResponse>, Status> {
        let (checksum, size) = (encode(Md5::digest(DATA)), DATA.len() as u64);
        let result = Some(Record { checksum, size, ..Record::default() });
        Ok(Response::new(GetResultResponse { result }))
    }

    async fn download_result(
        &self,
        _: Request<DownloadResultRequest>,
    ) -> Result<Response<Self::DownloadResultStream>, Status> {
        let (to, chunks) = mpsc::channel(1);
        let delivers = *self;
        tokio::spawn(async move {
            let (first, rest) = DATA.split_at(DATA.len() / 2);
            to.send(Ok(chunk(first))).await.unwrap();
            match delivers {
                Delivers::Whole => to.send(Ok(chunk(rest))).await.unwrap(),
                Delivers::Less => to.send(Ok(chunk(&rest[1..]))).await.unwrap(),
                Delivers::Altered => to.send(Ok(chunk(&[&[8], &rest[1..]].concat()))).await.unwrap(),
                Delivers::Lost => to.send(Err(Status::data_loss("as scripted"))).await.unwrap(),
                Delivers::Hangs => to.closed().await,
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn list_results(
        &self,
        _: Request<ListResultsRequest>,
    ) -> Result<Response<ListResultsResponse>, Status> {
        never()
    }

    async fn acknowledge_result(
        &self,
        _: Request<AcknowledgeResultRequest>,
    ) -> Result<Response<AcknowledgeResultResponse>, Status> {
        never()
    }

    async fn batch_acknowledge_results(
        &self,
        _: Request<BatchAcknowledgeResultsRequest>,
    ) -> Result<Response<BatchAcknowledgeResultsResponse>, Status> {
        never()
    }
}

async fn download(delivers: Delivers, to: &Path) -> Command {
    let mut command = show(delivers).await;
    command.arg("-o").arg(to);
    command
}

/// To standard output.
async fn show(delivers: Delivers) -> Command {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(ResultsServiceServer::new(delivers));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    sluice(&["results", "download", "id", "--results", &address, "--token", "sluice_a_b"])
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_whole_one_takes_the_place_of_what_was_there() {
    let folder = scratch("download");
    let to = folder.join("out");
    std::fs::write(&to, "before").unwrap();
    let output = run(download(Delivers::Whole, &to).await).await;
    assert!(output.status.success() && text(&output.stderr).contains("MD5 correct"));
    assert!(std::fs::read(&to).unwrap() == DATA);
    assert_eq!(entries(&folder), 1, "nothing else is left");
}

#[tokio::test]
async fn what_is_not_as_the_record_says_leaves_nothing_and_harms_nothing() {
    for delivers in [Delivers::Less, Delivers::Altered, Delivers::Lost] {
        let folder = scratch("download");
        let to = folder.join("out");
        std::fs::write(&to, "before").unwrap();
        let output = run(download(delivers, &to).await).await;
        assert_eq!(output.status.code(), Some(1), "{delivers:?}");
        let said = text(&output.stderr);
        let expected = if delivers == Delivers::Lost { "DataLoss" } else { "the record says" };
        assert!(said.contains(expected), "{delivers:?}: {said}");
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "before", "{delivers:?}");
        assert_eq!(entries(&folder), 1, "{delivers:?}");
    }
}

#[tokio::test]
async fn stopping_it_leaves_nothing() {
    let folder = scratch("download");
    let mut command = download(Delivers::Hangs, &folder.join("out")).await;
    let child = command.spawn().unwrap();
    let has_some = || async {
        let of = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        std::fs::read_dir(&folder).unwrap().any(|entry| of(entry) > 0).then_some(())
    };
    eventually("the first half", has_some).await;
    let pid = child.id().unwrap().to_string();
    assert!(Process::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(entries(&folder), 0);
}

#[tokio::test]
async fn a_signal_ends_it_while_nobody_takes_what_it_writes() {
    let mut child = show(Delivers::Whole).await.spawn().unwrap();
    // It writes, and the pipe is too small for what comes.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_u8().await.unwrap();
    // Not SIGINT: whoever runs the tests in the background may have it ignored.
    let pid = child.id().unwrap().to_string();
    assert!(Process::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = timeout(Duration::from_secs(60), child.wait()).await.expect("its end").unwrap();
    assert_eq!(ended.signal(), Some(15), "{ended}");
}

#[tokio::test]
async fn it_ends_silently_when_nobody_reads_any_more() {
    let mut child = show(Delivers::Whole).await.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_u8().await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));
}

#[tokio::test]
async fn what_is_no_file_is_written_to_and_not_replaced() {
    let folder = scratch("download");
    let pipe = folder.join("pipe");
    assert!(Process::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reads = pipe.clone();
    let reader = tokio::task::spawn_blocking(move || std::fs::read(reads).unwrap());
    assert!(run(download(Delivers::Whole, &pipe).await).await.status.success());
    assert!(reader.await.unwrap() == DATA);
    assert_eq!(entries(&folder), 1);
    let output = run(download(Delivers::Whole, &folder).await).await;
    assert_eq!(output.status.code(), Some(2), "a folder");
}
