//! Metrics in Prometheus form. Each running service has a [`Registry`] of its
//! own, so several in one process don't mix; there are no statics. A service
//! adds its metrics while it starts, keeps the handles, and gives the registry
//! to the admin port. Names are written in the code as they are exposed.

mod label;
mod pools;
mod process;
mod requests;

use std::{fmt, marker::PhantomData};

pub use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::{encoding::prometheus_text, metrics::TypedMetric, registry::Metric};

pub use label::Label;
pub use pools::ReadStatus;
pub(crate) use requests::Code;
pub(crate) use requests::Refusals;
pub use requests::{Requests, grpc_code_name};

/// A gauge of seconds and other measures that are no whole numbers.
pub type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// A label's name and value.
type Pair = (&'static str, &'static str);

/// Upper bounds of durations, in seconds: from half a millisecond to half a
/// minute.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of sizes of batches.
const ITEMS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 750.0, 1000.0];

/// A histogram of durations in seconds.
#[must_use]
pub fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// A histogram of how many there are in a batch, up to 1,000.
#[must_use]
pub fn items() -> Histogram {
    Histogram::new(ITEMS)
}

/// The metrics of one running service.
#[derive(Debug)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
}

impl Registry {
    /// A registry with what every service exposes: what it is and what its
    /// process uses.
    #[must_use]
    pub fn new(service: &'static str, version: &'static str) -> Self {
        let mut registry = Self { inner: prometheus_client::registry::Registry::default() };
        let info = registry.add(
            "sluice_build_info",
            "What is running; always 1",
            Family::<[(&str, &str); 2], Gauge>::default(),
        );
        info.get_or_create(&[("service", service), ("version", version)]).set(1);
        registry.inner.register_collector(Box::new(process::Process::default()));
        registry
    }

    /// Adds a metric and gives it back. `name` is what is exposed; a counter's
    /// ends in `_total`. `help` says what it is and its unit, without a full
    /// stop.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        // The crate adds the ending of counters itself.
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.inner.register(name, help, metric.clone());
        metric
    }

    /// Adds a metric with one label of few known values, all of which are
    /// exposed from the start.
    pub fn add_by<L: Label, M: Metric + TypedMetric + Clone>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        constructor: fn() -> M,
    ) -> By<L, M> {
        let family = Family::new_with_constructor(constructor);
        for value in L::ALL {
            drop(family.get_or_create(&[(label, value.word())]));
        }
        By { label, family: self.add(name, help, family), values: PhantomData }
    }

    /// Adds how much of each of these pools is in use.
    pub fn add_pools(&mut self, pools: Vec<(&'static str, ReadStatus)>) {
        self.inner.register_collector(Box::new(pools::Pools(pools)));
    }

    /// All of it as Prometheus reads it (text format 0.0.4).
    ///
    /// # Errors
    /// If a metric can't be written, which is a fault in its encoder.
    pub fn expose(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.inner)?;
        Ok(text)
    }
}

/// The content type of [`Registry::expose`].
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Metrics that differ in the value of one label.
#[derive(Clone, Debug)]
pub struct By<L, M> {
    label: &'static str,
    family: Family<[Pair; 1], M, fn() -> M>,
    values: PhantomData<L>,
}

impl<L: Label, M: Clone> By<L, M> {
    /// The metric of one value.
    #[must_use]
    pub fn of(&self, value: L) -> M {
        self.family.get_or_create_owned(&[(self.label, value.word())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::label! {
        enum End {
            Good = "good",
            Bad = "bad",
        }
    }

    #[test]
    fn what_is_exposed_has_the_names_of_the_code() {
        let mut registry = Registry::new("sluice-test", "1.2.3");
        registry.add("sluice_things_total", "Things", Counter::<u64>::default()).inc_by(2);
        let ends = registry.add_by("sluice_ends_total", "Ends", "end", Counter::<u64>::default);
        ends.of(End::Good).inc();
        assert_eq!(End::ALL, [End::Good, End::Bad]);
        registry.add("sluice_wait_seconds", "Waits", seconds()).observe(0.3);
        let text = registry.expose().unwrap();
        for line in [
            "sluice_build_info{service=\"sluice-test\",version=\"1.2.3\"} 1",
            "# HELP sluice_things_total Things.",
            "# TYPE sluice_things_total counter",
            "sluice_things_total 2",
            "sluice_ends_total{end=\"good\"} 1",
            "sluice_ends_total{end=\"bad\"} 0",
            "# TYPE sluice_wait_seconds histogram",
            "sluice_wait_seconds_bucket{le=\"0.25\"} 0",
            "sluice_wait_seconds_bucket{le=\"0.5\"} 1",
            "# TYPE process_resident_memory_bytes gauge",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn registries_do_not_mix() {
        let mut registry = Registry::new("a", "1");
        registry.add("sluice_things_total", "Things", Counter::<u64>::default()).inc();
        let other = Registry::new("b", "1").expose().unwrap();
        assert!(!other.contains("sluice_things"), "{other}");
    }
}
