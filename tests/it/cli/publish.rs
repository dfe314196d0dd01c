//! `sluice publish`: files with real-life mishaps, services that come and go.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use sluice_tests::{Link, Pair, Tenant, eventually, scratch};

use super::{count, json_lines, run, run_well, sluice, sluice_as, text};

const PATHS: [&str; 5] = ["ssh/a", "ssh/b", "ssh/c", "ssh/d", "ssh/e"];
/// Lines of the file, and how many different keys they have.
const LINES: usize = 1000;
const KEYS: usize = 37;

/// Log lines of an SSH server's kind: few sources, many attempts.
fn file() -> (PathBuf, Vec<String>) {
    let line = |n: usize| {
        let (path, key) = (PATHS[n % PATHS.len()], n % KEYS);
        format!(r#"{{"path":"{path}","keys":{{"source":"192.0.2.{key}"}},"n":{n},"chkpt":"log:{n}"}}"#)
    };
    let lines: Vec<String> = (0..LINES).map(line).collect();
    let path = scratch("publish").join("ssh.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    (path, lines)
}

async fn put_definitions(pair: &Pair) {
    let mut put = sluice_as(pair, Tenant::Acme, &["definitions", "put", "--unique", "1d"]);
    for path in PATHS {
        put.args(["--path", path]);
    }
    run_well(put).await;
}

#[tokio::test]
async fn equal_observations_are_suppressed_and_a_second_run_is_all_duplicates() {
    let pair = Pair::start().await;
    put_definitions(&pair).await;
    let (file, lines) = file();
    let file = file.to_str().unwrap();
    // Each of the five definitions meets each of the keys.
    let accepted = PATHS.len() * KEYS;

    let first = run_well(sluice_as(&pair, Tenant::Acme, &["publish", file, "--json"])).await;
    let first = json_lines(&first);
    assert_eq!(first.len(), LINES);
    assert_eq!((count(&first, "success"), count(&first, "suppressed")), (accepted, LINES - accepted));

    let second = json_lines(&run_well(sluice_as(&pair, Tenant::Acme, &["publish", file, "--json"])).await);
    assert_eq!(count(&second, "duplicate"), LINES);
    let told: HashMap<u64, &str> = first
        .iter()
        .map(|line| (line["line"].as_u64().unwrap(), line["ingest_id"].as_str().unwrap()))
        .collect();
    for line in &second {
        assert_eq!(line["ingest_id"], told[&line["line"].as_u64().unwrap()], "{line}");
    }

    let results = eventually("the results", || async {
        let list = sluice_as(
            &pair,
            Tenant::Acme,
            &["results", "list", "--all", "--json", "--data-bytes-max", "1000000"],
        );
        let results = json_lines(&run_well(list).await);
        (results.len() == accepted).then_some(results)
    })
    .await;
    let published: HashSet<&str> = lines.iter().map(String::as_str).collect();
    for result in &results {
        assert!(published.contains(result["data"].as_str().unwrap()), "{result}");
    }
}

#[tokio::test]
async fn a_download_is_the_very_line() {
    let pair = Pair::start().await;
    run_well(sluice_as(&pair, Tenant::Acme, &["definitions", "put", "--path", "odd"])).await;
    let folder = scratch("download");
    let line = "{ \"path\":\"odd\",  \"n\":1.50, \"text\":\"\\u00e9 \u{e9}\" }\t";
    std::fs::write(folder.join("in"), format!("{line}\r\n")).unwrap();
    let input = folder.join("in");
    let told =
        run_well(sluice_as(&pair, Tenant::Acme, &["publish", input.to_str().unwrap(), "--json"])).await;
    let id = json_lines(&told)[0]["ingest_id"].as_str().unwrap().to_owned();
    let output = folder.join("out");
    eventually("the result", || async {
        let mut download = sluice_as(&pair, Tenant::Acme, &["results", "download", &id, "-o"]);
        download.arg(&output);
        run(download).await.status.success().then_some(())
    })
    .await;
    assert_eq!(std::fs::read_to_string(&output).unwrap(), line);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "no partial file is left");
}

#[tokio::test]
async fn one_error_makes_the_exit_code_one_and_says_why() {
    let pair = Pair::start().await;
    run_well(sluice_as(&pair, Tenant::Acme, &["definitions", "put", "--path", "known"])).await;
    let file = scratch("publish").join("mixed.jsonl");
    std::fs::write(&file, "{\"path\":\"known\"}\nno JSON\n{\"path\":\"unknown\"}\n\n").unwrap();
    let output = run(sluice_as(&pair, Tenant::Acme, &["publish", file.to_str().unwrap()])).await;
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    for part in ["3 observations", "success", "INVALID_JSON", "line 2", "UNKNOWN_DEFINITION", "line 3"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[tokio::test]
async fn with_a_definition_everything_is_sent_and_the_service_judges() {
    let pair = Pair::start().await;
    run_well(sluice_as(&pair, Tenant::Acme, &["definitions", "put", "--path", "any"])).await;
    let mut publish = sluice_as(&pair, Tenant::Acme, &["publish", "-", "--definition", "any", "--json"]);
    let mut child = publish.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"no JSON\n[1]\n{\"path\":\"other\"}").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&text(&output.stdout));
    assert_eq!((count(&lines, "success"), count(&lines, "error")), (2, 1), "{lines:?}");
}

#[tokio::test]
async fn a_database_that_is_away_only_delays() {
    let pair = Pair::builder().proxied(Link::IngestDatabase).start().await;
    put_definitions(&pair).await;
    let (file, _) = file();
    let file = file.to_str().unwrap();
    pair.proxy(Link::IngestDatabase).refuse();
    let patient = sluice_as(&pair, Tenant::Acme, &["publish", file, "--json"]).spawn().unwrap();
    // While this one tries for a second in vain, the other one does too.
    let hasty = ["publish", file, "--retry-for", "1", "--json"];
    let hasty = run(sluice_as(&pair, Tenant::Acme, &hasty)).await;
    assert_eq!(hasty.status.code(), Some(1));
    assert_eq!(count(&json_lines(&text(&hasty.stdout)), "retry"), LINES);
    pair.proxy(Link::IngestDatabase).pass();
    let output = patient.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = json_lines(&text(&output.stdout));
    assert_eq!(lines.len(), LINES, "each line ends once");
    let settled = count(&lines, "success") + count(&lines, "duplicate");
    assert_eq!((settled, count(&lines, "suppressed")), (PATHS.len() * KEYS, LINES - PATHS.len() * KEYS));
}

#[tokio::test]
async fn nobody_there_and_nobody_named_are_told_apart() {
    let file = scratch("publish").join("one.jsonl");
    std::fs::write(&file, "{}").unwrap();
    let file = file.to_str().unwrap();
    let nobody_named = run(sluice(&["publish", file])).await;
    assert_eq!(nobody_named.status.code(), Some(2));
    assert!(text(&nobody_named.stderr).contains("sluice dev"));
    let port = sluice::port::free().unwrap().to_string();
    let address = format!("127.0.0.1:{port}");
    let nobody_there = run(sluice(&["publish", file, "--ingest", &address, "--token", "sluice_a_b"])).await;
    assert_eq!(nobody_there.status.code(), Some(2));
    assert!(text(&nobody_there.stderr).contains("nobody answers"));
}
