//! `sluice dev` and `sluice demo`: a pair from nothing, kept running, stopped
//! without a trace.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use sluice::{connection::is_serving, ready::Ready};
use sluice_tests::{S3Server, eventually, scratch};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use super::{json_lines, run, run_well, sluice, text};
use crate::http::support::get_url;

/// A running `sluice dev` on free ports.
struct Dev {
    child: Child,
    ready_file: PathBuf,
}

impl Dev {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// With more in its environment.
    async fn start_with(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let ready_file = folder.join("ready");
        let mut command = sluice(&["dev", "--no-install", "--ingest-addr", "127.0.0.1:0"]);
        command.args(["--results-addr", "127.0.0.1:0", "--ready-file"]).arg(&ready_file);
        command.arg("--data-dir").arg(folder.join("data"));
        command.envs(environment.iter().copied());
        // A killed one left its file, until this one removes it.
        let before = Ready::read(&ready_file).ok();
        let dev = Self { child: command.spawn().unwrap(), ready_file };
        let serves =
            || async { Ready::read(&dev.ready_file).ok().filter(|now| Some(now) != before.as_ref()) };
        eventually("dev", serves).await;
        dev
    }

    fn ready(&self) -> Ready {
        Ready::read(&self.ready_file).unwrap()
    }

    async fn sluice(&self, args: &[&str]) -> String {
        let mut command = sluice(args);
        command.env("SLUICE_READY_FILE", &self.ready_file);
        run_well(command).await
    }

    async fn stop(mut self) -> ExitStatus {
        signal("TERM", self.child.id().unwrap());
        self.child.wait().await.unwrap()
    }
}

pub fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(sent.unwrap().success());
}

fn lives(pid: u32) -> bool {
    let mut asking = std::process::Command::new("kill");
    asking.args(["-0", &pid.to_string()]).stderr(std::process::Stdio::null());
    asking.status().unwrap().success()
}

async fn are_gone(pids: [u32; 3]) {
    eventually("the children's end", || async { (!pids.into_iter().any(lives)).then_some(()) }).await;
}

fn pids(ready: &Ready) -> [u32; 3] {
    [ready.pids.ingest, ready.pids.results, ready.pids.postgres]
}

async fn publish_one(dev: &Dev, folder: &Path, number: u32) {
    let file = folder.join(format!("{number}.jsonl"));
    std::fs::write(&file, format!(r#"{{"path":"dev/test","chkpt":"{number}","n":{number}}}"#)).unwrap();
    dev.sluice(&["publish", file.to_str().unwrap()]).await;
}

async fn available(dev: &Dev, expected: usize) {
    eventually("results", || async {
        let listed = dev.sluice(&["results", "list", "--all", "--json"]).await;
        (json_lines(&listed).len() == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pair_from_nothing_restarts_what_is_killed_and_finds_its_data_again() {
    let folder = scratch("dev");
    let dev = Dev::start(&folder).await;
    let first = dev.ready();
    let mode = std::fs::metadata(&dev.ready_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds tokens");
    assert!(is_serving(&first.ingest).await && is_serving(&first.results).await);
    dev.sluice(&["definitions", "put", "--path", "dev/test"]).await;
    publish_one(&dev, &folder, 1).await;
    available(&dev, 1).await;

    for which in 0..3 {
        let killed = pids(&dev.ready())[which];
        signal("KILL", killed);
        eventually("another process", || async { (pids(&dev.ready())[which] != killed).then_some(()) }).await;
        let serves =
            || async { (is_serving(&first.ingest).await && is_serving(&first.results).await).then_some(()) };
        eventually("the pair", serves).await;
        publish_one(&dev, &folder, 2 + u32::try_from(which).unwrap()).await;
    }
    available(&dev, 4).await;

    let last = dev.ready();
    let ready_file = dev.ready_file.clone();
    assert!(dev.stop().await.success());
    assert!(!ready_file.exists());
    are_gone(pids(&last)).await;

    let dev = Dev::start(&folder).await;
    assert_eq!((dev.ready().token, dev.ready().admin_token), (first.token, first.admin_token));
    available(&dev, 4).await;
    assert!(dev.stop().await.success());
}

#[tokio::test]
async fn storage_works_from_the_start_and_is_the_same_after_a_restart() {
    let folder = scratch("dev");
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let endpoint = server.endpoint();
    let environment = [("SLUICE_STORAGE_ENDPOINTS", endpoint.as_str())];
    let dev = Dev::start_with(&folder, &environment).await;
    let mut create = vec!["storage", "create", "s3://bucket/a", "--json"];
    let credentials = [
        format!("endpoint={endpoint}"),
        format!("access_key_id={}", S3Server::ACCESS_KEY_ID),
        format!("secret_access_key={}", S3Server::SECRET_ACCESS_KEY),
    ];
    create.extend(credentials.iter().flat_map(|credential| ["--credential", credential]));
    let bucket = json_lines(&dev.sluice(&create).await).remove(0);
    assert_eq!(bucket["state"], "valid", "{bucket}");
    dev.sluice(&["storage", "create", "local://files/a", "--signed-urls", "1h", "--default"]).await;
    dev.sluice(&["definitions", "put", "--path", "dev/test"]).await;
    publish_one(&dev, &folder, 1).await;
    available(&dev, 1).await;
    let list = ["results", "list", "--json"];
    let before = json_lines(&dev.sluice(&list).await).remove(0);
    let signed = before["signed_url"]["url"].as_str().unwrap().to_owned();
    let shown = dev.sluice(&["results", "get", before["id"].as_str().unwrap()]).await;
    assert!(shown.contains(&signed), "whole: {shown}");
    let path = signed.strip_prefix(&dev.ready().results).unwrap().to_owned();
    assert_eq!(get_url(&signed, &[]).await.body, std::fs::read(folder.join("1.jsonl")).unwrap());
    assert!(folder.join("data/storage/files/a/acme").is_dir());
    assert!(dev.stop().await.success());

    let dev = Dev::start_with(&folder, &environment).await;
    let answer = get_url(&format!("{}{path}", dev.ready().results), &[]).await;
    assert_eq!(answer.status, 200, "signed with the same key");
    let tested = dev.sluice(&["storage", "test", bucket["id"].as_str().unwrap()]).await;
    assert!(tested.contains("valid"), "its credentials are readable: {tested}");
    assert!(dev.stop().await.success());
}

#[tokio::test]
async fn a_ready_file_that_cannot_be_written_ends_nothing() {
    let folder = scratch("dev");
    let mut dev = Dev::start(&folder).await;
    let first = dev.ready();
    // Nothing can be put in the place of a folder.
    std::fs::remove_file(&dev.ready_file).unwrap();
    std::fs::create_dir_all(dev.ready_file.join("in the way")).unwrap();
    signal("KILL", first.pids.ingest);
    let mut said = BufReader::new(dev.child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") && said.read_line(&mut line).await.unwrap() > 0 {}
    eventually("ingest", || async { is_serving(&first.ingest).await.then_some(()) }).await;
    std::fs::remove_dir_all(&dev.ready_file).unwrap();
    assert!(dev.stop().await.success());
    are_gone(pids(&first)).await;
}

#[tokio::test]
async fn nothing_outlives_a_killed_dev_and_the_next_one_starts() {
    let folder = scratch("dev");
    let mut dev = Dev::start(&folder).await;
    let before = dev.ready();
    dev.child.kill().await.unwrap();
    are_gone(pids(&before)).await;
    let dev = Dev::start(&folder).await;
    assert_ne!(dev.ready().pids, before.pids);
    assert!(dev.stop().await.success());
}

#[tokio::test]
async fn a_folder_has_one_dev() {
    let folder = scratch("dev");
    let dev = Dev::start(&folder).await;
    let mut second = sluice(&["dev", "--no-install", "--ingest-addr", "127.0.0.1:0"]);
    second.args(["--results-addr", "127.0.0.1:0", "--ready-file"]).arg(&dev.ready_file);
    second.arg("--data-dir").arg(folder.join("data"));
    let output = run(second).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("another sluice"), "{}", text(&output.stderr));
    assert!(is_serving(&dev.ready().ingest).await, "the first and its ready file are unharmed");
    assert!(dev.stop().await.success());
}

#[tokio::test]
async fn the_demo_holds_what_it_promises_and_leaves_nothing() {
    let folder = scratch("demo");
    let mut demo = sluice(&["demo", "--no-install"]);
    demo.env("TMPDIR", &folder);
    let shown = run_well(demo).await;
    for outcome in ["success", "duplicate", "suppressed", "throttled", "error"] {
        assert!(shown.contains(outcome), "{outcome} in {shown}");
    }
    assert!(shown.contains("All of it held."), "{shown}");
    eventually("its folder's end", || async {
        let entries = std::fs::read_dir(&folder).unwrap().count();
        (entries == 0).then_some(())
    })
    .await;
}

/// Sends a signal to a command that makes a pair of its own when so much of it is
/// there.
async fn leaves_nothing(args: &[&str], ending: &str, is_there: impl Fn(&Path) -> bool) {
    let folder = scratch("interrupted");
    let mut command = sluice(args);
    let mut child = command.env("TMPDIR", &folder).spawn().unwrap();
    let entries = || std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    eventually("its start", || async { entries().any(|entry| is_there(&entry)).then_some(()) }).await;
    signal(ending, child.id().unwrap());
    let code = (ending == "INT").then_some(1);
    assert_eq!(child.wait().await.unwrap().code(), code, "{args:?}");
    let works_below = |process: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_link(process.unwrap().path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder))
    };
    eventually("the end of all", || async {
        let runs = std::fs::read_dir("/proc").unwrap().any(works_below);
        (!runs && entries().count() == 0).then_some(())
    })
    .await;
}

fn server_begins(pair: &Path) -> bool {
    pair.join("postgres/data/postmaster.pid").exists()
}

#[tokio::test]
async fn an_interrupted_demo_leaves_nothing() {
    leaves_nothing(&["demo", "--no-install"], "INT", |_| true).await;
    leaves_nothing(&["demo", "--no-install"], "INT", server_begins).await;
}

#[tokio::test]
async fn an_interrupted_bench_leaves_nothing() {
    let bench = ["bench", "--private", "--no-install", "--seconds", "600"];
    leaves_nothing(&bench, "INT", server_begins).await;
    leaves_nothing(&bench, "INT", |pair| pair.join("logs/ingest.log").exists()).await;
}

#[tokio::test]
async fn a_demo_killed_when_its_server_begins_leaves_nothing() {
    leaves_nothing(&["demo", "--no-install"], "KILL", server_begins).await;
}
