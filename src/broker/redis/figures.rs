//! Where it is counted what becomes of commands and messages.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lock;
use super::scripts::SCRIPTS;
use crate::broker::figures::{BOUNDS_US, OperationFigures, RedisFigures, ServerFigures, Timing};
use crate::counter::Counter;

/// Commands that are no scripts, as the metrics have them.
const COMMANDS: [&str; 7] = [
    "GET",
    "SET",
    "DEL",
    "HMGET",
    "PUBLISH",
    "SPUBLISH",
    "ZRANGEBYLEX",
];
/// Kinds of operations.
const OPERATIONS: usize = SCRIPTS.len() + COMMANDS.len();

/// Counts of one node.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) connections: Counter,
    pub(super) malformed: Counter,
    pub(super) holes: Counter,
    pub(super) gaps: Counter,
    pub(super) unreplicated: Counter,
    /// From a canary's start to its arrival.
    pub(super) lag: Histogram,
    /// What the servers said of themselves when they were last asked.
    pub(super) servers: Mutex<Vec<ServerFigures>>,
    operations: [Operation; OPERATIONS],
}

#[derive(Debug, Default)]
struct Operation {
    histogram: Histogram,
    failures: Counter,
}

/// How often something took how long.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn add(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    pub(super) fn timing(&self) -> Timing {
        let mut sum = 0;
        Timing {
            cumulative: std::array::from_fn(|bucket| {
                sum += self.buckets[bucket].load(Ordering::Relaxed);
                sum
            }),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

impl Figures {
    pub(super) fn answered(&self, operation: &'static str, took: Duration, failed: bool) {
        let Some(index) = names().position(|name| name == operation) else {
            debug_assert!(false, "{operation} is not counted");
            return;
        };
        let counted = &self.operations[index];
        counted.histogram.add(took);
        if failed {
            counted.failures.increment();
        }
    }

    pub(super) fn read(&self, in_flight: usize) -> RedisFigures {
        let operations =
            names()
                .zip(&self.operations)
                .map(|(operation, counted)| OperationFigures {
                    operation,
                    timing: counted.histogram.timing(),
                    failures: counted.failures.value(),
                });
        RedisFigures {
            connections: self.connections.value(),
            malformed: self.malformed.value(),
            holes: self.holes.value(),
            gaps: self.gaps.value(),
            unreplicated: self.unreplicated.value(),
            in_flight: in_flight as u64,
            lag: self.lag.timing(),
            servers: lock(&self.servers).clone(),
            operations: operations.filter(|it| it.timing.count() > 0).collect(),
        }
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(name, _)| *name).chain(COMMANDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_how_long_is_counted_by_operation() {
        let figures = Figures::default();
        for (took_us, failed) in [(100, false), (101, false), (9_000_000, true)] {
            figures.answered("publish", Duration::from_micros(took_us), failed);
        }
        figures.answered("GET", Duration::ZERO, false);
        let operations = figures.read(0).operations;
        let names: Vec<_> = operations.iter().map(|it| it.operation).collect();
        assert_eq!(names, ["publish", "GET"]);
        let timing = &operations[0].timing;
        assert_eq!((timing.cumulative[0], timing.cumulative[1]), (1, 2));
        assert_eq!((timing.count(), timing.sum_us), (3, 9_000_201));
        assert_eq!(operations[0].failures, 1);
    }
}
