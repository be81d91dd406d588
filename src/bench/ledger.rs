//! Who should have got what, and who did: every event of every channel exactly once and in order.
//! Pure.

use std::collections::VecDeque;

use serde::Serialize;

use super::histogram::Histogram;
use super::mark::Mark;

/// The books of one measurement.
#[derive(Default)]
pub struct Ledger {
    channels: Vec<Channel>,
    /// From publication to reading, in nanoseconds.
    pub latency: Histogram,
    /// Events that subscribers got for the first time.
    pub delivered: u64,
    /// Publications that some subscriber has yet to get, of all channels.
    pub outstanding: usize,
    repeated: u64,
    late: u64,
    /// Whether a channel's events have to come in the order in which they were published; else in
    /// one that is the same for all.
    as_published: bool,
}

/// What is wrong, in events times subscribers; all zero if nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Never came.
    pub lost: u64,
    /// Came again.
    pub repeated: u64,
    /// Came after a later one.
    pub out_of_order: u64,
}

#[derive(Default)]
struct Channel {
    published: u32,
    subscribers: u32,
    /// For the publications that somebody has yet to get, the oldest first: how many have.
    pending: VecDeque<u32>,
    /// Where each publication stands in the order that all must see: the one in which somebody saw it
    /// first. Empty if that has to be the order of publication.
    places: Vec<Option<u32>>,
    placed: u32,
}

/// What one subscriber has seen of its channel.
#[derive(Debug, Default)]
pub struct Seen {
    /// The first place in the channel's order that has not come, if none came late.
    next: u32,
    /// Places before `next` that have not come. Almost always empty.
    missing: Vec<u32>,
}

impl Faults {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// All of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            repeated: self.repeated + other.repeated,
            out_of_order: self.out_of_order + other.out_of_order,
        }
    }
}

impl Ledger {
    /// Empty books for channels with so many subscribers each. `as_published`: a channel has one
    /// publisher, so that there is one right order; else all subscribers must see the same.
    pub fn new(subscribers: &[u32], as_published: bool) -> Self {
        let channels = subscribers.iter().map(|&subscribers| Channel {
            subscribers,
            ..Channel::default()
        });
        Self {
            channels: channels.collect(),
            as_published,
            ..Self::default()
        }
    }

    /// Notes a publication; its sequence.
    pub fn publish(&mut self, channel: usize) -> u32 {
        let channel = &mut self.channels[channel];
        let sequence = channel.published;
        channel.published += 1;
        if !self.as_published {
            channel.places.push(None);
        }
        if channel.subscribers > 0 {
            channel.pending.push_back(0);
            self.outstanding += 1;
        }
        sequence
    }

    /// Publications on a channel.
    pub fn published(&self, channel: usize) -> u32 {
        self.channels[channel].published
    }

    /// Notes an arrival at one subscriber.
    pub fn arrive(&mut self, seen: &mut Seen, mark: Mark, now_ns: u64) {
        let Some(channel) = self.channels.get_mut(usize::from(mark.channel)) else {
            return;
        };
        match seen.note(channel.place(mark.sequence)) {
            Arrival::InOrder => {}
            Arrival::Late => self.late += 1,
            Arrival::Repeated => {
                self.repeated += 1;
                return;
            }
        }
        self.delivered += 1;
        self.latency.add(now_ns.saturating_sub(mark.micros * 1_000));
        let oldest = channel.published as usize - channel.pending.len();
        let index = (mark.sequence as usize).checked_sub(oldest);
        if let Some(got) = index.and_then(|index| channel.pending.get_mut(index)) {
            *got += 1;
        }
        while channel.pending.front() == Some(&channel.subscribers) {
            channel.pending.pop_front();
            self.outstanding -= 1;
        }
    }

    /// The balance, given every subscriber with its channel.
    pub fn faults<'a>(&self, subscribers: impl Iterator<Item = (usize, &'a Seen)>) -> Faults {
        let lost = subscribers.map(|(channel, seen)| {
            let published = self.channels[channel].published;
            u64::from(published.saturating_sub(seen.next)) + seen.missing.len() as u64
        });
        Faults {
            lost: lost.sum(),
            repeated: self.repeated,
            out_of_order: self.late,
        }
    }
}

impl Channel {
    fn place(&mut self, sequence: u32) -> u32 {
        match self.places.get_mut(sequence as usize) {
            None => sequence,
            Some(place) => *place.get_or_insert_with(|| {
                self.placed += 1;
                self.placed - 1
            }),
        }
    }
}

enum Arrival {
    InOrder,
    Late,
    Repeated,
}

impl Seen {
    fn note(&mut self, place: u32) -> Arrival {
        if place == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        if place > self.next {
            self.missing.extend(self.next..place);
            self.next = place + 1;
            return Arrival::InOrder;
        }
        match self.missing.iter().position(|&missing| missing == place) {
            Some(at) => {
                self.missing.swap_remove(at);
                Arrival::Late
            }
            None => Arrival::Repeated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u32) -> Mark {
        Mark {
            channel: 0,
            sequence,
            micros: 0,
        }
    }

    fn after(arrivals: &[u32]) -> (Ledger, Faults) {
        let mut ledger = Ledger::new(&[1], true);
        for _ in 0..5 {
            ledger.publish(0);
        }
        let mut seen = Seen::default();
        for &sequence in arrivals {
            ledger.arrive(&mut seen, mark(sequence), 0);
        }
        let faults = ledger.faults([(0, &seen)].into_iter());
        (ledger, faults)
    }

    #[test]
    fn every_kind_of_fault_is_counted_exactly() {
        let faults = |lost, repeated, out_of_order| Faults {
            lost,
            repeated,
            out_of_order,
        };
        assert_eq!(after(&[0, 1, 2, 3, 4]).1, faults(0, 0, 0));
        assert_eq!(after(&[]).1, faults(5, 0, 0));
        assert_eq!(after(&[0, 1]).1, faults(3, 0, 0));
        assert_eq!(after(&[0, 2, 4]).1, faults(2, 0, 0));
        assert_eq!(after(&[0, 2, 1, 3, 4]).1, faults(0, 0, 1));
        assert_eq!(after(&[0, 1, 2, 2, 3, 4, 0]).1, faults(0, 2, 0));
        assert_eq!(after(&[4, 1, 1]).1, faults(3, 1, 1));
    }

    #[test]
    fn of_several_publishers_any_order_is_right_if_it_is_the_same_for_all() {
        let faults = |one: &[u32], two: &[u32]| {
            let mut ledger = Ledger::new(&[2], false);
            for _ in 0..4 {
                ledger.publish(0);
            }
            let mut seen = [Seen::default(), Seen::default()];
            for (seen, arrivals) in seen.iter_mut().zip([one, two]) {
                for &sequence in arrivals {
                    ledger.arrive(seen, mark(sequence), 0);
                }
            }
            ledger.faults(seen.iter().map(|seen| (0, seen)))
        };
        assert!(!faults(&[2, 0, 1, 3], &[2, 0, 1, 3]).any());
        assert_eq!(faults(&[2, 0, 1, 3], &[0, 2, 1, 3]).out_of_order, 1);
        assert_eq!(faults(&[2, 0, 1, 3], &[2, 0, 3]).lost, 1);
        assert_eq!(faults(&[2, 0, 1, 3], &[2, 0, 0, 1, 3]).repeated, 1);
    }

    #[test]
    fn a_publication_is_outstanding_until_the_last_subscriber_has_it() {
        assert_eq!(after(&[0, 1, 2]).0.outstanding, 2);
        // The oldest holds back the count, for it is the window's end.
        assert_eq!(after(&[1, 2, 3, 4]).0.outstanding, 5);
        assert_eq!(after(&[1, 2, 0, 3, 4, 4]).0.outstanding, 0);

        let mut ledger = Ledger::new(&[2, 0], true);
        ledger.publish(1);
        assert_eq!(ledger.outstanding, 0, "nobody to wait for");
        ledger.publish(0);
        let (mut one, mut two) = (Seen::default(), Seen::default());
        ledger.arrive(&mut one, mark(0), 0);
        assert_eq!(ledger.outstanding, 1);
        ledger.arrive(&mut two, mark(0), 0);
        assert_eq!(ledger.outstanding, 0);
    }
}
