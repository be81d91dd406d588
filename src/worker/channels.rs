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
mod tests {
    use super::*;
    use crate::protocol::Epoch;

    struct Bench {
        channels: Channels,
        key: ChannelKey,
        got: HashMap<Slot, Vec<u64>>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                channels: Channels::default(),
                key: ChannelKey::parse("post_1", 255).unwrap(),
                got: HashMap::new(),
            }
        }

        fn event(&mut self, offset: u64) {
            let frame = Frame::encoded(&offset.to_be_bytes());
            let got = &mut self.got;
            self.channels
                .event(&self.key, Some(&at(offset)), &frame, |slot, _| {
                    got.entry(slot).or_default().push(offset);
                });
        }

        /// The history was read up to `until`; what it held is not part of the test.
        fn activate(&mut self, slot: Slot, until: u64) {
            let held = self.channels.activate(&self.key, slot, Some(at(until)));
            let Activated::Held(held) = held else {
                panic!()
            };
            let got = self.got.entry(slot).or_default();
            got.extend(1..=until);
            got.extend(
                held.iter()
                    .map(|(_, held)| u64::from_be_bytes(held[..].try_into().unwrap())),
            );
        }
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::new("e"),
            offset,
        }
    }

    #[test]
    fn no_hole_and_no_duplicate_however_reading_and_events_interleave() {
        // For every moment of joining, reading and activating among ten events.
        for joined in 0..=10u64 {
            for read in joined..=10 {
                for activated in joined..=10 {
                    // The broker is always at least as far as this worker.
                    let until = read.max(joined);
                    let mut bench = Bench::new();
                    bench.channels.join(bench.key.clone(), 9, Slow::Close);
                    bench.activate(9, 0);
                    for offset in 0..=10 {
                        if offset > 0 {
                            bench.event(offset);
                        }
                        if offset == joined {
                            bench.channels.join(bench.key.clone(), 1, Slow::Close);
                        }
                        if offset == activated {
                            bench.activate(1, until);
                        }
                    }
                    let all: Vec<u64> = (1..=10).collect();
                    assert_eq!(
                        bench.got[&1], all,
                        "joined {joined} read {read} active {activated}"
                    );
                    assert_eq!(bench.got[&9], all);
                }
            }
        }
    }

    /// The same, with a page that is read and sent first, at any moment, and the rest later.
    #[test]
    fn no_hole_and_no_duplicate_however_pages_and_events_interleave() {
        for joined in 0..=8u64 {
            for page in 0..=8 {
                for postponed in joined..=8 {
                    for resumed in postponed..=8 {
                        for (read, activated) in (resumed..=8).flat_map(|read| {
                            let activated = resumed..=8;
                            activated.map(move |activated| (read, activated))
                        }) {
                            // A page that is not the last is short of what the broker has.
                            if page >= postponed {
                                continue;
                            }
                            let mut bench = Bench::new();
                            for offset in 0..=8 {
                                if offset > 0 {
                                    bench.event(offset);
                                }
                                if offset == joined {
                                    bench.channels.join(bench.key.clone(), 1, Slow::Close);
                                }
                                if offset == postponed {
                                    let held = bench.channels.postpone(&bench.key, 1);
                                    assert!(
                                        matches!(held, Activated::Held(held) if held.is_empty())
                                    );
                                    bench.got.entry(1).or_default().extend(1..=page);
                                }
                                if offset == resumed {
                                    bench.channels.resume(&bench.key, 1);
                                }
                                if offset == activated {
                                    let until = read.max(resumed);
                                    let held =
                                        bench.channels.activate(&bench.key, 1, Some(at(until)));
                                    let Activated::Held(held) = held else {
                                        panic!()
                                    };
                                    let got = bench.got.entry(1).or_default();
                                    got.extend(page + 1..=until);
                                    got.extend(held.iter().map(|(_, held)| {
                                        u64::from_be_bytes(held[..].try_into().unwrap())
                                    }));
                                }
                            }
                            let all: Vec<u64> = (1..=8).collect();
                            assert_eq!(
                                bench.got[&1], all,
                                "joined {joined} page {page} postponed {postponed} resumed {resumed} \
                                 read {read} activated {activated}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_postponed_member_holds_nothing_and_hears_what_has_no_history() {
        let mut bench = Bench::new();
        bench.channels.join(bench.key.clone(), 1, Slow::Close);
        let (passing, large) = (Frame::text("x"), vec![0; HELD_BYTES_MAX / 2 + 1]);
        let key = bench.key.clone();
        bench
            .channels
            .event(&key, None, &passing, |_, _| panic!("not yet"));
        bench.event(1);
        let Activated::Held(held) = bench.channels.postpone(&key, 1) else {
            panic!()
        };
        assert_eq!(held.len(), 1, "the one that is in no history");
        let mut sent = 0;
        bench.channels.event(&key, None, &passing, |_, _| sent += 1);
        assert_eq!(sent, 1);
        for offset in 2..20 {
            let frame = Frame::encoded(&large);
            bench
                .channels
                .event(&key, Some(&at(offset)), &frame, |_, _| panic!("later"));
        }
        bench.channels.resume(&key, 1);
        bench.event(20);
        let held = bench.channels.activate(&key, 1, Some(at(19)));
        assert!(matches!(held, Activated::Held(held) if held.len() == 1));
        bench.event(21);
        assert_eq!(bench.got[&1], [21]);
        assert!(bench.channels.leave(&key, 1).is_some());
    }

    #[test]
    fn without_history_everything_after_joining_arrives() {
        let mut bench = Bench::new();
        assert!(bench.channels.join(bench.key.clone(), 1, Slow::Close).1);
        let frame = Frame::text("x");
        bench
            .channels
            .event(&bench.key.clone(), None, &frame, |_, _| panic!("not yet"));
        let held = bench.channels.activate(&bench.key, 1, None);
        let Activated::Held(held) = held else {
            panic!()
        };
        assert_eq!(held.len(), 1);
        assert_eq!(&*held[0].1, b"\x81\x01x");
        let mut sent = Vec::new();
        bench
            .channels
            .event(&bench.key.clone(), None, &frame, |slot, _| sent.push(slot));
        assert_eq!(sent, [1]);
    }

    /// Such as who comes and goes in a channel with history.
    #[test]
    fn events_without_history_do_not_end_the_waiting() {
        let mut bench = Bench::new();
        let passing = Frame::text("x");
        bench.channels.join(bench.key.clone(), 1, Slow::Close);
        bench
            .channels
            .event(&bench.key, None, &passing, |_, _| panic!("not yet"));
        let held = bench.channels.activate(&bench.key, 1, Some(at(2)));
        let Activated::Held(held) = held else {
            panic!()
        };
        assert_eq!(held.len(), 1);
        assert_eq!(*held[0].1, *passing);
        let mut sent = 0;
        bench
            .channels
            .event(&bench.key, None, &passing, |_, _| sent += 1);
        assert_eq!(sent, 1);
        for offset in 1..=4 {
            bench.event(offset);
        }
        assert_eq!(bench.got[&1], [3, 4]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut bench = Bench::new();
        bench.channels.join(bench.key.clone(), 1, Slow::Close);
        let frame = Frame::encoded(&vec![0; HELD_BYTES_MAX / 2 + 1]);
        for offset in 1..=3 {
            bench.channels.event(
                &bench.key.clone(),
                Some(&at(offset)),
                &frame,
                |_, _| panic!(),
            );
        }
        let lost = bench.channels.activate(&bench.key, 1, Some(at(0)));
        assert!(matches!(lost, Activated::Lost));
    }

    #[test]
    fn edges_are_told() {
        let mut channels = Channels::default();
        let key = ChannelKey::parse("post_1", 255).unwrap();
        assert!(channels.join(key.clone(), 1, Slow::Close).1);
        assert!(!channels.join(key.clone(), 2, Slow::Close).1);
        channels.activate(&key, 2, None);
        assert_eq!(channels.leave(&key, 2), Some(false));
        assert_eq!(channels.leave(&key, 2), None);
        assert_eq!(channels.leave(&key, 1), Some(true));
        assert!(channels.map.is_empty());
    }

    #[test]
    fn a_member_knows_where_it_stands() {
        let mut bench = Bench::new();
        bench.channels.join(bench.key.clone(), 1, Slow::Close);
        bench.activate(1, 5);
        assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(5)));
        bench.event(4);
        assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(5)));
        bench.event(5);
        bench.event(6);
        assert_eq!(bench.channels.standing(&bench.key, 1), Some(at(6)));
        assert_eq!(bench.got[&1], [1, 2, 3, 4, 5, 6]);
    }
}
