//! How many are in, by key: counts that a [`Permit`] holds and its end gives back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use crate::prehashed::Prehashed;

/// Locks of one table.
const SHARDS: usize = 16;

/// Counts per key. An entry exists while somebody holds a permit, so permits bound the table.
#[derive(Debug)]
pub struct Census {
    shards: [Mutex<HashMap<u64, usize, Prehashed>>; SHARDS],
}

/// The right to be here, for as long as it is held.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back"]
pub struct Permit {
    census: Arc<Census>,
    key: u64,
}

impl Census {
    /// Nobody is in.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
        })
    }

    /// One more of `key`, unless there are `most` or more.
    pub fn enter(this: &Arc<Self>, key: u64, most: usize) -> Option<Permit> {
        let mut counts = this
            .shard(key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= most {
            if *count == 0 {
                counts.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Permit {
            census: Arc::clone(this),
            key,
        })
    }

    /// How many of `key` are in.
    pub fn count(&self, key: u64) -> usize {
        let counts = self
            .shard(key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.get(&key).copied().unwrap_or(0)
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, usize, Prehashed>> {
        &self.shards[(key >> 32) as usize % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shard = self.census.shard(self.key);
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_who_has_gone() {
        let census = Census::new();
        for key in 0..1_000u64 {
            let permit = Census::enter(&census, key << 32, 1);
            assert!(permit.is_some());
            assert!(Census::enter(&census, key << 32, 1).is_none());
        }
        let left: usize = census
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert_eq!(left, 0);
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let census = Census::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let permit = Census::enter(&census, 1, 10);
                        assert!(census.count(1) <= 10);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(census.count(1), 0);
    }
}
