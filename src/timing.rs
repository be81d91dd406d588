//! How long things took: counted in buckets, read as plain values.

use crate::counter::Counter;

/// Upper ends of the buckets of a [`Timing`], in microseconds.
pub const BOUNDS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 3_000_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Once more.
    pub fn add(&self, took_us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].increment();
        self.sum_us.add(took_us);
    }

    /// What was counted so far.
    pub fn timing(&self) -> Timing {
        let mut sum = 0;
        Timing {
            cumulative: std::array::from_fn(|bucket| {
                sum += self.buckets[bucket].value();
                sum
            }),
            sum_us: self.sum_us.value(),
        }
    }
}

/// How long something took, each time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timing {
    /// How many took at most as long as [`BOUNDS_US`] says; the last is all of them.
    pub cumulative: [u64; BOUNDS_US.len() + 1],
    /// All together.
    pub sum_us: u64,
}

impl Timing {
    /// How often.
    pub fn count(&self) -> u64 {
        self.cumulative[BOUNDS_US.len()]
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            cumulative: std::array::from_fn(|n| self.cumulative[n] + other.cumulative[n]),
            sum_us: self.sum_us + other.sum_us,
        }
    }

    /// What came since `before`, which was read earlier.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cumulative: std::array::from_fn(|n| {
                self.cumulative[n].saturating_sub(before.cumulative[n])
            }),
            sum_us: self.sum_us.saturating_sub(before.sum_us),
        }
    }

    /// Microseconds that so many percent took at most, as if each bucket were filled evenly (so does
    /// `histogram_quantile` of Prometheus); 0 if there were none. Past the last bound: that.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = self.count() * percent;
        if rank == 0 {
            return 0;
        }
        let (mut below, mut from_us) = (0, 0);
        for (bound_us, &upto) in BOUNDS_US.iter().zip(&self.cumulative) {
            if upto * 100 >= rank {
                let part = (rank - below * 100) * (bound_us - from_us);
                return from_us + part.div_ceil((upto - below).max(1) * 100);
            }
            (below, from_us) = (upto, *bound_us);
        }
        from_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_their_buckets() {
        let histogram = Histogram::default();
        assert_eq!(histogram.timing().percentile(99), 0);
        for _ in 0..90 {
            histogram.add(80);
        }
        for took_us in [101, 200, 250, 300, 400, 500, 600, 900, 9_000, 99_000_000] {
            histogram.add(took_us);
        }
        let timing = histogram.timing();
        assert_eq!(timing.count(), 100);
        assert_eq!(timing.percentile(45), 50);
        assert_eq!(timing.percentile(90), 100);
        assert_eq!(timing.percentile(93), 250);
        assert_eq!(timing.percentile(96), 500);
        assert_eq!(timing.percentile(99), 10_000);
        assert_eq!(timing.percentile(100), 3_000_000);
        // One: somewhere in its bucket.
        let one = Histogram::default();
        one.add(200);
        assert_eq!(one.timing().percentile(50), 175);
    }

    #[test]
    fn an_interval_is_what_came_since() {
        let histogram = Histogram::default();
        histogram.add(3_000_000);
        let before = histogram.timing();
        histogram.add(90);
        let since = histogram.timing().since(&before);
        assert_eq!((since.count(), since.sum_us), (1, 90));
        assert_eq!(before.and(&since), histogram.timing());
        assert_eq!(since.percentile(99), 99);
    }
}
