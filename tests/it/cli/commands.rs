//! The smaller commands: definitions, results, keys, bench.

use sluice_tests::{Pair, Tenant, eventually, scratch};

use super::{json_lines, run, run_well, sluice, sluice_as, text};

#[tokio::test]
async fn definitions_are_put_shown_listed_and_deleted() {
    let pair = Pair::start().await;
    let as_acme = |args: &[&str]| sluice_as(&pair, Tenant::Acme, args);
    let file = scratch("definitions").join("two.json");
    let two = r#"[{"path":"a/one","unique":"1h","unique_by":["/id"]},
                  {"path":"a/two","throttle_count":5,"throttle_period":60,"json_schema":{"type":"object"}}]"#;
    std::fs::write(&file, two).unwrap();
    let file = file.to_str().unwrap();
    run_well(as_acme(&["definitions", "validate", file])).await;
    assert_eq!(run_well(as_acme(&["definitions", "list", "--json"])).await, "", "validating keeps nothing");
    run_well(as_acme(&["definitions", "put", file])).await;

    let listed = json_lines(&run_well(as_acme(&["definitions", "list", "--json"])).await);
    let rules: Vec<_> = listed.iter().map(|d| (d["path"].as_str(), d["unique"].as_u64())).collect();
    assert_eq!(rules, [(Some("a/one"), Some(3600)), (Some("a/two"), None)]);
    let got = json_lines(&run_well(as_acme(&["definitions", "get", "a/two", "--json"])).await);
    assert_eq!((&got[0]["throttle_count"], &got[0]["throttle_period"]), (&5.into(), &60.into()));
    let table = run_well(as_acme(&["definitions", "list"])).await;
    assert!(table.contains("5 per 1m"), "{table}");

    let stale = run(as_acme(&["definitions", "put", "--path", "a/one", "--etag", "stale"])).await;
    assert_eq!(stale.status.code(), Some(1), "{}", text(&stale.stderr));
    run_well(as_acme(&["definitions", "delete", "a/one"])).await;
    let gone = run(as_acme(&["definitions", "get", "a/one"])).await;
    assert!(gone.status.code() == Some(1) && text(&gone.stderr).contains("NotFound"));
    let invalid = run(as_acme(&["definitions", "validate", "--path", "a//b"])).await;
    assert_eq!(invalid.status.code(), Some(1));
}

#[tokio::test]
async fn system_wide_needs_to_be_said_and_allowed() {
    let pair = Pair::start().await;
    let unclear = run(sluice_as(&pair, Tenant::Admin, &["definitions", "put", "--path", "wide"])).await;
    assert!(unclear.status.code() == Some(2) && text(&unclear.stderr).contains("--system-wide"));
    let put = ["definitions", "put", "--path", "wide", "--system-wide"];
    let refused = run(sluice_as(&pair, Tenant::Acme, &put)).await;
    assert!(!refused.status.success());
    run_well(sluice_as(&pair, Tenant::Admin, &put)).await;
    let seen = sluice_as(&pair, Tenant::Acme, &["definitions", "list", "--include-system-wide"]);
    assert!(run_well(seen).await.contains("(system-wide)"));
}

#[tokio::test]
async fn results_are_signed_off_once() {
    let pair = Pair::start().await;
    let as_acme = |args: &[&str]| sluice_as(&pair, Tenant::Acme, args);
    run_well(as_acme(&["definitions", "put", "--path", "ack"])).await;
    let file = scratch("ack").join("file.jsonl");
    std::fs::write(&file, "{\"path\":\"ack\",\"poll\":\"p\"}\n".repeat(5)).unwrap();
    run_well(as_acme(&["publish", file.to_str().unwrap()])).await;
    let listed = eventually("the results", || async {
        let listed = run_well(as_acme(&["results", "list", "--poll", "p", "--json"])).await;
        (listed.lines().count() == 5).then_some(listed)
    })
    .await;
    let first = json_lines(&listed)[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(run_well(as_acme(&["results", "ack", &first])).await, "1 of 1 acknowledged\n");
    assert!(run_well(as_acme(&["results", "ack", &first])).await.starts_with("0 of 1"));

    let mut rest = as_acme(&["results", "ack", "--stdin"]);
    let mut child = rest.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, listed.as_bytes()).await.unwrap();
    drop(stdin);
    assert_eq!(text(&child.wait_with_output().await.unwrap().stdout), "4 of 5 acknowledged\n");
    assert_eq!(run_well(as_acme(&["results", "list", "--json"])).await, "");
    let consumed = run_well(as_acme(&["results", "list", "--state", "consumed", "--json"])).await;
    assert_eq!(json_lines(&consumed).len(), 5);
    let shown = run_well(as_acme(&["results", "get", &first])).await;
    assert!(shown.contains("consumed"), "{shown}");
    let unknown = run(as_acme(&["results", "ack", "nonsense"])).await;
    assert!(unknown.status.code() == Some(1) && text(&unknown.stderr).contains("NotFound"));
}

#[tokio::test]
async fn a_new_token_works_as_soon_as_its_entry_is_in_the_file() {
    let pair = Pair::start().await;
    let mut new = sluice(&["keys", "new", "--organisation", "initech", "--scope", "results.read"]);
    new.arg("--keys-file").arg(&pair.keys_file);
    let token = run_well(new).await.trim().to_owned();
    assert!(token.starts_with("sluice_"), "{token}");
    eventually("the new key", || async {
        let mut list = sluice(&["results", "list", "--results", &pair.results[0].url()]);
        list.env("SLUICE_TOKEN", &token);
        run(list).await.status.success().then_some(())
    })
    .await;
    let mut ack = sluice(&["results", "ack", "x", "--results", &pair.results[0].url()]);
    ack.env("SLUICE_TOKEN", &token);
    let refused = run(ack).await;
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("results.ack"));
}

#[tokio::test]
async fn a_benchmark_consumes_nobody_elses_results() {
    let pair = Pair::start().await;
    let as_acme = |args: &[&str]| sluice_as(&pair, Tenant::Acme, args);
    run_well(as_acme(&["definitions", "put", "--path", "mine"])).await;
    let file = scratch("bench").join("file.jsonl");
    std::fs::write(&file, r#"{"path":"mine"}"#).unwrap();
    run_well(as_acme(&["publish", file.to_str().unwrap()])).await;
    let available = async || run_well(as_acme(&["results", "list", "--json"])).await.lines().count();
    eventually("the result", async || (available().await == 1).then_some(())).await;
    for scenario in ["end-to-end", "acknowledge"] {
        let refused = run(as_acme(&["bench", "--scenario", scenario, "--seconds", "1"])).await;
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("has results of mine"), "{}", text(&refused.stderr));
        assert_eq!(available().await, 1, "neither consumed nor joined by others");
    }
}

#[tokio::test]
async fn a_benchmark_takes_no_flag_that_it_would_ignore() {
    for flag in [["--batch", "7"], ["--rate", "10"], ["--duplicates", "0.5"], ["--organisations", "2"]] {
        let args = ["bench", "--against", "floor", flag[0], flag[1]];
        assert_eq!(run(sluice(&args)).await.status.code(), Some(2), "{flag:?}");
    }
}

#[tokio::test]
async fn every_benchmark_runs_clean() {
    let pair = Pair::start().await;
    for scenario in ["publish", "end-to-end", "acknowledge", "single"] {
        let args = ["bench", "--scenario", scenario, "--seconds", "3", "--warmup", "0", "--json"];
        let mut bench = sluice_as(&pair, Tenant::Admin, &args);
        bench.args(["--organisations", "2", "--definitions", "3", "--duplicates", "0.1"]);
        let report = json_lines(&run_well(bench).await).remove(0);
        assert_eq!((&report["scenario"], &report["corrupt"]), (&scenario.into(), &0.into()), "{report}");
        assert!(report["per_second"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{report}");
        if scenario == "end-to-end" {
            // Of its own, and not what the run before left; four calls may be under way in the end.
            let [published, acknowledged] = [&report["outcomes"]["success"], &report["acknowledged"]];
            assert!(acknowledged.as_u64().unwrap() <= published.as_u64().unwrap() + 4 * 100, "{report}");
        }
        assert_eq!(report["missing"], 0, "{report}");
    }
}
