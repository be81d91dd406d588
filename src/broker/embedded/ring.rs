//! The recent history of every channel, in memory.
//!
//! Only the writer changes it, after a commit, and relaxed publishers (`relaxed`); everybody reads. What is too old is skipped by
//! readers and removed by the writer when it next comes by.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::memory::{self, Memory, SLOT_BYTES, ring_memory};
use super::quota::{LOG_PERCENT, row_weight};
use super::relaxed::Unwritten;
use crate::broker::{Entry, Recovery, Unrecoverable};
use crate::protocol::{ChannelKey, Epoch, Event, Position};

/// What an event brings to the log besides its JSON: key, version, channel, offset, expiry, index.
const LOG_ROW_BYTES: u64 = 8 + 1 + 8 + 8 + 8 + 8;

/// Channels that one sweep visits at most: half a millisecond.
const SWEEP_RINGS: usize = 5_000;

/// [`Slot::sequence`] of an event that is not in the log yet.
pub(super) const UNWRITTEN: u64 = u64::MAX;

/// All histories.
pub(super) struct Histories {
    /// The epoch of every channel that is not in `numbers`.
    pub(super) ground: Epoch,
    /// Channel -> its number.
    pub(super) numbers: HashMap<ChannelKey, u64>,
    /// Number -> its history. As many as `numbers`.
    pub(super) rings: BTreeMap<u64, Ring>,
    /// What all rows in the log weigh.
    pub(super) log_bytes: u64,
    /// What the rows weigh that a ring still holds.
    pub(super) live_bytes: u64,
    /// Events in all rings.
    pub(super) events: u64,
    /// What all of this takes in memory, and may take.
    pub(super) memory: Memory,
    /// The number of the channel that the sweep comes to next.
    swept: u64,
    /// The number of the next new channel. Never used twice: old log rows may still name it.
    pub(super) next_channel: u64,
    /// Whether the disk has been told that positions are given out which it does not hold.
    pub(super) may_run_ahead: bool,
    /// When an event was last published ahead of the disk; of the clock's own start.
    pub(super) relaxed_ms: u64,
    /// Events that are not in the log yet, in order.
    pub(super) unwritten: Vec<Unwritten>,
    /// What they and those that the writer is at will weigh there.
    pub(super) unwritten_bytes: u64,
}

/// One channel's history. `entries` are the last ones, without a hole: the last one is `top`.
pub(super) struct Ring {
    pub(super) channel: ChannelKey,
    pub(super) epoch: Epoch,
    /// Offset of the last event ever in this epoch.
    pub(super) top: u64,
    /// Whether it has a row on disk.
    pub(super) is_stored: bool,
    /// What its row says or, without one, will say: whether its epoch ends with a crash.
    pub(super) relaxed: bool,
    /// The writer is giving out its next offsets, nobody else may. After a commit that failed it
    /// stays so until the next that does not.
    pub(super) is_held: bool,
    /// [`crate::broker::Retention::entries`] of the last publication.
    pub(super) limit: usize,
    /// When the last event that was here was or will be too old.
    pub(super) expire_ms: u64,
    /// What `slots` take.
    memory: u64,
    /// Never more than `limit`; `expire_ms` never falls from front to back.
    pub(super) slots: VecDeque<Slot>,
}

/// An event in a ring.
pub(super) struct Slot {
    /// Where it stands in the log.
    pub(super) sequence: u64,
    pub(super) expire_ms: u64,
    pub(super) event: Event,
}

impl Slot {
    fn bytes(&self) -> u64 {
        log_row_bytes(&self.event)
    }

    /// What it takes here.
    fn memory(&self) -> u64 {
        SLOT_BYTES + self.event.as_bytes().len() as u64
    }
}

/// What an event of this JSON weighs in the log.
pub(super) fn log_json_bytes(json: &[u8]) -> u64 {
    row_weight(LOG_ROW_BYTES + json.len() as u64, LOG_PERCENT)
}

/// What an event weighs in the log.
pub(super) fn log_row_bytes(event: &Event) -> u64 {
    log_json_bytes(event.as_bytes())
}

impl Histories {
    pub(super) fn new(ground: Epoch, next_channel: u64, history_bytes: u64) -> Self {
        Self {
            ground,
            next_channel,
            may_run_ahead: false,
            relaxed_ms: 0,
            unwritten: Vec::new(),
            unwritten_bytes: 0,
            numbers: HashMap::new(),
            rings: BTreeMap::new(),
            log_bytes: 0,
            live_bytes: 0,
            events: 0,
            memory: Memory::new(history_bytes),
            swept: 0,
        }
    }

    pub(super) fn ring(&self, channel: &ChannelKey) -> Option<&Ring> {
        self.rings.get(self.numbers.get(channel)?)
    }

    pub(super) fn position(&self, channel: &ChannelKey) -> Position {
        match self.ring(channel) {
            Some(ring) => ring.position(),
            None => Position {
                epoch: self.ground.clone(),
                offset: 0,
            },
        }
    }

    pub(super) fn recover(&self, channel: &ChannelKey, since: &Position, now_ms: u64) -> Recovery {
        let position = self.position(channel);
        let missed = if since.epoch != position.epoch || since.offset > position.offset {
            Err(Unrecoverable::EpochChanged)
        } else {
            match self.ring(channel) {
                Some(ring) => ring.after(since.offset, now_ms),
                None => Ok(Vec::new()),
            }
        };
        Recovery { position, missed }
    }

    /// The number of a channel, which has a ring from now on.
    pub(super) fn begin(&mut self, channel: &ChannelKey, limit: usize, relaxed: bool) -> u64 {
        if let Some(number) = self.numbers.get(channel) {
            return *number;
        }
        let number = self.next_channel;
        self.next_channel += 1;
        let mut ring = Ring::new(channel.clone(), self.ground.clone(), 0, limit);
        ring.relaxed = relaxed;
        self.insert(number, ring);
        number
    }

    pub(super) fn insert(&mut self, number: u64, ring: Ring) {
        self.events += ring.slots.len() as u64;
        self.live_bytes += ring.slots.iter().map(Slot::bytes).sum::<u64>();
        self.memory.add(ring.memory + ring_memory(&ring.channel));
        self.numbers.insert(ring.channel.clone(), number);
        self.rings.insert(number, ring);
    }

    pub(super) fn remove(&mut self, number: u64) {
        if let Some(mut ring) = self.rings.remove(&number) {
            self.numbers.remove(&ring.channel);
            let gone = ring.forget_all();
            self.memory.subtract(ring_memory(&ring.channel));
            self.subtract(gone);
            if self.numbers.capacity() / 4 > self.numbers.len() {
                self.numbers.shrink_to(2 * self.numbers.len());
            }
        }
    }

    /// Appends what the log has taken. `limit` is the channel's rule from now on.
    pub(super) fn append(&mut self, number: u64, limit: usize, slot: Slot, now_ms: u64) {
        let Some(ring) = self.rings.get_mut(&number) else {
            return;
        };
        self.live_bytes += slot.bytes();
        self.memory.add(slot.memory());
        self.events += 1;
        ring.limit = limit;
        let mut gone = ring.push(slot);
        gone.add(ring.forget_expired(now_ms));
        self.subtract(gone);
        self.bound();
    }

    /// Forgets what is too old in the next channels, [`SWEEP_RINGS`] at most; round and round.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let mut gone = Gone::default();
        let mut last = None;
        let mut count = 0;
        for (number, ring) in self.rings.range_mut(self.swept..).take(SWEEP_RINGS) {
            gone.add(ring.forget_expired(now_ms));
            last = Some(*number);
            count += 1;
        }
        self.swept = match last {
            Some(last) if count == SWEEP_RINGS => last + 1,
            _ => 0,
        };
        self.subtract(gone);
    }

    /// Takes from the largest rings, if all together are beyond `limits.history_bytes`: the oldest
    /// events of each, down to one level for all. A step frees a sixteenth, so that looking at every
    /// ring is rare.
    pub(super) fn bound(&mut self) {
        let Some(excess) = self.memory.excess() else {
            return;
        };
        let level = memory::level(self.rings.values().map(|ring| ring.memory), excess);
        let mut gone = Gone::default();
        for ring in self.rings.values_mut().filter(|ring| ring.memory > level) {
            gone.add(ring.forget_down_to(level));
        }
        self.subtract(gone);
        self.memory.has_evicted();
    }

    fn subtract(&mut self, gone: Gone) {
        self.events -= gone.events;
        self.live_bytes -= gone.bytes;
        self.memory.subtract(gone.memory);
    }
}

/// What left a ring.
#[derive(Default)]
pub(super) struct Gone {
    events: u64,
    bytes: u64,
    memory: u64,
}

impl Gone {
    fn slot(&mut self, slot: &Slot) {
        self.events += 1;
        self.bytes += slot.bytes();
        self.memory += slot.memory();
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.memory += other.memory;
    }
}

impl Ring {
    pub(super) fn new(channel: ChannelKey, epoch: Epoch, top: u64, limit: usize) -> Self {
        Self {
            channel,
            epoch,
            top,
            is_stored: false,
            relaxed: false,
            is_held: false,
            limit,
            expire_ms: 0,
            memory: 0,
            slots: VecDeque::new(),
        }
    }

    /// Puts back what the log held, in any order; the part that has a hole behind it is left out.
    pub(super) fn restore(&mut self, mut rows: Vec<(u64, Slot)>, now_ms: u64) {
        rows.sort_unstable_by_key(|(offset, slot)| (*offset, slot.sequence));
        rows.dedup_by_key(|(offset, _)| *offset);
        for (offset, slot) in rows {
            if offset != self.top + 1 {
                self.forget_all();
            }
            self.top = self.top.max(offset.saturating_sub(1));
            if offset == self.top + 1 {
                self.push(slot);
            }
        }
        self.forget_expired(now_ms);
    }

    pub(super) fn position(&self) -> Position {
        Position {
            epoch: self.epoch.clone(),
            offset: self.top,
        }
    }

    /// The slot of this offset, if it is still here.
    pub(super) fn slot_mut(&mut self, offset: u64) -> Option<&mut Slot> {
        let index = self.index(offset)?;
        self.slots.get_mut(index)
    }

    /// Whether the event of this offset is still here.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.index(offset).is_some()
    }

    /// Whether the row `sequence` of the log is the one that this ring would be rebuilt from.
    pub(super) fn holds(&self, offset: u64, sequence: u64, now_ms: u64) -> bool {
        self.index(offset)
            .and_then(|index| self.slots.get(index))
            .is_some_and(|slot| slot.sequence == sequence && slot.expire_ms > now_ms)
    }

    /// Everything after `offset`, or why not.
    fn after(&self, offset: u64, now_ms: u64) -> Result<Vec<Entry>, Unrecoverable> {
        if offset == self.top {
            return Ok(Vec::new());
        }
        let first_alive = self.first_alive(now_ms);
        if offset + 1 >= self.offset_at(first_alive) && first_alive < self.slots.len() {
            let start = self.index(offset + 1).unwrap_or(first_alive);
            return Ok(self.entries(start, self.slots.len()));
        }
        if self.top - offset > self.limit as u64 {
            Err(Unrecoverable::TooFar)
        } else {
            Err(Unrecoverable::HistoryExpired)
        }
    }

    /// The newest `limit` entries before `before`.
    pub(super) fn page(&self, before: Option<u64>, limit: usize, now_ms: u64) -> Vec<Entry> {
        let first = self.first_alive(now_ms);
        let end = match before {
            Some(before) if before <= self.top => before
                .checked_sub(self.offset_at(0))
                .map_or(0, |index| index as usize),
            _ => self.slots.len(),
        };
        self.entries(first.max(end.saturating_sub(limit)), end)
    }

    fn entries(&self, start: usize, end: usize) -> Vec<Entry> {
        (start..end)
            .filter_map(|index| {
                self.slots.get(index).map(|slot| Entry {
                    offset: self.offset_at(index),
                    event: slot.event.clone(),
                })
            })
            .collect()
    }

    fn push(&mut self, slot: Slot) -> Gone {
        // A shorter time to live holds for everything older too, so that age only ever takes
        // from the front.
        for older in self.slots.iter_mut().rev() {
            if older.expire_ms <= slot.expire_ms {
                break;
            }
            older.expire_ms = slot.expire_ms;
        }
        self.expire_ms = slot.expire_ms;
        self.top += 1;
        self.memory += slot.memory();
        self.slots.push_back(slot);
        let limit = self.limit.max(1);
        self.forget_while(|ring, _| ring.slots.len() > limit)
    }

    fn forget_expired(&mut self, now_ms: u64) -> Gone {
        self.forget_while(|_, oldest| oldest.expire_ms <= now_ms)
    }

    fn forget_down_to(&mut self, memory: u64) -> Gone {
        self.forget_while(|ring, _| ring.memory > memory)
    }

    fn forget_all(&mut self) -> Gone {
        self.forget_while(|_, _| true)
    }

    /// Takes the oldest ones away, as long as it holds for them.
    fn forget_while(&mut self, must_go: impl Fn(&Self, &Slot) -> bool) -> Gone {
        let mut gone = Gone::default();
        while self.slots.front().is_some_and(|slot| must_go(self, slot)) {
            if let Some(slot) = self.slots.pop_front() {
                self.memory -= slot.memory();
                gone.slot(&slot);
            }
        }
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        } else if self.slots.capacity() / 4 > self.slots.len() {
            self.slots.shrink_to(2 * self.slots.len());
        }
        gone
    }

    pub(super) fn first_alive(&self, now_ms: u64) -> usize {
        self.slots.partition_point(|slot| slot.expire_ms <= now_ms)
    }

    pub(super) fn offset_at(&self, index: usize) -> u64 {
        self.top + 1 - self.slots.len() as u64 + index as u64
    }

    pub(super) fn index(&self, offset: u64) -> Option<usize> {
        let index = offset.checked_sub(self.offset_at(0))? as usize;
        (index < self.slots.len()).then_some(index)
    }
}

#[cfg(test)]
mod tests;
