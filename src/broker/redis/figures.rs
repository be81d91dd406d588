//! What is counted of Redis.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::scripts::SCRIPTS;
use crate::counter::Counter;

/// Commands that are no scripts, as the metrics have them.
const COMMANDS: [&str; 7] = ["GET", "SET", "DEL", "HMGET", "PUBLISH", "SPUBLISH", "INFO"];
/// Kinds of operations.
const OPERATIONS: usize = SCRIPTS.len() + COMMANDS.len();
/// Upper ends of the buckets of a histogram, in microseconds.
pub const BOUNDS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 3_000_000,
];

/// Counts of one node.
#[derive(Debug, Default)]
pub struct Figures {
    /// Connections made to servers, the first ones included.
    pub connections: Counter,
    /// Messages that were no events or notices.
    pub malformed: Counter,
    /// Times that events came with one missing before them.
    pub holes: Counter,
    /// Channels whose subscribers had to be told that something is lost.
    pub gaps: Counter,
    /// Writes that too few replicas confirmed in time.
    pub unreplicated: Counter,
    operations: [Histogram; OPERATIONS],
}

/// How long one kind of operation took.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
    failures: Counter,
}

/// A [`Histogram`] as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFigures {
    /// Its name.
    pub operation: &'static str,
    /// How many took at most as long as [`BOUNDS_US`] says, each with those of the buckets before; the
    /// last is all.
    pub cumulative: [u64; BOUNDS_US.len() + 1],
    /// All together.
    pub sum_us: u64,
    /// How many failed.
    pub failures: u64,
}

impl Figures {
    pub(super) fn answered(&self, operation: &'static str, took: Duration, failed: bool) {
        let names = SCRIPTS.iter().map(|(name, _)| *name).chain(COMMANDS);
        let Some(index) = names.into_iter().position(|name| name == operation) else {
            debug_assert!(false, "{operation} is not counted");
            return;
        };
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = &self.operations[index];
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.sum_us.fetch_add(took_us, Ordering::Relaxed);
        if failed {
            histogram.failures.increment();
        }
    }

    /// What there was of each kind of operation, but for those that never were.
    pub fn operations(&self) -> Vec<OperationFigures> {
        let names = SCRIPTS.iter().map(|(name, _)| *name).chain(COMMANDS);
        names
            .zip(&self.operations)
            .map(|(operation, histogram)| {
                let mut sum = 0;
                OperationFigures {
                    operation,
                    cumulative: std::array::from_fn(|bucket| {
                        sum += histogram.buckets[bucket].load(Ordering::Relaxed);
                        sum
                    }),
                    sum_us: histogram.sum_us.load(Ordering::Relaxed),
                    failures: histogram.failures.value(),
                }
            })
            .filter(|figures| figures.cumulative[BOUNDS_US.len()] > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_how_long_is_counted_by_operation() {
        let figures = Figures::default();
        for (took_us, failed) in [(100, false), (101, false), (u64::MAX, true)] {
            figures.answered("publish", Duration::from_micros(took_us / 2 * 2), failed);
        }
        figures.answered("GET", Duration::ZERO, false);
        let operations = figures.operations();
        let names: Vec<_> = operations.iter().map(|it| it.operation).collect();
        assert_eq!(names, ["publish", "GET"]);
        assert_eq!(operations[0].cumulative[0], 2);
        assert_eq!(operations[0].cumulative[BOUNDS_US.len()], 3);
        assert_eq!(operations[0].failures, 1);
    }
}
