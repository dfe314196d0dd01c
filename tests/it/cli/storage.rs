//! `sluice storage`, and files on their way through a real bucket and back.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sluice_tests::{Pair, S3Server, Service, Tenant, eventually, scratch};
use tokio::process::Command;

use super::{json_lines, run, run_well, sluice_as, text};
use crate::http::support::get_url;

/// Larger than a part of an upload.
const FILE_BYTES: usize = 12_000_001;

/// A pair whose results service may use this server, and keeps credentials.
async fn pair(server: &S3Server) -> Pair {
    let keys = scratch("storage").join("keys.toml");
    std::fs::write(&keys, format!("[[key]]\nid = \"k1\"\nsecret = \"{}\"\n", "5c".repeat(32))).unwrap();
    Pair::builder()
        .flag(Service::Results, "storage-endpoints", &server.endpoint())
        .flag(Service::Results, "storage-keys-file", keys.to_str().unwrap())
        .start()
        .await
}

/// `sluice storage create` for a bucket of this server, the secret in a file.
fn create(pair: &Pair, server: &S3Server, secret: &str) -> Command {
    let file = scratch("storage").join("secret");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let mut command = sluice_as(pair, Tenant::Acme, &["storage", "create", "s3://bucket/pre/fix", "--json"]);
    command.args(["--credential", &format!("secret_access_key=@{}", file.display())]);
    command.args(["--credential", "access_key_id=env:TEST_ACCESS_KEY_ID"]);
    command.env("TEST_ACCESS_KEY_ID", S3Server::ACCESS_KEY_ID);
    command.args(["--credential", &format!("endpoint={}", server.endpoint())]);
    command
}

fn one(shown: &str) -> Value {
    json_lines(shown).remove(0)
}

fn path(value: &Path) -> &str {
    value.to_str().unwrap()
}

/// Publishes a line and a file, and returns both as they were.
async fn publish_two(pair: &Pair) -> [Vec<u8>; 2] {
    run_well(sluice_as(pair, Tenant::Acme, &["definitions", "put", "--path", "s/any"])).await;
    let folder = scratch("storage");
    let line = br#"{"path":"s/any","n":1.50}"#.to_vec();
    std::fs::write(folder.join("line"), &line).unwrap();
    run_well(sluice_as(pair, Tenant::Acme, &["publish", path(&folder.join("line"))])).await;
    let file: Vec<u8> = (0..FILE_BYTES).map(|at| (at % 249) as u8).collect();
    let to_publish = folder.join("file");
    std::fs::write(&to_publish, &file).unwrap();
    let publish = ["file", "publish", path(&to_publish), "--definition", "s/any", "--chkpt", "c"];
    let told = run_well(sluice_as(pair, Tenant::Acme, &[&publish[..], &["--json"]].concat())).await;
    assert_eq!((&one(&told)["outcome"], &one(&told)["size"]), (&"success".into(), &FILE_BYTES.into()));
    let again = run_well(sluice_as(pair, Tenant::Acme, &publish)).await;
    assert!(again.contains("duplicate") && again.contains("was success"), "{again}");
    [line, file]
}

async fn two_results(pair: &Pair) -> Vec<Value> {
    eventually("the results", || async {
        let list = ["results", "list", "--oldest-first", "--json"];
        let mut listed = json_lines(&run_well(sluice_as(pair, Tenant::Acme, &list)).await);
        listed.sort_by_key(|result| result["size"].as_u64());
        (listed.len() == 2).then_some(listed)
    })
    .await
}

fn download(pair: &Pair, id: &Value) -> (Command, PathBuf) {
    let to = scratch("storage").join("out");
    (sluice_as(pair, Tenant::Acme, &["results", "download", id.as_str().unwrap(), "-o", path(&to)]), to)
}

#[tokio::test]
async fn what_is_published_lies_in_the_bucket_and_comes_back_by_every_way() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let pair = pair(&server).await;
    let mut create = create(&pair, &server, S3Server::SECRET_ACCESS_KEY);
    create.args(["--signed-urls", "1h", "--managed", "--retention", "90d", "--default"]);
    let config = one(&run_well(create).await);
    assert_eq!((&config["state"], &config["is_default"]), (&"valid".into(), &true.into()), "{config}");
    assert_eq!((&config["retention"], &config["signed_urls_expiry"]), (&7_776_000.into(), &3600.into()));
    assert_eq!(server.keys("bucket"), [""; 0], "the probe leaves nothing");

    let published = publish_two(&pair).await;
    let results = two_results(&pair).await;
    for (result, bytes) in results.iter().zip(&published) {
        let key = result["url"].as_str().unwrap().strip_prefix("s3://bucket/").unwrap();
        assert!(key.starts_with("pre/fix/acme/") && key.ends_with(result["id"].as_str().unwrap()), "{key}");
        assert!(server.read("bucket", key).unwrap() == *bytes);
        let (download, to) = download(&pair, &result["id"]);
        run_well(download).await;
        assert!(std::fs::read(to).unwrap() == *bytes);
        let url = result["signed_url"]["url"].as_str().unwrap();
        let answer = get_url(url, &[]).await;
        assert!(answer.status == 200 && answer.body == *bytes, "{}", answer.status);
        assert_eq!(get_url(url.split('?').next().unwrap(), &[]).await.status, 403);
    }
    assert_eq!(server.open_uploads(), 0);
    let id = config["id"].as_str().unwrap();
    let clean = run(sluice_as(&pair, Tenant::Acme, &["storage", "reconcile", id])).await;
    assert_eq!(clean.status.code(), Some(0), "{}{}", text(&clean.stdout), text(&clean.stderr));
    assert!(
        text(&clean.stdout).starts_with("0 findings; 2 objects and 2 records"),
        "{}",
        text(&clean.stdout)
    );
}

#[tokio::test]
async fn reconciling_finds_what_was_planted_and_what_was_removed() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let pair = pair(&server).await;
    let mut create = create(&pair, &server, S3Server::SECRET_ACCESS_KEY);
    let config = one(&run_well({
        create.arg("--default");
        create
    })
    .await);
    publish_two(&pair).await;
    let results = two_results(&pair).await;
    let removed = results[0]["url"].as_str().unwrap().strip_prefix("s3://bucket/").unwrap();
    server.delete("bucket", removed);
    server.write("bucket", "pre/fix/acme/2026-01-01/no-id", b"planted");

    let reconcile = ["storage", "reconcile", config["id"].as_str().unwrap()];
    let found = run(sluice_as(&pair, Tenant::Acme, &[&reconcile[..], &["--json"]].concat())).await;
    assert_eq!(found.status.code(), Some(1), "{}", text(&found.stderr));
    let mut lines = json_lines(&text(&found.stdout));
    let totals = lines.pop().unwrap();
    assert_eq!(
        (&totals["findings"], &totals["objects"], &totals["records"]),
        (&2.into(), &2.into(), &2.into())
    );
    lines.sort_by_key(|line| line["finding"].to_string());
    assert_eq!(lines[0]["finding"], "object_without_record");
    assert_eq!(lines[0]["url"], "s3://bucket/pre/fix/acme/2026-01-01/no-id");
    assert_eq!(lines[1]["finding"], "record_without_object");
    assert_eq!((&lines[1]["id"], &lines[1]["url"]), (&results[0]["id"], &results[0]["url"]));

    let shown = text(&run(sluice_as(&pair, Tenant::Acme, &reconcile)).await.stdout);
    assert!(shown.contains("object without record  -  s3://bucket/pre/fix"), "{shown}");
    assert!(shown.ends_with("2 findings; 2 objects and 2 records looked at\n"), "{shown}");
    let (download, to) = download(&pair, &results[0]["id"]);
    assert!(!run(download).await.status.success() && !to.exists());
}

#[tokio::test]
async fn a_config_is_created_changed_probed_and_taken_out_of_use() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let pair = pair(&server).await;
    let as_acme = |args: &[&str]| sluice_as(&pair, Tenant::Acme, args);
    let mut with_default = create(&pair, &server, "a wrong secret");
    let created = run({
        with_default.arg("--default");
        with_default
    })
    .await;
    assert_eq!(created.status.code(), Some(1), "{}", text(&created.stderr));
    let config = one(&text(&created.stdout));
    assert_eq!((&config["state"], &config["is_default"]), (&"invalid".into(), &false.into()), "{config}");
    assert!(!config["state_details"].as_str().unwrap().is_empty());
    assert!(!text(&created.stdout).contains("wrong secret"));
    let id = config["id"].as_str().unwrap();
    assert_eq!(run(as_acme(&["storage", "test", id])).await.status.code(), Some(1));
    let refused = run(as_acme(&["storage", "default", id])).await;
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("FailedPrecondition"));

    let mut update = as_acme(&["storage", "update", id, "--retention", "forever", "--managed"]);
    for (name, value) in [
        ("access_key_id", S3Server::ACCESS_KEY_ID),
        ("secret_access_key", S3Server::SECRET_ACCESS_KEY),
        ("endpoint", &server.endpoint()),
    ] {
        update.arg("--credential").arg(format!("{name}={value}"));
    }
    assert!(run_well(update).await.contains("changed: valid"));
    assert!(run_well(as_acme(&["storage", "test", id])).await.contains("tested: valid"));
    assert!(run_well(as_acme(&["storage", "default", id])).await.contains("is the default"));
    let table = run_well(as_acme(&["storage", "list"])).await;
    for part in ["s3://bucket/pre/fix", "valid", "yes", "forever"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(run_well(as_acme(&["storage", "default", "db"])).await.contains("built-in db"));
    let shown = one(&run_well(as_acme(&["storage", "get", id, "--json"])).await);
    assert_eq!((&shown["is_default"], &shown["retention"]), (&false.into(), &0.into()), "{shown}");
    assert!(run_well(as_acme(&["storage", "deactivate", id])).await.contains("deactivated"));
    let listed = json_lines(&run_well(as_acme(&["storage", "list", "--json"])).await);
    assert!(listed.iter().any(|config| config["id"] == id && config["state"] == "deactivated"));
    let late = run(as_acme(&["storage", "test", id])).await;
    assert!(late.status.code() == Some(1) && text(&late.stderr).contains("FailedPrecondition"));
    let foreign = run(sluice_as(&pair, Tenant::Globex, &["storage", "get", id])).await;
    assert!(foreign.status.code() == Some(1) && text(&foreign.stderr).contains("NotFound"));
}
