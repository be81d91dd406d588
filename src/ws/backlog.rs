//! The events that wait for a slow socket beside its outbox, because their channels' rules say that
//! some of them may go: which go, and what the client is told of it.

use std::collections::VecDeque;

use super::Frame;
use crate::config::Slow;
use crate::protocol::{ChannelKey, Position};

/// What a waiting event takes beside its frame's bytes.
const EVENT_OVERHEAD: usize = 96;

/// Events that wait, in the order in which they came. Holds no memory while it is empty.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Those of each channel, in no order. None without an event or a gap.
    channels: Vec<Waiting>,
    /// What all events take.
    bytes: usize,
    /// Numbers the events.
    next: u64,
}

/// What waits of a channel.
#[derive(Debug)]
struct Waiting {
    key: ChannelKey,
    slow: Slow,
    /// Oldest first.
    events: VecDeque<Event>,
    gap: Option<Gap>,
}

#[derive(Debug)]
struct Event {
    number: u64,
    at_ms: u64,
    position: Option<Position>,
    frame: Frame,
}

/// Events of a channel that went, all of them before the one that waits in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub dropped: u64,
    /// The position before the first of them, if the channel keeps history.
    pub before: Option<Position>,
}

/// What is due next.
#[derive(Debug)]
pub enum Due {
    /// An event.
    Event {
        /// Its channel.
        key: ChannelKey,
        /// Its place in the channel's history.
        position: Option<Position>,
        /// To be sent.
        frame: Frame,
    },
    /// The client is to be told of a gap.
    Gap(ChannelKey, Gap),
}

/// How much may wait and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes of memory.
    pub bytes: usize,
    /// Events that came before this go, where the rule is to drop the oldest. Monotonic milliseconds.
    pub since_ms: u64,
}

impl Backlog {
    /// An event waits; others may go for it, or itself. How many went.
    pub fn push(
        &mut self,
        key: &ChannelKey,
        slow: Slow,
        position: Option<&Position>,
        frame: &Frame,
        now_ms: u64,
        room: Room,
    ) -> u64 {
        let at = self.channels.iter().position(|one| one.key == *key);
        let at = at.unwrap_or_else(|| {
            self.channels.push(Waiting {
                key: key.clone(),
                slow,
                events: VecDeque::new(),
                gap: None,
            });
            self.channels.len() - 1
        });
        let waiting = &mut self.channels[at];
        let mut dropped = 0;
        if slow == Slow::LatestOnly {
            while let Some(bytes) = waiting.drop_first() {
                self.bytes -= bytes;
                dropped += 1;
            }
        }
        waiting.events.push_back(Event {
            number: self.next,
            at_ms: now_ms,
            position: position.cloned(),
            frame: frame.clone(),
        });
        self.next += 1;
        self.bytes += EVENT_OVERHEAD + frame.len();
        dropped + self.fit(room)
    }

    /// Has the oldest events go until the rest has room. How many went.
    pub fn fit(&mut self, room: Room) -> u64 {
        let mut dropped = 0;
        for waiting in &mut self.channels {
            let drops = waiting.slow == Slow::DropOldest;
            while drops && waiting.first_ms() < room.since_ms {
                self.bytes -= waiting.drop_first().unwrap_or_default();
                dropped += 1;
            }
        }
        while self.bytes > room.bytes {
            let Some(at) = self.oldest() else { break };
            self.bytes -= self.channels[at].drop_first().unwrap_or_default();
            dropped += 1;
        }
        dropped
    }

    /// What is due next. A gap comes before the channel's next event, or in the end.
    pub fn pop(&mut self) -> Option<Due> {
        let at = match self.oldest() {
            Some(at) => at,
            None => self.channels.iter().position(|one| one.gap.is_some())?,
        };
        let waiting = &mut self.channels[at];
        let key = waiting.key.clone();
        let due = match waiting.gap.take() {
            Some(gap) => Due::Gap(key, gap),
            None => {
                let event = waiting.events.pop_front()?;
                self.bytes -= event.bytes();
                Due::Event {
                    key,
                    position: event.position,
                    frame: event.frame,
                }
            }
        };
        if waiting.events.is_empty() && waiting.gap.is_none() {
            self.channels.swap_remove(at);
        }
        if self.channels.is_empty() {
            self.channels = Vec::new();
        }
        Some(due)
    }

    /// Nothing of a channel is due any more.
    pub fn forget(&mut self, key: &ChannelKey) {
        if let Some(at) = self.channels.iter().position(|one| one.key == *key) {
            let waiting = self.channels.swap_remove(at);
            self.bytes -= waiting.events.iter().map(Event::bytes).sum::<usize>();
        }
    }

    /// Where a client stands in a channel of which something waits: before that and before its gap.
    /// `None` if nothing of it waits that has a position.
    pub fn standing(&self, key: &ChannelKey) -> Option<Position> {
        let waiting = self.channels.iter().find(|one| one.key == *key)?;
        let gap = waiting.gap.as_ref().and_then(|gap| gap.before.clone());
        gap.or_else(|| waiting.events.iter().find_map(Event::before))
    }

    /// The rule of a channel of which something waits.
    pub fn rule(&self, key: &ChannelKey) -> Option<Slow> {
        let waiting = self.channels.iter().find(|one| one.key == *key)?;
        Some(waiting.slow)
    }

    /// What all events take.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is due.
    pub const fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The channel whose first event came first.
    fn oldest(&self) -> Option<usize> {
        let first = |(at, one): (usize, &Waiting)| Some((one.events.front()?.number, at));
        let channels = self.channels.iter().enumerate();
        channels.filter_map(first).min().map(|(_, at)| at)
    }
}

impl Waiting {
    fn first_ms(&self) -> u64 {
        self.events.front().map_or(u64::MAX, |event| event.at_ms)
    }

    /// The first event goes; what it took.
    fn drop_first(&mut self) -> Option<usize> {
        let event = self.events.pop_front()?;
        let gap = self.gap.get_or_insert(Gap {
            dropped: 0,
            before: None,
        });
        gap.dropped += 1;
        if gap.before.is_none() {
            gap.before = event.before();
        }
        Some(event.bytes())
    }
}

impl Event {
    fn bytes(&self) -> usize {
        EVENT_OVERHEAD + self.frame.len()
    }

    /// The position of the channel's event before this one.
    fn before(&self) -> Option<Position> {
        self.position.as_ref().map(|position| Position {
            epoch: position.epoch.clone(),
            offset: position.offset.saturating_sub(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::protocol::Epoch;

    const ALL: Room = Room {
        bytes: usize::MAX,
        since_ms: 0,
    };

    fn key(name: &str) -> ChannelKey {
        ChannelKey::parse(name, 255).unwrap()
    }

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::new("e"),
            offset,
        }
    }

    fn drain(backlog: &mut Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.pop())
            .map(|due| match due {
                Due::Event { key, position, .. } => {
                    format!("{key} {}", position.map_or(0, |position| position.offset))
                }
                Due::Gap(key, gap) => format!(
                    "{key} gap of {} after {:?}",
                    gap.dropped,
                    gap.before.map(|before| before.offset)
                ),
            })
            .collect()
    }

    #[test]
    fn the_newest_takes_the_place_of_the_one_before() {
        let mut backlog = Backlog::default();
        for offset in 5..=8 {
            let frame = Frame::text("x");
            backlog.push(
                &key("price_1"),
                Slow::LatestOnly,
                Some(&at(offset)),
                &frame,
                0,
                ALL,
            );
        }
        assert_eq!(backlog.standing(&key("price_1")), Some(at(4)));
        assert_eq!(
            drain(&mut backlog),
            ["price_1 gap of 3 after Some(4)", "price_1 8"]
        );
        assert_eq!(backlog.bytes(), 0);
        assert!(backlog.is_empty());
    }

    #[test]
    fn the_oldest_go_by_bytes_and_by_age_whichever_channel_they_are_of() {
        let mut backlog = Backlog::default();
        let frame = Frame::text("x");
        let each = EVENT_OVERHEAD + frame.len();
        let push = |backlog: &mut Backlog, name, offset, now_ms, room| {
            backlog.push(
                &key(name),
                Slow::DropOldest,
                Some(&at(offset)),
                &frame,
                now_ms,
                room,
            )
        };
        let room = Room {
            bytes: 3 * each,
            since_ms: 0,
        };
        assert_eq!(push(&mut backlog, "a_1", 1, 10, room), 0);
        assert_eq!(push(&mut backlog, "b_1", 7, 20, room), 0);
        assert_eq!(push(&mut backlog, "a_1", 2, 30, room), 0);
        assert_eq!(push(&mut backlog, "a_1", 3, 40, room), 1);
        let later = Room {
            since_ms: 25,
            ..room
        };
        assert_eq!(backlog.fit(later), 1);
        assert_eq!(backlog.standing(&key("b_1")), Some(at(6)));
        assert_eq!(
            drain(&mut backlog),
            [
                "a_1 gap of 1 after Some(0)",
                "a_1 2",
                "a_1 3",
                "b_1 gap of 1 after Some(6)"
            ]
        );
        // What alone is too much goes itself, and that is told, too.
        let none = Room {
            bytes: 10,
            since_ms: 0,
        };
        assert_eq!(push(&mut backlog, "a_1", 4, 50, none), 1);
        assert_eq!(drain(&mut backlog), ["a_1 gap of 1 after Some(3)"]);
    }

    #[test]
    fn a_channel_that_was_left_is_forgotten_with_its_gap() {
        let mut backlog = Backlog::default();
        let frame = Frame::text("x");
        for name in ["a_1", "b_1", "a_1"] {
            backlog.push(&key(name), Slow::LatestOnly, None, &frame, 0, ALL);
        }
        assert_eq!(backlog.standing(&key("a_1")), None);
        backlog.forget(&key("a_1"));
        backlog.forget(&key("a_1"));
        assert_eq!(drain(&mut backlog), ["b_1 0"]);
        assert_eq!(backlog.bytes(), 0);
    }

    /// Whatever goes: what comes out of a channel is in order, every hole in it is told with its size
    /// and its place, and what waits has room.
    #[test]
    fn every_event_comes_out_or_is_told_of() {
        for seed in 1..500_u64 {
            let mut dice = seed;
            let mut roll = |bound: u64| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % bound
            };
            let rules = [
                ("a_1", Slow::DropOldest),
                ("b_1", Slow::LatestOnly),
                ("c_1", Slow::DropOldest),
            ];
            let (mut backlog, mut published) = (Backlog::default(), HashMap::new());
            let mut heard: HashMap<ChannelKey, u64> = HashMap::new();
            let mut hear = |due: Option<Due>| match due {
                Some(Due::Gap(key, gap)) => {
                    let before = heard.entry(key).or_default();
                    assert_eq!(gap.before.unwrap().offset, *before, "seed {seed}");
                    *before += gap.dropped;
                }
                Some(Due::Event { key, position, .. }) => {
                    let before = heard.entry(key).or_default();
                    *before += 1;
                    assert_eq!(position.unwrap().offset, *before, "seed {seed}");
                }
                None => {}
            };
            for now_ms in 0..300 {
                let room = Room {
                    bytes: 200 + roll(2_000) as usize,
                    since_ms: u64::saturating_sub(now_ms, 20 + roll(40)),
                };
                match roll(4) {
                    0 => hear(backlog.pop()),
                    1 => {
                        backlog.fit(room);
                    }
                    _ => {
                        let (name, slow) = rules[roll(3) as usize];
                        let offset = published.entry(name).or_insert(0);
                        *offset += 1;
                        let frame = Frame::text(&"x".repeat(roll(200) as usize));
                        let at = at(*offset);
                        backlog.push(&key(name), slow, Some(&at), &frame, now_ms, room);
                        assert!(backlog.bytes() <= room.bytes);
                    }
                }
            }
            while !backlog.is_empty() {
                hear(backlog.pop());
            }
            assert_eq!(backlog.bytes(), 0);
            for (name, offset) in published {
                assert_eq!(heard[&key(name)], offset, "{name}, seed {seed}");
            }
        }
    }
}
