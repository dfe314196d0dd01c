//! The settings as operators see them: the documents' table, what is printed, and
//! what is said about faults.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Command, Output},
};

use sluice_service::config::{Part as _, Setting};
use sluice_tests::{program, scratch};

const DOCUMENT: &str = include_str!("../../deploy/SETTINGS.md");
const HEAD: &str = "| setting | of | default | what it is |\n| --- | --- | --- | --- |\n";

/// The document's table, made from the code.
fn table() -> String {
    let (ingest, results) = (sluice_ingest::Settings::table(), sluice_results::Settings::table());
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
    for setting in &ingest {
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

/// A keys file without keys, and one that holds a token.
fn files() -> (String, String) {
    let folder = scratch("settings");
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).display().to_string()
    };
    (file("keys.toml", ""), file("token", "sluice_a_b"))
}

/// All that either service has to be given.
fn needed(service: &str) -> Vec<String> {
    let (keys, token) = files();
    let mut given = vec![format!("--keys-file={keys}"), "--database-url=host=127.0.0.1 port=1".to_owned()];
    if service == "ingest" {
        given
            .extend(["--results-url=http://127.0.0.1:1".to_owned(), format!("--results-token-file={token}")]);
    }
    given
}

/// The faults of a service that has all it needs, and these flags.
fn faults(service: &str, flags: &str) -> Vec<String> {
    let args: Vec<_> =
        needed(service).into_iter().chain(flags.split_whitespace().map(str::to_owned)).collect();
    let faults = match service {
        "ingest" => sluice_ingest::Settings::load(args, []).err(),
        _ => sluice_results::Settings::load(args, []).err(),
    };
    faults.map(|faults| faults.0).unwrap_or_default()
}

#[test]
fn what_is_printed_can_be_read_again_and_holds_no_secret() {
    let secret = "postgres://sluice:hunter2@127.0.0.1/sluice";
    let (keys, key) = (files().0, format!("hunter={}", "0a".repeat(32)));
    let secrets = [("SLUICE_DATABASE_URL", secret), ("SLUICE_STORAGE_KEYS", key.as_str())];
    let printed = run("results", &["--keys-file", &keys, "--print-config"], &secrets);
    assert!(printed.status.success(), "{printed:?}");
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(!text.contains("hunter"), "{text}");
    for line in [
        "database_url = \"[redacted]\" # environment",
        "storage_keys = \"[redacted]\" # environment",
        "signing_keys = \"\" # default",
        "connections_max = 4096 # default",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), sluice_results::Settings::table().len());
    let file = PathBuf::from(keys).with_file_name("printed.toml");
    std::fs::write(&file, &text).unwrap();
    let again = run("results", &["--config", file.to_str().unwrap(), "--print-config"], &secrets);
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
            "observation_bytes_max: must be from 1 to 16777216",
            "otlp_ca_file: of use with an https otlp_endpoint only",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
        assert!(refused.stdout.is_empty());
    }
}

#[test]
fn files_that_are_not_there_are_told_with_the_other_faults() {
    let needed = needed("ingest");
    let none = ["--keys-file=/none/keys", "--results-token-file=/none/token", "--lanes=0"];
    let args: Vec<_> = needed.iter().map(String::as_str).chain(none).collect();
    for print in [&["--print-config"][..], &[]] {
        let refused = run("ingest", &[&args[..], print].concat(), &[]);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        let text = String::from_utf8(refused.stderr).unwrap();
        let told: Vec<_> = text.lines().skip(1).map(str::trim).collect();
        let [keys, token, lanes] = told[..] else { panic!("{text}") };
        assert!(keys.starts_with("keys_file: /none/keys: "), "{text}");
        assert!(token.starts_with("results_token_file: /none/token: "), "{text}");
        assert_eq!(lanes, "lanes: must be from 1 to 1048576");
    }
}

#[test]
fn what_no_service_can_run_with_is_a_fault() {
    for (service, setting, bad) in [
        ("ingest", "results_resolve_seconds", "0"),
        ("ingest", "lanes", "1048577"),
        ("ingest", "database_connections", "0"),
        ("ingest", "gate_retention_seconds", "0"),
        ("ingest", "files_max", "0"),
        ("ingest", "file_idle_seconds", "0"),
        ("ingest", "observations_max", "0"),
        ("ingest", "json_depth_max", "0"),
        ("ingest", "gate_retention_seconds", "3153600001"),
        ("ingest", "observation_bytes_max", "0"),
        ("ingest", "outbox_bytes_max", "0"),
        ("ingest", "outbox_organisation_bytes_max", "0"),
        ("ingest", "request_bytes_max", "0"),
        ("ingest", "results_token_file", "/dev/null"),
        ("results", "database_connections", "0"),
        ("results", "upload_idle_seconds", "0"),
        ("results", "cleanup_interval_seconds", "0"),
        ("results", "storage_endpoints", "nowhere"),
        ("results", "storage_identity_buckets", "nowhere"),
        ("results", "storage_keys", "a=00"),
        ("results", "storage_keys_file", "/none"),
        ("results", "storage_keys_file", "/dev/null"),
        ("results", "signing_keys", "a=00"),
        ("results", "signing_keys_file", "/none"),
        ("results", "signing_keys_file", "/dev/null"),
    ] {
        let told = faults(service, &format!("--{}={bad}", setting.replace('_', "-")));
        assert!(told.len() == 1 && told[0].contains(setting), "{setting}: {told:?}");
        assert!(!told[0].contains("=00"), "{told:?}");
    }
    let least = "--json-depth-max=1 --lanes=1 --observations-max=1 --gate-retention-seconds=1 \
                 --observation-bytes-max=1 --outbox-bytes-max=1 --outbox-organisation-bytes-max=1 \
                 --request-bytes-max=1";
    assert_eq!(faults("ingest", least), Vec::<String>::new());
    assert_eq!(faults("ingest", "--gate-retention-seconds=3153600000"), Vec::<String>::new());
    let least = "--database-connections=1 --upload-idle-seconds=1 --cleanup-interval-seconds=1";
    assert_eq!(faults("results", least), Vec::<String>::new());
}

#[test]
fn an_address_that_is_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for service in ["ingest", "results"] {
        let needed = needed(service);
        let given: Vec<_> = needed.iter().map(String::as_str).chain(["--listen", &address]).collect();
        let ended = run(service, &given, &[]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let text = String::from_utf8(ended.stderr).unwrap();
        assert!(text.contains(&format!("listen: can't listen on {address}: ")), "{text}");
    }
}
