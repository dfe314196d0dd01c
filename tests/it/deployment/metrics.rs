//! Every metric that an alert, the dashboard or the autoscaler's adapter names is
//! exposed, under load, by each service that it is selected for.

use serde_json::Value;
use sluice_proto::results::v1::BatchAcknowledgeResultsRequest;
use sluice_tests::Tenant;

use super::promql::{Selector, selectors};
use crate::{
    support::*,
    telemetry::exposition::{Exposition, scrape},
};

const ALERTS: &str = include_str!("../../../deploy/observability/alerts.yaml");
const ALERT_TESTS: &str = include_str!("../../../deploy/observability/alerts.test.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/observability/dashboard.json");
const ADAPTER: &str =
    include_str!("../../../deploy/kubernetes/components/autoscaling-backlog/adapter-rules.yaml");
/// Prometheus' own, of each target.
const OF_PROMETHEUS: &str = "up";
/// Labels that scraping adds.
const OF_TARGETS: [&str; 4] = ["job", "instance", "namespace", "pod"];

/// Labels whose values are there only when something of the kind has happened.
const OPEN: [&str; 7] = ["definition", "outcome", "route", "method", "code", "version", "le"];

/// The values of a key in a YAML file of ours: on its line, or in the block below.
fn values(yaml: &str, key: &str) -> Vec<String> {
    let lines: Vec<_> = yaml.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(value) = line.trim_start_matches([' ', '-']).strip_prefix(key) else { continue };
        let value = value.strip_prefix(':').expect("a value").trim();
        if value == "|" {
            let block = lines[at + 1..].iter().take_while(|below| indent(below) > indent(line));
            found.push(block.map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        } else {
            found.push(value.to_owned());
        }
    }
    assert!(!found.is_empty(), "no {key} in it");
    found
}

/// Every query of a dashboard, those of its variables too.
fn queries(node: &Value, found: &mut Vec<String>) {
    if let Some(Value::String(query)) = node.get("expr") {
        found.push(query.clone());
    }
    if let Some(Value::String(query)) = node.get("query").and_then(|query| query.get("query")) {
        // label_values(<selector>, <label>)
        found.push(query.rsplit_once(',').expect("a label").0.to_owned() + ")");
    }
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| queries(node, found)),
        Value::Object(fields) => fields.values().for_each(|node| queries(node, found)),
        _ => {}
    }
}

/// All selectors there are, with the query they come from.
fn named() -> Vec<(String, Selector)> {
    let mut all = values(ALERTS, "expr");
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    queries(&dashboard, &mut all);
    all.extend(values(ADAPTER, "seriesQuery"));
    let adapted = values(ADAPTER, "metricsQuery").into_iter();
    all.extend(adapted.map(|query| query.replace(",<<.LabelMatchers>>", "").replace("<<.GroupBy>>", "pod")));
    let of = |query: String| selectors(&query).into_iter().map(move |selector| (query.clone(), selector));
    let tested = values(ALERT_TESTS, "series").into_iter().flat_map(of).map(|(query, mut selector)| {
        selector.matchers.retain(|matcher| !OPEN.contains(&&*matcher.label));
        (query, selector)
    });
    all.into_iter().flat_map(of).chain(tested).collect()
}

/// What is wrong with a selector for a service that exposes this.
fn fault(selector: &Selector, exposed: &Exposition) -> Option<String> {
    if !exposed.has(&selector.metric) {
        return Some(format!("{} is not exposed", selector.metric));
    }
    let parts = ["_bucket", "_sum", "_count"].into_iter();
    let mut bases = parts.filter_map(|part| selector.metric.strip_suffix(part));
    let base = bases.find(|base| exposed.types.contains_key(*base)).unwrap_or(&selector.metric);
    let labels = exposed.labels.get(base);
    selector.matchers.iter().filter(|matcher| !OF_TARGETS.contains(&&*matcher.label)).find_map(|matcher| {
        if !labels.is_some_and(|labels| labels.contains(&matcher.label)) {
            return Some(format!("{base} has no label {}", matcher.label));
        }
        let values = exposed.values(&selector.metric, &matcher.label);
        let absent = matcher.operator == "=" && !values.contains(&*matcher.value);
        absent.then(|| format!("{base} never has {} = {}", matcher.label, matcher.value))
    })
}

#[tokio::test]
async fn every_metric_that_is_named_is_exposed_by_the_service_it_is_selected_for() {
    let pair = builder().admin().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, unique("load/unique")).await;
    let mut ids = Vec::new();
    for round in 0..5 {
        let observation = json("load/unique", &format!("{{\"keys\":{round}}}"));
        let said = publish(&acme, vec![observation.clone(), observation, json("nobody", "1")]).await;
        ids.push(said[0].ingest_id.clone());
    }
    drained(&pair).await;
    assert_eq!(list(&acme).await.len(), ids.len());
    download(&acme, &ids[0]).await;
    let request = BatchAcknowledgeResultsRequest { ids, ..Default::default() };
    acme.results.clone().batch_acknowledge_results(request).await.unwrap();

    let ingest = scrape(pair.ingest[0].admin()).await;
    let results = scrape(pair.results[0].admin()).await;
    let (mut faults, mut held) = (Vec::new(), 0);
    for (query, selector) in named() {
        let job = selector.matchers.iter().find(|matcher| matcher.label == "job");
        let services = match job.map(|job| (&*job.operator, &*job.value)) {
            Some(("=", "sluice-ingest")) => vec![&ingest],
            Some(("=", "sluice-results")) => vec![&results],
            Some(("=~", "sluice-(ingest|results)")) => vec![&ingest, &results],
            // What others tell of our Deployments and certificates.
            Some(("=", "kube-state-metrics" | "cert-manager")) => continue,
            other => panic!("whose is {}? {other:?} in {query}", selector.metric),
        };
        if selector.metric != OF_PROMETHEUS {
            let found = services.iter().filter_map(|exposed| fault(&selector, exposed));
            faults.extend(found.map(|fault| format!("{fault}: {query}")));
            held += services.len();
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(held > 50, "only {held} selectors were found");
}

#[tokio::test]
async fn a_name_a_label_and_a_value_that_are_not_there_are_faults() {
    let pair = builder().admin().results_replicas(1).start().await;
    let exposed = scrape(pair.ingest[0].admin()).await;
    let faults = |query: &str| -> Vec<_> {
        selectors(query).iter().filter_map(|selector| fault(selector, &exposed)).collect()
    };
    let good = "sluice_commits_total{result=\"busy\"} + sluice_commit_duration_seconds_bucket{le=~\".*\"}";
    assert_eq!(faults(good), ["sluice_commit_duration_seconds has no label le"]);
    assert_eq!(faults("sluice_commits_total{result=\"busy\"} / sluice_outbox_rows"), Vec::<String>::new());
    assert_eq!(faults("sum(sluice_commits)"), ["sluice_commits is not exposed"]);
    assert_eq!(faults("sluice_outbox_rows{lane=\"0\"}"), ["sluice_outbox_rows has no label lane"]);
    assert_eq!(
        faults("sluice_commits_total{result=\"lost\"}"),
        ["sluice_commits_total never has result = lost"]
    );
}
