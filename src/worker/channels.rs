//! A worker's own map from channel to members: who gets an event, and who has to wait for it.
//!
//! A member waits from the moment it asks until its history was read; then events up to the position
//! that was read are not for it, and all later ones are. So there is no hole and no duplicate,
//! however reading and live events interleave.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::{SmallVec, smallvec};

use crate::config::Slow;
use crate::limits::HELD_BYTES_MAX;
use crate::protocol::{ChannelKey, Position};
use crate::ws::Frame;

/// Which connection of the worker: an index into its slab.
pub type Slot = u32;

/// Channels with at least one member.
#[derive(Debug, Default)]
pub struct Channels {
    map: HashMap<ChannelKey, Channel>,
}

/// The members of one channel. A slot stands in one of the three lists, once.
///
/// Small, because many channels have one member and are quiet: a user's own notifications.
#[derive(Debug, Default)]
struct Channel {
    /// Get every event.
    active: Slots,
    /// What becomes of its events when a member takes no more.
    slow: Slow,
    /// `None` if there is nothing in it.
    rest: Option<Box<Rest>>,
}

/// A few have no memory of their own.
type Slots = SmallVec<[Slot; 4]>;

/// What a channel has while members come, or when it keeps history.
#[derive(Debug, Default)]
struct Rest {
    /// The last event with a position that came by. All active members have had it.
    seen: Option<Position>,
    /// Their history is being read. Few: those whose call is out.
    joining: Vec<Joining>,
    /// Have had more than came by here. Few groups: all who were read the same position share one.
    ahead: Vec<Ahead>,
}

/// A member whose history is being read.
#[derive(Debug)]
struct Joining {
    slot: Slot,
    /// What came meanwhile; `None`: more than is kept for a member.
    held: Option<Vec<(Option<Position>, Frame)>>,
    /// Bytes of the frames in `held`.
    held_bytes: usize,
    /// Nothing is being read, because the member still has to take what was: what comes by with a
    /// position will be read later, and the rest is sent at once. Then `held` is empty.
    is_postponed: bool,
}

/// Members whose history was read up to `until`, further than events came by so far.
#[derive(Debug)]
struct Ahead {
    until: Position,
    slots: Slots,
}

/// What a member gets when its history was read.
#[derive(Debug)]
pub enum Activated {
    /// These frames, with the places of their events, then the live ones.
    Held(Vec<(Option<Position>, Frame)>),
    /// Events were lost: it has to come again.
    Lost,
}

impl Channels {
    /// A member asks: from now on events are held back for it. The key is the one that all members
    /// share; `true` if it is the channel's first on this worker. `slow` is the channel's rule.
    pub fn join(&mut self, key: ChannelKey, slot: Slot, slow: Slow) -> (ChannelKey, bool) {
        let entry = self.map.entry(key);
        let first = matches!(entry, Entry::Vacant(_));
        let key = entry.key().clone();
        let channel = entry.or_default();
        channel.slow = slow;
        debug_assert!(!channel.members().any(|member| member == slot));
        channel.rest.get_or_insert_default().joining.push(Joining {
            slot,
            held: Some(Vec::new()),
            held_bytes: 0,
            is_postponed: false,
        });
        (key, first)
    }

    /// The member's history was read, but not to its end, and is to be read on later: what has been held
    /// back is in the part that is left, but for these frames.
    pub fn postpone(&mut self, key: &ChannelKey, slot: Slot) -> Activated {
        let Some(joining) = self.joining(key, slot) else {
            return Activated::Lost;
        };
        let Some(held) = &mut joining.held else {
            return Activated::Lost;
        };
        joining.is_postponed = true;
        joining.held_bytes = 0;
        let mut held = std::mem::take(held);
        held.retain(|(at, _)| at.is_none());
        Activated::Held(held)
    }

    /// The history of a postponed member is being read on: events are held back again.
    pub fn resume(&mut self, key: &ChannelKey, slot: Slot) {
        if let Some(joining) = self.joining(key, slot) {
            joining.is_postponed = false;
        }
    }

    fn joining(&mut self, key: &ChannelKey, slot: Slot) -> Option<&mut Joining> {
        let rest = self.map.get_mut(key)?.rest.as_mut()?;
        rest.joining.iter_mut().find(|one| one.slot == slot)
    }

    /// The member's history was read up to `position` (`None`: the channel keeps none).
    pub fn activate(
        &mut self,
        key: &ChannelKey,
        slot: Slot,
        position: Option<Position>,
    ) -> Activated {
        let Some(channel) = self.map.get_mut(key) else {
            return Activated::Lost;
        };
        let Some(rest) = &mut channel.rest else {
            return Activated::Lost;
        };
        let Some(at) = rest.joining.iter().position(|one| one.slot == slot) else {
            return Activated::Lost;
        };
        let Some(held) = &mut rest.joining[at].held else {
            return Activated::Lost;
        };
        let mut is_past = false;
        let mut held = std::mem::take(held);
        held.retain(|(at, _)| {
            let is_due = !is_covered(at.as_ref(), position.as_ref());
            is_past |= is_due && at.is_some();
            is_due
        });
        rest.joining.swap_remove(at);
        match position {
            Some(position) if !is_past && !reaches(rest.seen.as_ref(), &position) => {
                rest.wait_until(position, slot);
            }
            _ => channel.active.push(slot),
        }
        channel.tidy();
        Activated::Held(held)
    }

    /// Where an acknowledged member stands: the last event that was sent to it.
    pub fn standing(&self, key: &ChannelKey, slot: Slot) -> Option<Position> {
        let rest = self.map.get(key)?.rest.as_ref()?;
        let ahead = rest.ahead.iter().find(|group| group.slots.contains(&slot));
        ahead
            .map(|group| &group.until)
            .or(rest.seen.as_ref())
            .cloned()
    }

    /// A member goes. `true` if it was the channel's last on this worker; `None` if it was none.
    pub fn leave(&mut self, key: &ChannelKey, slot: Slot) -> Option<bool> {
        let channel = self.map.get_mut(key)?;
        channel.remove(slot).then_some(())?;
        let last = channel.members().next().is_none();
        if last {
            self.map.remove(key);
        }
        Some(last)
    }

    /// An event came by: `send` is called for each member that gets it now.
    pub fn event(
        &mut self,
        key: &ChannelKey,
        position: Option<&Position>,
        frame: &Frame,
        mut send: impl FnMut(Slot, Slow),
    ) {
        let Some(channel) = self.map.get_mut(key) else {
            return;
        };
        let slow = channel.slow;
        for slot in &channel.active {
            send(*slot, slow);
        }
        let rest = match (&mut channel.rest, position) {
            (None, None) => return,
            (rest, _) => rest.get_or_insert_default(),
        };
        if let Some(position) = position {
            rest.seen = Some(position.clone());
        }
        for joining in &mut rest.joining {
            match position {
                _ if !joining.is_postponed => joining.hold(position, frame),
                None => send(joining.slot, slow),
                Some(_) => {}
            }
        }
        if rest.ahead.is_empty() {
            return;
        }
        let active = &mut channel.active;
        rest.ahead.retain_mut(|Ahead { until, slots }| {
            if !is_covered(position, Some(until)) {
                for slot in &*slots {
                    send(*slot, slow);
                }
                if position.is_none() {
                    // It says nothing of how far the history has come by.
                    return true;
                }
            } else if !reaches(position, until) {
                return true;
            }
            active.append(slots);
            false
        });
    }

    /// Other rules for all channels.
    pub fn renew(&mut self, slow: impl Fn(&ChannelKey) -> Slow) {
        for (key, channel) in &mut self.map {
            channel.slow = slow(key);
        }
    }

    /// Every channel with its members, where `wanted` says so of its key.
    pub fn all(&self, wanted: impl Fn(&ChannelKey) -> bool) -> Vec<(ChannelKey, Vec<Slot>)> {
        let found = self.map.iter().filter(|(key, _)| wanted(key));
        found
            .map(|(key, channel)| (key.clone(), channel.members().collect()))
            .collect()
    }

    /// The channels that a slot is a member of. Walks over all: for when nobody else knows.
    pub fn of(&self, slot: Slot) -> Vec<ChannelKey> {
        let own = self
            .map
            .iter()
            .filter(|(_, channel)| channel.members().any(|member| member == slot));
        own.map(|(key, _)| key.clone()).collect()
    }

    /// All members of a channel, acknowledged or not.
    pub fn members(&self, key: &ChannelKey) -> Vec<Slot> {
        self.map
            .get(key)
            .map_or_else(Vec::new, |channel| channel.members().collect())
    }
}

impl Channel {
    fn members(&self) -> impl Iterator<Item = Slot> {
        let rest = self.rest.iter();
        let others = rest.flat_map(|rest| {
            let ahead = rest.ahead.iter().flat_map(|group| &group.slots);
            ahead
                .copied()
                .chain(rest.joining.iter().map(|one| one.slot))
        });
        self.active.iter().copied().chain(others)
    }

    /// Takes a member out; whether it was there.
    fn remove(&mut self, slot: Slot) -> bool {
        if remove_slot(&mut self.active, slot) {
            return true;
        }
        let Some(rest) = &mut self.rest else {
            return false;
        };
        if let Some(at) = rest.joining.iter().position(|one| one.slot == slot) {
            rest.joining.swap_remove(at);
            self.tidy();
            return true;
        }
        let found = rest
            .ahead
            .iter_mut()
            .any(|group| remove_slot(&mut group.slots, slot));
        rest.ahead.retain(|group| !group.slots.is_empty());
        found
    }

    /// Gives memory back that nothing is in.
    fn tidy(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        if rest.joining.is_empty() {
            rest.joining = Vec::new();
            if rest.seen.is_none() && rest.ahead.is_empty() {
                self.rest = None;
            }
        }
    }
}

impl Rest {
    fn wait_until(&mut self, until: Position, slot: Slot) {
        match self.ahead.iter_mut().find(|group| group.until == until) {
            Some(group) => group.slots.push(slot),
            None => self.ahead.push(Ahead {
                until,
                slots: smallvec![slot],
            }),
        }
    }
}

impl Joining {
    fn hold(&mut self, position: Option<&Position>, frame: &Frame) {
        self.held_bytes = self.held_bytes.saturating_add(frame.len());
        if self.held_bytes > HELD_BYTES_MAX {
            self.held = None;
        } else if let Some(held) = &mut self.held {
            held.push((position.cloned(), frame.clone()));
        }
    }
}

/// Takes a slot out of a list, and memory back once most of the list has gone.
fn remove_slot(slots: &mut Slots, slot: Slot) -> bool {
    const SPARE: usize = 64;
    let Some(at) = slots.iter().position(|member| *member == slot) else {
        return false;
    };
    slots.swap_remove(at);
    if slots.capacity() > SPARE && slots.len() < slots.capacity() / 4 {
        slots.shrink_to_fit();
    }
    true
}

/// Whether a member whose history was read up to `until` has had an event at `at`.
fn is_covered(at: Option<&Position>, until: Option<&Position>) -> bool {
    match (at, until) {
        (Some(at), Some(until)) => at.epoch == until.epoch && at.offset <= until.offset,
        _ => false,
    }
}

/// Whether events came by up to `until`.
fn reaches(seen: Option<&Position>, until: &Position) -> bool {
    seen.is_some_and(|seen| seen.epoch == until.epoch && seen.offset >= until.offset)
}

#[cfg(test)]
mod tests;
