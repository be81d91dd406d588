//! A page of metrics: families of series, as the crate `prometheus` encodes them.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::timing::{BOUNDS_US, Timing};

/// A series: its labels and its value.
pub type Series = (Vec<LabelPair>, f64);

/// A series of these labels.
pub fn series<const N: usize>(labels: [(&str, impl Into<String>); N], value: f64) -> Series {
    let pair = |(name, value): (&str, _)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_string());
        pair.set_value(Into::<String>::into(value));
        pair
    };
    (labels.map(pair).into(), value)
}

/// A series for each labels, with the sum of what gets them.
pub fn bounded<const N: usize>(
    counts: &[(String, u64)],
    labels: impl Fn(&str) -> [(&'static str, String); N],
) -> Vec<Series> {
    let mut sums = BTreeMap::new();
    for (name, count) in counts {
        *sums.entry(labels(name)).or_default() += count;
    }
    let sums = sums.into_iter();
    sums.map(|(labels, sum): (_, u64)| series(labels, sum as f64))
        .collect()
}

/// The families in the order in which they are shown.
#[derive(Default)]
pub struct Page(Vec<MetricFamily>);

impl Page {
    /// The text.
    pub fn text(&self) -> String {
        // The encoder refuses a family without a name or a series: none is added.
        TextEncoder::new()
            .encode_to_string(&self.0)
            .unwrap_or_default()
    }

    /// A family of one gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<f64>) {
        self.gauges(name, help, vec![(Vec::new(), value.into())]);
    }

    /// A family of one counter.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, vec![(Vec::new(), value)]);
    }

    /// A family of gauges.
    pub fn gauges(&mut self, name: &str, help: &str, series: Vec<Series>) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(labels);
            metric
        });
        self.add(MetricType::GAUGE, name, help, metrics.collect());
    }

    /// A family of counters.
    pub fn counters(&mut self, name: &str, help: &str, series: Vec<Series>) {
        let metrics = series.into_iter().map(|(labels, value)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = Metric::from_label(labels);
            metric.set_counter(counter);
            metric
        });
        self.add(MetricType::COUNTER, name, help, metrics.collect());
    }

    /// A family of histograms with the same buckets.
    pub fn histograms(&mut self, name: &str, help: &str, series: Vec<(Vec<LabelPair>, &Timing)>) {
        let metrics = series.into_iter().map(|(labels, timing)| {
            let buckets = BOUNDS_US.iter().zip(timing.cumulative);
            let buckets = buckets.map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound as f64 / 1e6);
                bucket.set_cumulative_count(count);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(timing.count());
            histogram.set_sample_sum(timing.sum_us as f64 / 1e6);
            let mut metric = Metric::from_label(labels);
            metric.set_histogram(histogram);
            metric
        });
        self.add(MetricType::HISTOGRAM, name, help, metrics.collect());
    }

    /// A family that has no series yet is left out: the format has no such thing.
    fn add(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("fanfare_{name}"));
        family.set_help(help.to_string());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}
