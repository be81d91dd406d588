//! Which workers follow a channel, and how many members it has on this node.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::ChannelKey;

/// Locks that share the channels out; two publishers meet only in the same one.
const SHARDS: usize = 64;

/// Channel to workers.
#[derive(Debug)]
pub struct Interest {
    shards: Box<[Mutex<HashMap<ChannelKey, Followers>>]>,
    hasher: RandomState,
}

/// Who follows a channel.
#[derive(Debug, Default, Clone, Copy)]
struct Followers {
    /// A bit per worker with at least one member.
    workers: u64,
    /// Members on all workers; at least one per bit.
    members: u32,
}

impl Default for Interest {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Interest {
    /// A member joins on a worker, as its first there or not.
    pub fn join(&self, worker: usize, key: &ChannelKey, first_on_worker: bool) {
        let mut shard = self.shard(key);
        let followers = shard.entry(key.clone()).or_default();
        followers.members += 1;
        if first_on_worker {
            followers.workers |= 1 << worker;
        }
    }

    /// A member leaves a worker, as its last there or not. If nobody is left on this node, `unfollow` is
    /// called before anybody can join again; it must not come back here.
    pub fn leave(
        &self,
        worker: usize,
        key: &ChannelKey,
        last_on_worker: bool,
        unfollow: impl FnOnce(),
    ) {
        let mut shard = self.shard(key);
        let Entry::Occupied(mut entry) = shard.entry(key.clone()) else {
            return;
        };
        let followers = entry.get_mut();
        followers.members = followers.members.saturating_sub(1);
        if last_on_worker {
            followers.workers &= !(1 << worker);
        }
        if followers.workers == 0 {
            entry.remove();
            unfollow();
        }
    }

    /// Calls `post` with each worker that follows the channel. Calls for one channel come one after
    /// the other, in all workers in the same order.
    pub fn each(&self, key: &ChannelKey, mut post: impl FnMut(usize)) {
        let shard = self.shard(key);
        let Some(followers) = shard.get(key) else {
            return;
        };
        let mut workers = followers.workers;
        while workers != 0 {
            post(workers.trailing_zeros() as usize);
            workers &= workers - 1;
        }
    }

    /// Every channel with its members.
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.shards
            .iter()
            .flat_map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard
                    .iter()
                    .map(|(key, followers)| (key.to_string(), u64::from(followers.members)))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// The first `limit` channels by their keys, of those that begin with `prefix` and come after
    /// `after`, with their members.
    pub fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<(ChannelKey, u64)> {
        // The last key is on top and goes when there are too many.
        let mut first = BinaryHeap::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (key, followers) in &*shard {
                let name = key.as_str();
                let is_after = after.is_none_or(|after| name > after);
                let is_early = first.len() < limit
                    || first
                        .peek()
                        .is_some_and(|(last, _): &(ChannelKey, u64)| key < last);
                if is_after && is_early && name.starts_with(prefix) {
                    first.push((key.clone(), u64::from(followers.members)));
                    if first.len() > limit {
                        first.pop();
                    }
                }
            }
        }
        first.into_sorted_vec()
    }

    /// Every channel.
    pub fn keys(&self) -> Vec<ChannelKey> {
        self.shards
            .iter()
            .flat_map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.keys().cloned().collect::<Vec<_>>()
            })
            .collect()
    }

    fn shard(&self, key: &ChannelKey) -> MutexGuard<'_, HashMap<ChannelKey, Followers>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_found_by_their_edges() {
        let interest = Interest::default();
        let key = ChannelKey::parse("post_1", 255).unwrap();
        let workers = || {
            let mut workers = Vec::new();
            interest.each(&key, |worker| workers.push(worker));
            workers
        };
        assert!(workers().is_empty());
        interest.join(0, &key, true);
        interest.join(0, &key, false);
        interest.join(63, &key, true);
        assert_eq!(workers(), [0, 63]);
        assert_eq!(interest.counts(), [("post_1".to_owned(), 3)]);
        let still_followed = || panic!("somebody is left");
        interest.leave(0, &key, false, still_followed);
        interest.leave(0, &key, true, still_followed);
        assert_eq!(workers(), [63]);
        let mut is_left = false;
        interest.leave(63, &key, true, || is_left = true);
        assert!(is_left);
        interest.leave(63, &key, true, still_followed);
        assert!(interest.counts().is_empty());
    }

    #[test]
    fn pages_are_in_order_and_end() {
        let interest = Interest::default();
        let key = |name: &str| ChannelKey::parse(name, 255).unwrap();
        for n in 0..50 {
            interest.join(0, &key(&format!("post_{n:02}")), true);
            interest.join(0, &key(&format!("feed_{n:02}")), true);
        }
        interest.join(0, &key("post_07"), false);
        let mut seen = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = interest.page("post_", after.as_deref(), 7);
            assert!(page.len() <= 7);
            let Some((last, _)) = page.last() else { break };
            after = Some(last.to_string());
            seen.extend(page);
        }
        let expected: Vec<_> = (0..50)
            .map(|n| (key(&format!("post_{n:02}")), if n == 7 { 2 } else { 1 }))
            .collect();
        assert_eq!(seen, expected);
        assert!(interest.page("", None, 0).is_empty());
    }
}
