//! The settings as operators see them: the documents' table, what is printed, and
//! what is said about faults.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Command, Output},
};

use sluice_service::config::Setting;
use sluice_tests::program;

const DOCUMENT: &str = include_str!("../../deploy/SETTINGS.md");
const HEAD: &str = "| setting | of | default | what it is |\n| --- | --- | --- | --- |\n";

/// The document's table, made from the code.
fn table() -> String {
    let (ingest, results) = (sluice_ingest::Settings::TABLE, sluice_results::Settings::TABLE);
    let same = |a: &Setting, b: &Setting| (a.name, a.default, a.meaning) == (b.name, b.default, b.meaning);
    let mut rows = String::from(HEAD);
    let mut add = |of: &str, setting: &Setting| {
        let default = match setting.default {
            None => "must be given".to_owned(),
            Some("") => String::new(),
            Some(text) => format!("`{text}`"),
        };
        let meaning = setting.meaning.trim_end_matches('.').replace('|', "\\|");
        rows.push_str(&format!("| `{}` | {of} | {default} | {meaning} |\n", setting.name));
    };
    for setting in ingest {
        let both = results.iter().any(|other| same(setting, other));
        add(if both { "both" } else { "ingest" }, setting);
    }
    for setting in results.iter().filter(|setting| !ingest.iter().any(|other| same(setting, other))) {
        add("results", setting);
    }
    rows
}

#[test]
fn the_documented_table_is_the_code_s() {
    let table = table();
    assert!(DOCUMENT.contains(&table), "deploy/SETTINGS.md must say:\n{table}");
    let rows = DOCUMENT.split(HEAD).nth(1).unwrap().lines().take_while(|line| line.starts_with('|')).count();
    assert_eq!(rows, table.lines().count() - 2, "and nothing else");
}

fn run(service: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.args(["serve", service]).args(args).envs(env.iter().copied());
    command.output().unwrap()
}

#[test]
fn what_is_printed_can_be_read_again_and_holds_no_secret() {
    let secret = "postgres://sluice:hunter2@127.0.0.1/sluice";
    let given = ["--keys-file", "keys.toml", "--storage-keys", "a=hunter3", "--print-config"];
    let printed = run("results", &given, &[("SLUICE_DATABASE_URL", secret)]);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(!text.contains("hunter"), "{text}");
    for line in [
        "database_url = \"[redacted]\" # environment",
        "storage_keys = \"[redacted]\" # flag",
        "signing_keys = \"\" # default",
        "connections_max = 4096 # default",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), sluice_results::Settings::TABLE.len());
    let file = sluice_tests::scratch("settings").join("printed.toml");
    std::fs::write(&file, &text).unwrap();
    let again = run(
        "results",
        &["--config", file.to_str().unwrap(), "--print-config"],
        &[("SLUICE_DATABASE_URL", secret)],
    );
    let values = |text: &str| {
        let values = text.lines().map(|line| line.split(" # ").next().unwrap().to_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(values(&String::from_utf8(again.stdout).unwrap()), values(&text));
}

#[test]
fn all_faults_are_told_at_once_whoever_asks() {
    for print in [&["--print-config"][..], &[]] {
        let given = [
            "--listen",
            "here",
            "--nonsense",
            "1",
            "--shutdown-wait-seconds",
            "9",
            "--json-depth-max",
            "129",
            "--observation-bytes-max",
            "16777217",
            "--otlp-endpoint",
            "http://collector:4317",
            "--otlp-ca-file",
            "ca.pem",
        ];
        let refused =
            run("ingest", &[&given[..], print].concat(), &[("SLUICE_SHUTDOWN_DEADLINE_SECONDS", "9")]);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        let text = String::from_utf8(refused.stderr).unwrap();
        for name in [
            "listen",
            "--nonsense",
            "keys_file",
            "database_url",
            "shutdown_deadline_seconds",
            "json_depth_max",
            "observation_bytes_max: must be at most 16777216",
            "otlp_ca_file: of use with an https otlp_endpoint only",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(refused.stdout.is_empty());
    }
}

#[test]
fn an_address_that_is_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let both = ["--listen", &address, "--keys-file", "keys.toml", "--database-url", "host=127.0.0.1 port=1"];
    let ingest = ["--results-url", "http://127.0.0.1:1", "--results-token-file", "token"];
    for (service, own) in [("ingest", &ingest[..]), ("results", &[])] {
        let ended = run(service, &[&both[..], own].concat(), &[]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let text = String::from_utf8(ended.stderr).unwrap();
        assert!(text.contains(&format!("listen: can't listen on {address}: ")), "{text}");
    }
}
