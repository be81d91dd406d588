//! One channel's events as they come in: puts them into the order of their offsets, without a hole or a
//! duplicate, or says that it cannot. Pure.

use super::wire::Message;
use crate::protocol::Position;
use crate::protocol::history::Recovery;

/// Events that are held while what is missing is read.
const HELD_MAX: usize = 1_024;
/// Bytes of them.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Where a node stands in a channel that it follows.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Whether the channel keeps history; else whatever comes is passed on.
    keeps: bool,
    /// The last event that was passed on, or what had been before the first.
    last: Option<Position>,
    flow: Flow,
}

#[derive(Debug, Default)]
enum Flow {
    /// What comes is passed on.
    #[default]
    Live,
    /// Something is missing and being read; what comes meanwhile waits.
    Healing(Held),
}

#[derive(Debug, Default)]
struct Held {
    messages: Vec<Message>,
    bytes: usize,
    /// Some did not fit. Those with a position are read again.
    spilled: bool,
    /// One without a position did not fit.
    lost: bool,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It goes to the subscribers now.
    Pass(Message),
    /// It had come before, or waits.
    Nothing,
    /// It waits, and what is missing before it has to be read.
    Heal,
}

/// What is done when the missing part was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Healed {
    /// Subscribers are told that something is lost. Comes before `pass`.
    pub(super) is_gap: bool,
    /// These go to the subscribers, in this order.
    pub(super) pass: Vec<Message>,
    /// There is still something missing.
    pub(super) again: bool,
}

impl Line {
    pub(super) fn new(keeps: bool) -> Self {
        Self {
            keeps,
            ..Self::default()
        }
    }

    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// From where on events are missing; `None`: nothing is known, so only the position is asked for.
    pub(super) fn last(&self) -> Option<&Position> {
        self.last.as_ref()
    }

    pub(super) fn is_healing(&self) -> bool {
        matches!(self.flow, Flow::Healing(_))
    }

    /// Events may have been lost: from now on they are held.
    pub(super) fn interrupt(&mut self) {
        if !self.is_healing() {
            self.flow = Flow::Healing(Held::default());
        }
    }

    /// The position when the first subscriber came: everything up to it is history.
    pub(super) fn begin(&mut self, position: Position) {
        self.last.get_or_insert(position);
    }

    /// Takes what has come over pub/sub.
    pub(super) fn take(&mut self, message: Message) -> Taken {
        if let Flow::Healing(held) = &mut self.flow {
            held.add(message);
            return Taken::Nothing;
        }
        let Some(position) = message.position.as_ref().filter(|_| self.keeps) else {
            return Taken::Pass(message);
        };
        let follows = match &self.last {
            None => true,
            Some(last) if last.epoch == position.epoch => {
                if position.offset <= last.offset {
                    return Taken::Nothing;
                }
                position.offset == last.offset + 1
            }
            // Nothing of the new epoch is missing before its first event.
            Some(_) => position.offset == 1,
        };
        if follows {
            self.last = Some(position.clone());
            return Taken::Pass(message);
        }
        let mut held = Held::default();
        held.add(message);
        self.flow = Flow::Healing(held);
        Taken::Heal
    }

    /// What was missing has been read since [`Line::last`].
    pub(super) fn heal(&mut self, recovery: Recovery) -> Healed {
        let mut healed = Healed::default();
        let Flow::Healing(held) = std::mem::take(&mut self.flow) else {
            self.last.get_or_insert(recovery.position);
            return healed;
        };
        let epoch = recovery.position.epoch.clone();
        match recovery.missed {
            Ok(missed) if self.last.is_some() => {
                healed.pass.extend(missed.into_iter().map(|entry| Message {
                    position: Some(Position {
                        epoch: epoch.clone(),
                        offset: entry.offset,
                    }),
                    event: entry.event,
                    trace: None,
                }));
            }
            _ => healed.is_gap = true,
        }
        healed.is_gap |= held.lost;
        self.last = Some(recovery.position);
        for message in held.messages {
            match self.take(message) {
                Taken::Pass(message) => healed.pass.push(message),
                Taken::Nothing => {}
                Taken::Heal => healed.again = true,
            }
        }
        if held.spilled {
            self.interrupt();
            healed.again = true;
        }
        healed
    }

    /// Nothing can be read of a channel without history: what is held goes on after a gap.
    pub(super) fn resume(&mut self) -> Healed {
        let Flow::Healing(held) = std::mem::take(&mut self.flow) else {
            return Healed::default();
        };
        Healed {
            is_gap: true,
            pass: held.messages,
            again: false,
        }
    }
}

impl Held {
    fn add(&mut self, message: Message) {
        let bytes = message.event.as_bytes().len();
        if self.spilled || self.messages.len() >= HELD_MAX || self.bytes + bytes > HELD_BYTES_MAX {
            self.spilled = true;
            self.lost |= message.position.is_none();
            return;
        }
        self.bytes += bytes;
        self.messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::history::{Entry, Unrecoverable};
    use crate::protocol::{Epoch, Event};

    fn at(epoch: &str, offset: u64) -> Position {
        Position {
            epoch: Epoch::new(epoch),
            offset,
        }
    }

    fn event(n: u64) -> Event {
        Event::parse(&format!("{{\"type\":\"x\",\"n\":{n}}}"), 100).unwrap()
    }

    fn message(epoch: &str, offset: u64) -> Message {
        Message {
            position: Some(at(epoch, offset)),
            event: event(offset),
            trace: None,
        }
    }

    fn passing() -> Message {
        Message {
            position: None,
            event: event(0),
            trace: None,
        }
    }

    fn recovery(
        offset: u64,
        missed: Result<std::ops::RangeInclusive<u64>, Unrecoverable>,
    ) -> Recovery {
        Recovery {
            position: at("e", offset),
            missed: missed.map(|range| {
                let entry = |offset| Entry {
                    offset,
                    event: event(offset),
                };
                range.map(entry).collect()
            }),
        }
    }

    fn offsets(messages: &[Message]) -> Vec<u64> {
        let position = |message: &Message| message.position.as_ref().map_or(0, |it| it.offset);
        messages.iter().map(position).collect()
    }

    /// Lets `message` through.
    fn passes(line: &mut Line, message: Message) -> bool {
        matches!(line.take(message), Taken::Pass(_))
    }

    #[test]
    fn events_in_order_pass_once() {
        let mut line = Line::new(true);
        line.begin(at("e", 3));
        assert_eq!(line.take(message("e", 3)), Taken::Nothing);
        assert!(passes(&mut line, message("e", 4)));
        assert!(passes(&mut line, passing()));
        assert_eq!(line.take(message("e", 4)), Taken::Nothing);
        assert!(passes(&mut line, message("e", 5)));
        // The next life of the channel.
        assert!(passes(&mut line, message("f", 1)));
        assert!(passes(&mut line, message("f", 2)));
        assert_eq!(line.take(message("g", 2)), Taken::Heal);
    }

    #[test]
    fn a_hole_is_filled_before_what_follows() {
        let mut line = Line::new(true);
        line.begin(at("e", 0));
        assert!(passes(&mut line, message("e", 1)));
        assert_eq!(line.take(message("e", 4)), Taken::Heal);
        assert_eq!(line.take(message("e", 5)), Taken::Nothing);
        assert_eq!(line.take(message("e", 7)), Taken::Nothing);
        let healed = line.heal(recovery(5, Ok(2..=5)));
        assert_eq!(
            (offsets(&healed.pass), healed.again),
            (vec![2, 3, 4, 5], true)
        );
        assert!(!healed.is_gap && line.is_healing());
        let healed = line.heal(recovery(7, Ok(6..=7)));
        assert_eq!((offsets(&healed.pass), healed.again), (vec![6, 7], false));
        assert!(passes(&mut line, message("e", 8)));
    }

    #[test]
    fn what_cannot_be_read_is_a_gap() {
        let mut line = Line::new(true);
        line.begin(at("e", 1));
        line.interrupt();
        assert_eq!(line.take(message("e", 11)), Taken::Nothing);
        let healed = line.heal(recovery(10, Err(Unrecoverable::TooFar)));
        assert!(healed.is_gap && !healed.again);
        assert_eq!(offsets(&healed.pass), [11]);
        // Nothing was known, so nothing can be proven.
        let mut line = Line::new(true);
        line.interrupt();
        assert!(line.heal(recovery(10, Ok(1..=10))).is_gap);
        let mut line = Line::new(false);
        assert!(passes(&mut line, message("e", 7)));
        line.interrupt();
        assert_eq!(line.take(passing()), Taken::Nothing);
        let healed = line.resume();
        assert!(healed.is_gap);
        assert_eq!(healed.pass.len(), 1);
    }

    #[test]
    fn what_is_held_is_bounded_and_read_again() {
        let mut line = Line::new(true);
        line.begin(at("e", 0));
        line.interrupt();
        for offset in 1..=HELD_MAX as u64 + 10 {
            assert_eq!(line.take(message("e", offset)), Taken::Nothing);
        }
        let healed = line.heal(recovery(5, Ok(1..=5)));
        assert_eq!(
            offsets(&healed.pass),
            (1..=HELD_MAX as u64).collect::<Vec<_>>()
        );
        assert!(healed.again && !healed.is_gap);
        let top = HELD_MAX as u64 + 10;
        let healed = line.heal(recovery(top, Ok(HELD_MAX as u64 + 1..=top)));
        assert_eq!(healed.pass.len(), 10);
        assert!(!healed.again);
    }
}
