//! `limits.history_bytes`: what histories take in memory, and who gives when it is too much.

use crate::protocol::ChannelKey;

/// What an event takes beside its JSON: its slot with the slack of a growing queue, and the
/// allocation with its counter. `benches/store.rs` prints what is counted beside what is resident.
pub(super) const SLOT_BYTES: u64 = 144;
/// What a channel takes beside its key (twice) and its events.
const RING_BYTES: u64 = 320;

/// What a channel without events takes.
pub(super) fn ring_memory(channel: &ChannelKey) -> u64 {
    RING_BYTES + 2 * channel.as_str().len() as u64
}

/// The balance of all histories.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// `limits.history_bytes`.
    limit: u64,
    pub(super) used: u64,
    /// Beyond this, events go. Above `limit` only while nothing is left to take but the channels
    /// themselves, so that they are not looked through for every event.
    evict_at: u64,
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            evict_at: limit,
        }
    }

    /// Another limit from now on.
    pub(super) fn rebound(&mut self, limit: u64) {
        self.limit = limit;
        self.evict_at = limit;
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.used += bytes;
    }

    pub(super) fn subtract(&mut self, bytes: u64) {
        self.used -= bytes;
        if self.used <= self.limit {
            self.evict_at = self.limit;
        }
    }

    /// How much has to go now.
    pub(super) fn excess(&self) -> Option<u64> {
        (self.used > self.evict_at).then(|| self.used - (self.limit - self.limit / 16))
    }

    pub(super) fn has_evicted(&mut self) {
        if self.used > self.limit {
            self.evict_at = self.used + self.limit / 16;
        }
    }
}

/// What each may keep, so that all together give `excess`: the largest come down to one level.
pub(super) fn level(sizes: impl Iterator<Item = u64>, excess: u64) -> u64 {
    let mut sizes: Vec<u64> = sizes.filter(|size| *size > 0).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (index, size) in sizes.iter().enumerate() {
        sum += size;
        let cut = index as u64 + 1;
        let next = sizes.get(index + 1).copied().unwrap_or(0);
        if sum >= excess + cut * next {
            return (sum - excess) / cut;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_give_and_come_to_one_level() {
        let level = |sizes: &[u64], excess| super::level(sizes.iter().copied(), excess);
        assert_eq!(level(&[100, 10, 10], 50), 50);
        assert_eq!(level(&[100, 90, 10], 50), 70);
        assert_eq!(level(&[30, 30, 30], 30), 20);
        assert_eq!(level(&[30, 30, 30], 90), 0);
        assert_eq!(level(&[30, 30, 30], 1_000), 0);
        assert_eq!(level(&[], 1), 0);
    }

    #[test]
    fn what_cannot_be_freed_is_not_looked_for_each_time() {
        let mut memory = Memory::new(1_600);
        memory.add(1_601);
        assert_eq!(memory.excess(), Some(101));
        // Nothing but channels without events.
        memory.has_evicted();
        memory.add(100);
        assert_eq!(memory.excess(), None);
        memory.add(1);
        assert!(memory.excess().is_some());
        memory.subtract(300);
        memory.add(199);
        assert!(memory.excess().is_some());
    }
}
