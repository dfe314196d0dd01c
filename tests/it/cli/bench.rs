//! `sluice bench --against floor`: that it runs clean and says what it should. How
//! fast anything is, no test asks.

use serde_json::Value;

use super::{json_lines, run, sluice, text};

/// A comparison as short as the machine lets it be; what it printed. One that is busy with
/// other things may have to refuse something when all begin at once.
async fn compare(scenarios: &[&str], more: &[&str]) -> Vec<Value> {
    let mut found = Vec::new();
    for seconds in ["1", "5", "25"] {
        found = compare_for(seconds, scenarios, more).await;
        if found.iter().all(|outcome| is_measured(outcome) && outcome["clean"] == true) {
            break;
        }
    }
    for outcome in &found {
        assert!(is_measured(outcome), "{outcome}");
        assert_eq!(outcome["clean"], true, "{outcome}");
        for figure in outcome["figures"].as_array().unwrap() {
            let (value, target) = (&figure["value"], &figure["target"]);
            assert!(value["median"].as_f64().unwrap() > 0.0 && value["min"].is_f64(), "{figure}");
            assert!(target["at_least"].is_f64() || target["below"].is_f64(), "{figure}");
            assert!(figure["met"].is_boolean(), "{figure}");
        }
    }
    found
}

/// Whether all that was to be counted in a round was done there at least once.
fn is_measured(outcome: &Value) -> bool {
    let rate = |side: &str| outcome[side]["per_second"]["median"].as_f64();
    ["sluice", "floor"].into_iter().filter_map(rate).all(|rate| rate > 0.0)
}

async fn compare_for(seconds: &str, scenarios: &[&str], more: &[&str]) -> Vec<Value> {
    let mut args =
        vec!["bench", "--against", "floor", "--rounds", "1", "--seconds", seconds, "--warmup", "0"];
    args.extend(["--json", "--no-install"]);
    scenarios.iter().for_each(|scenario| args.extend(["--scenario", scenario]));
    args.extend(more);
    let output = run(sluice(&args)).await;
    let printed = json_lines(&text(&output.stdout)).remove(0);
    let is_clean = printed["scenarios"].as_array().unwrap().iter().all(|outcome| outcome["clean"] == true);
    assert_eq!(output.status.success(), is_clean, "{}", text(&output.stderr));
    assert!(printed["machine"].as_str().unwrap().contains("fsync = on"), "{printed}");
    printed["scenarios"].as_array().unwrap().clone()
}

fn names(outcomes: &[Value]) -> Vec<&str> {
    outcomes.iter().map(|outcome| outcome["scenario"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn sluice_and_the_floor_take_turns() {
    let outcomes = compare(&["S1", "s2", "S5"], &[]).await;
    assert_eq!(names(&outcomes), ["S1", "S2", "S5"]);
    for outcome in &outcomes {
        assert!(outcome["ratio"].as_f64().unwrap() > 0.0, "{outcome}");
        for side in [&outcome["sluice"], &outcome["floor"]] {
            assert!(side["per_second"]["median"].as_f64().unwrap() > 0.0, "{outcome}");
            assert!(side["latency_ms"]["p99"].as_f64().unwrap() > 0.0, "{outcome}");
            assert!(side["wal_bytes_per_observation"].as_f64().unwrap() > 0.0, "{outcome}");
            // One caller of single ones is too little for a clock that ticks every 10 ms.
            let is_much = outcome["scenario"] != "S5";
            let postgres = side["cpu_seconds_per_100000"]["postgres"].as_f64().unwrap();
            assert!(postgres > 0.0 || !is_much, "{outcome}");
        }
    }
}

#[tokio::test]
async fn a_held_transaction_and_memory() {
    let outcomes = compare(&["s6", "s8", "s9"], &[]).await;
    assert_eq!(names(&outcomes), ["S6", "S8", "S9"]);
    assert!(outcomes[0]["sluice"]["publish_to_available_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert_eq!(outcomes[2]["figures"].as_array().unwrap().len(), 4);
}

/// What is filled in can be listed and got (s10), and new ones acknowledged beside it
/// (s7).
#[tokio::test]
async fn results_from_before_are_like_any_others() {
    let outcomes = compare(&["s7", "s10"], &["--filled", "5000"]).await;
    assert_eq!(names(&outcomes), ["S7", "S10"]);
    assert!(outcomes[0]["ratio"].as_f64().unwrap() > 0.0);
    assert_eq!(outcomes[1]["figures"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn scenarios_of_one_kind_are_not_mixed_with_the_other() {
    let refused = run(sluice(&["bench", "--scenario", "s2"])).await;
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("--against floor"));
    let refused = run(sluice(&["bench", "--against", "floor", "--scenario", "publish"])).await;
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("not a scenario"));
    let refused = run(sluice(&["bench", "--check"])).await;
    assert!(refused.status.code() == Some(2) && text(&refused.stderr).contains("--against"));
}
