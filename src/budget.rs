//! Token buckets, in the form of the generic cell rate algorithm (ITU-T I.371): one number per key,
//! the time at which its bucket will be full again.
//!
//! Keys are keyed hashes: 16 bytes an entry whatever they were made of.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::prehashed::Prehashed;

/// Keys of one table, over all of its shards. Who is forgotten starts with a full bucket.
const MAX_KEYS: usize = 65_536;

/// Locks of one table.
const SHARDS: usize = 16;

/// So many in a period, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// In how many nanoseconds one more is there.
    pub fn interval_ns(self) -> u64 {
        self.interval_ns
    }

    /// In how many nanoseconds an empty bucket is full.
    pub fn burst_ns(self) -> u64 {
        self.burst_ns
    }

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

/// The buckets of many keys.
#[derive(Debug)]
pub struct Budgets(Table);

impl Budgets {
    /// One bucket per key.
    pub fn per_key() -> Self {
        Self(Table::of(SHARDS, MAX_KEYS / SHARDS))
    }

    /// One bucket.
    pub fn single() -> Self {
        Self(Table::of(1, 1))
    }

    /// Takes one from the bucket of `key`, which fills at this rate; `Err`: in how many nanoseconds
    /// there will be one.
    pub fn spend(&self, rate: Option<Rate>, key: u64, now_ns: u64) -> Result<(), u64> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let mut full_at = self.0.with_room(key, now_ns);
        let bucket = full_at.entry(key).or_insert(now_ns);
        rate.missing_ns(*bucket, now_ns)?;
        *bucket = rate.after(*bucket, now_ns);
        Ok(())
    }

    /// Whether one could be taken; takes none. `Err`: in how many nanoseconds there will be one.
    pub fn wait(&self, rate: Option<Rate>, key: u64, now_ns: u64) -> Result<(), u64> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let full_at = self.0.shard(key).get(&key).copied();
        rate.missing_ns(full_at.unwrap_or(now_ns), now_ns)
    }
}

/// Who has to wait, and until when, as somebody else has decided.
#[derive(Debug)]
pub struct Pauses(Table);

impl Pauses {
    /// Nobody.
    pub fn none() -> Self {
        Self(Table::of(SHARDS, MAX_KEYS / SHARDS))
    }

    /// From now on for so long.
    pub fn begin(&self, key: u64, wait_ns: u64, now_ns: u64) {
        let until_ns = now_ns.saturating_add(wait_ns);
        self.0.with_room(key, now_ns).insert(key, until_ns);
    }

    /// `Err`: for how many nanoseconds more.
    pub fn wait(&self, key: u64, now_ns: u64) -> Result<(), u64> {
        let until_ns = self.0.shard(key).get(&key).copied().unwrap_or(0);
        match until_ns.saturating_sub(now_ns) {
            0 => Ok(()),
            wait_ns => Err(wait_ns),
        }
    }

    /// Nobody has to wait any more.
    pub fn clear(&self) {
        for shard in &self.0.shards {
            locked(shard).clear();
        }
    }
}

/// A time, in nanoseconds, for each of many keys; what is past says nothing.
#[derive(Debug)]
struct Table {
    keys_per_shard: usize,
    shards: Box<[Mutex<Times>]>,
}

type Times = HashMap<u64, u64, Prehashed>;

impl Table {
    fn of(shards: usize, keys_per_shard: usize) -> Self {
        Self {
            keys_per_shard,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Times> {
        locked(&self.shards[(key >> 32) as usize % self.shards.len()])
    }

    /// The shard, in which there is room for this key.
    fn with_room(&self, key: u64, now_ns: u64) -> MutexGuard<'_, Times> {
        let mut times = self.shard(key);
        if times.len() >= self.keys_per_shard && !times.contains_key(&key) {
            make_room(&mut times, self.keys_per_shard, now_ns);
        }
        times
    }
}

/// A lock whose holder panicked is taken all the same: what it guards is valid after every step.
fn locked(shard: &Mutex<Times>) -> MutexGuard<'_, Times> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets the times that are past, or else the nearest, which says least.
fn make_room(times: &mut Times, most: usize, now_ns: u64) {
    times.retain(|_, at| *at > now_ns);
    if times.len() >= most
        && let Some(nearest) = times.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key)
    {
        times.remove(&nearest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_frees_a_spender() {
        const SPENDER: u64 = 7 << 32;
        let rate = Rate::new(10, Duration::from_secs(60), 10);
        let budgets = Budgets(Table::of(1, 100));
        for _ in 0..10 {
            assert_eq!(budgets.spend(rate, SPENDER, 0), Ok(()));
        }
        for stranger in 0..10_000u64 {
            assert_eq!(budgets.spend(rate, stranger, 1), Ok(()));
            assert!(budgets.0.shards[0].lock().unwrap().len() <= 100);
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

    #[test]
    fn a_pause_ends_and_strangers_do_not_end_it() {
        let pauses = Pauses(Table::of(1, 100));
        pauses.begin(7, 5_000, 1_000);
        assert_eq!(pauses.wait(7, 1_000), Err(5_000));
        assert_eq!(pauses.wait(8, 1_000), Ok(()));
        for stranger in 100..10_000u64 {
            pauses.begin(stranger, 10, 1_000);
            assert!(pauses.0.shards[0].lock().unwrap().len() <= 100);
        }
        assert_eq!(pauses.wait(7, 5_999), Err(1));
        assert_eq!(pauses.wait(7, 6_000), Ok(()));
        pauses.begin(7, 5_000, 6_000);
        pauses.clear();
        assert_eq!(pauses.wait(7, 6_000), Ok(()));
    }
}
