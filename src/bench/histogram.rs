//! How values are distributed, in fixed memory: buckets that grow with the value, at most 1.6 % wide.

use serde::Serialize;

/// Buckets per power of two; their logarithm.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
/// A row for the smallest values, and one for each power of two from there on.
const BUCKETS: usize = FINE * (u64::BITS - FINE_BITS + 1) as usize;

/// Counts of values, of any unit.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

/// What is told of a [`Histogram`] of nanoseconds, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Takes a value in.
    pub fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that `share` (0 to 1) of all do not exceed, rounded up to its bucket's end; 0 if there
    /// are no values.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return last_of(index).min(self.max);
            }
        }
        self.max
    }

    /// The usual figures, of nanoseconds.
    pub fn latency(&self) -> Latency {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        Latency {
            p50_ms: ms(self.quantile(0.5)),
            p99_ms: ms(self.quantile(0.99)),
            max_ms: ms(self.max),
        }
    }
}

/// Values of up to seven bits have a bucket each; of larger ones the first seven bits count.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(FINE_BITS + 1);
    shift as usize * FINE + (value >> shift) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket / FINE).saturating_sub(1);
    let first_bits = (bucket - shift * FINE) as u64;
    (first_bits << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins_and_is_narrow() {
        for index in 0..BUCKETS - 1 {
            let last = last_of(index);
            assert_eq!(bucket(last), index);
            assert_eq!(bucket(last + 1), index + 1);
            assert!(last_of(index + 1) - last <= 1 + last / FINE as u64);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(last_of(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_count_from_the_small_end() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        for value in 1..=100 {
            histogram.add(value);
        }
        assert_eq!(histogram.quantile(0.5), 50);
        assert_eq!(histogram.quantile(0.99), 99);
        assert_eq!(histogram.quantile(1.0), 100);
        // Never more than was there, however wide its bucket.
        histogram.add(1_000_001);
        assert_eq!(histogram.quantile(1.0), 1_000_001);
    }
}
