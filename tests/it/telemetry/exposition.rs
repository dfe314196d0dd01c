//! Prometheus' text format, read strictly: whatever is not as the format wants
//! it fails the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;

use crate::http::support::{Answer, send};

/// What `/metrics` told.
#[derive(Debug)]
pub struct Exposition {
    /// The type of each metric.
    pub types: BTreeMap<String, String>,
    /// The labels of each metric that has any, other than `le`.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    metric: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Asks an admin port.
pub async fn ask(admin: SocketAddr, path: &str) -> Answer {
    let request = Request::get(path).header("host", "admin").body(Full::<Bytes>::default()).unwrap();
    send(admin, Version::HTTP_11, request).await
}

/// Scrapes an admin port.
pub async fn scrape(admin: SocketAddr) -> Exposition {
    let answer = ask(admin, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Exposition::read(answer.text())
}

impl Exposition {
    fn read(text: &str) -> Self {
        let (mut types, mut helps) = (BTreeMap::new(), BTreeMap::new());
        let mut samples = Vec::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a text");
                assert!(help.len() > 5, "{line}");
                assert!(helps.insert(name.to_owned(), help.to_owned()).is_none(), "{name} is told twice");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(name.starts_with("sluice_") || name.starts_with("process_"), "{line}");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is told twice");
            } else {
                samples.push(Sample::read(line));
            }
        }
        assert_eq!(types.keys().collect::<Vec<_>>(), helps.keys().collect::<Vec<_>>());
        let mut seen = BTreeSet::new();
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in &samples {
            assert!(seen.insert((sample.metric.clone(), sample.labels.clone())), "twice: {sample:?}");
            let parts = ["_bucket", "_sum", "_count"];
            let base = parts.iter().find_map(|part| sample.metric.strip_suffix(part));
            let histogram = base.is_some_and(|base| types.get(base).is_some_and(|kind| kind == "histogram"));
            assert!(histogram || types.contains_key(&sample.metric), "of no known type: {sample:?}");
            let metric = base.filter(|_| histogram).unwrap_or(&sample.metric);
            let names = sample.labels.keys().filter(|name| *name != "le").cloned();
            labels.entry(metric.to_owned()).or_default().extend(names);
        }
        Self { types, labels, samples }
    }

    /// The sum of a metric over all series that have these labels.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            sample.metric == metric
                && labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(has).map(|sample| sample.value).sum()
    }

    /// Whether there is a sample of this name, such as `..._bucket`.
    pub fn has(&self, sample: &str) -> bool {
        self.samples.iter().any(|found| found.metric == sample)
    }

    /// The values a label of a metric has.
    pub fn values(&self, metric: &str, label: &str) -> BTreeSet<&str> {
        let of = self.samples.iter().filter(|sample| sample.metric == metric);
        of.filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }
}

impl Sample {
    fn read(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (metric, labels) = match series.split_once('{') {
            None => (series, BTreeMap::new()),
            Some((metric, labels)) => (metric, Self::labels(labels.strip_suffix('}').expect("an end"))),
        };
        let clean = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(metric.bytes().all(clean), "{line}");
        assert!(labels.keys().all(|name| name.bytes().all(clean)), "{line}");
        Self { metric: metric.to_owned(), labels, value: value.parse().expect("a number") }
    }

    /// No value here has an escape or a quote in it.
    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split("\",").filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once("=\"").expect("a value");
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        };
        pairs.map(pair).collect()
    }
}
