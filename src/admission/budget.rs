//! Token buckets, in the form of the generic cell rate algorithm (ITU-T I.371): one number per key,
//! the time at which its bucket will be full again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::census::Prehashed;

/// Keys of one table, over all of its shards. Who is forgotten starts with a full bucket.
const MAX_KEYS: usize = 65_536;

/// Locks of one table.
const SHARDS: usize = 16;

/// So many in a period, and so many at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    interval_ns: u64,
    burst_ns: u64,
}

impl Rate {
    /// `None`: 0 and `u32::MAX` mean no limit.
    pub fn new(count: u32, period: Duration, burst: u32) -> Option<Self> {
        if count == 0 || count == u32::MAX {
            return None;
        }
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval_ns = (period_ns / u64::from(count)).max(1);
        Some(Self {
            interval_ns,
            burst_ns: interval_ns.saturating_mul(u64::from(burst.max(1))),
        })
    }
}

/// The buckets of many keys, which are hashes already.
pub struct Budgets {
    keys_per_shard: usize,
    /// Key to the time, in nanoseconds, at which its bucket is full.
    shards: Box<[Mutex<HashMap<u64, u64, Prehashed>>]>,
}

impl Budgets {
    /// One bucket per key.
    pub fn per_key() -> Self {
        Self::of(SHARDS, MAX_KEYS / SHARDS)
    }

    /// One bucket.
    pub fn single() -> Self {
        Self::of(1, 1)
    }

    fn of(shards: usize, keys_per_shard: usize) -> Self {
        Self {
            keys_per_shard,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes one from the bucket of `key`, which fills at this rate; `Err`: in how many nanoseconds
    /// there will be one.
    pub fn spend(&self, rate: Option<Rate>, key: u64, now_ns: u64) -> Result<(), u64> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let shard = &self.shards[(key >> 32) as usize % self.shards.len()];
        let mut full_at = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= self.keys_per_shard && !full_at.contains_key(&key) {
            make_room(&mut full_at, self.keys_per_shard, now_ns);
        }
        let bucket = full_at.entry(key).or_insert(now_ns);
        rate.missing_ns(*bucket, now_ns)?;
        *bucket = rate.after(*bucket, now_ns);
        Ok(())
    }
}

impl Budgets {
    /// Whether one could be taken; takes none. `Err`: in how many nanoseconds there will be one.
    pub fn wait(&self, rate: Option<Rate>, key: u64, now_ns: u64) -> Result<(), u64> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let shard = &self.shards[(key >> 32) as usize % self.shards.len()];
        let full_at = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = full_at.get(&key).copied().unwrap_or(now_ns);
        rate.missing_ns(bucket, now_ns)
    }
}

impl Rate {
    /// How long a bucket that will be full at `full_at` lacks one more; `Ok`: it does not.
    fn missing_ns(self, full_at: u64, now_ns: u64) -> Result<(), u64> {
        match (self.after(full_at, now_ns) - now_ns).checked_sub(self.burst_ns) {
            None | Some(0) => Ok(()),
            Some(missing_ns) => Err(missing_ns),
        }
    }

    /// When a bucket that will be full at `full_at` is full if one is taken now.
    fn after(self, full_at: u64, now_ns: u64) -> u64 {
        // Nobody is emptier than empty: who spent at another rate owes no more than this one's burst.
        let from = full_at.clamp(now_ns, now_ns.saturating_add(self.burst_ns));
        from.saturating_add(self.interval_ns)
    }
}

/// Forgets the full buckets, which say nothing, or else the fullest, which says least.
fn make_room(full_at: &mut HashMap<u64, u64, Prehashed>, most: usize, now_ns: u64) {
    full_at.retain(|_, at| *at > now_ns);
    if full_at.len() >= most
        && let Some(fullest) = full_at
            .iter()
            .min_by_key(|(_, at)| **at)
            .map(|(key, _)| *key)
    {
        full_at.remove(&fullest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_frees_a_spender() {
        const SPENDER: u64 = 7 << 32;
        let rate = Rate::new(10, Duration::from_secs(60), 10);
        let budgets = Budgets::of(1, 100);
        for _ in 0..10 {
            assert_eq!(budgets.spend(rate, SPENDER, 0), Ok(()));
        }
        for stranger in 0..10_000u64 {
            assert_eq!(budgets.spend(rate, stranger, 1), Ok(()));
            assert!(budgets.shards[0].lock().unwrap().len() <= 100);
        }
        assert!(budgets.spend(rate, SPENDER, 2).is_err());
    }

    #[test]
    fn another_rate_counts_at_once() {
        let minute = Duration::from_secs(60);
        let (slow, fast) = (Rate::new(2, minute, 2), Rate::new(600, minute, 600));
        let budgets = Budgets::single();
        assert_eq!(budgets.spend(slow, 0, 0), Ok(()));
        assert_eq!(budgets.spend(slow, 0, 0), Ok(()));
        assert_eq!(budgets.spend(slow, 0, 0), Err(30_000_000_000));
        // A tenth of a second brings one, and what was spent slowly is no debt.
        assert_eq!(budgets.spend(fast, 0, 100_000_000), Ok(()));
        assert_eq!(budgets.spend(None, 0, 100_000_000), Ok(()));
    }

    #[test]
    fn a_rate_larger_than_the_clock_can_tell_is_still_a_rate() {
        let rate = Rate::new(u32::MAX - 1, Duration::from_secs(1), u32::MAX).unwrap();
        assert_eq!(rate.interval_ns, 1);
        let budgets = Budgets::single();
        assert_eq!(budgets.spend(Some(rate), 0, u64::MAX), Ok(()));
    }
}
