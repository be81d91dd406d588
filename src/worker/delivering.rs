//! How long events take from their publication to the sockets, counted once per event and worker: an
//! event has arrived when the connections that it made wait for a write have had theirs.

use std::collections::VecDeque;

/// Events that are followed at a time; others are not counted.
const FOLLOWED_MAX: usize = 4_096;

/// The events under way.
#[derive(Debug, Default)]
pub struct Delivering {
    /// When each was published, and how many writes there have been in all when it is out.
    events: VecDeque<(u64, u64)>,
    writes: u64,
}

impl Delivering {
    /// An event is in the outboxes of its members; so many connections wait for a write.
    pub fn begin(&mut self, since_ns: u64, dirty: usize) {
        if self.events.len() < FOLLOWED_MAX {
            self.events
                .push_back((since_ns, self.writes + dirty as u64));
        }
    }

    /// So many connections had their writes.
    pub fn wrote(&mut self, writes: u64) {
        self.writes += writes;
    }

    /// Whether [`Delivering::arrived`] has anything to say: so that the time is asked only then.
    pub fn has_arrived(&self) -> bool {
        let first = self.events.front();
        first.is_some_and(|(_, writes)| *writes <= self.writes)
    }

    /// The microseconds of an event that is out, each once.
    pub fn arrived(&mut self, now_ns: u64) -> Option<u64> {
        if !self.has_arrived() {
            return None;
        }
        let (since_ns, _) = self.events.pop_front()?;
        Some(now_ns.saturating_sub(since_ns) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_out_when_all_that_waited_were_written_to() {
        let mut delivering = Delivering::default();
        delivering.begin(1_000, 3);
        delivering.begin(2_000, 4);
        delivering.wrote(2);
        assert_eq!(delivering.arrived(50_000), None);
        delivering.wrote(1);
        assert!(delivering.has_arrived());
        assert_eq!(delivering.arrived(50_000), Some(49));
        assert_eq!(delivering.arrived(50_000), None);
        delivering.wrote(5);
        assert_eq!(delivering.arrived(52_000), Some(50));
        // Nobody had to wait: blocked sockets have it in their outboxes.
        delivering.begin(60_000, 0);
        assert_eq!(delivering.arrived(61_000), Some(1));
    }

    #[test]
    fn it_is_bounded() {
        let mut delivering = Delivering::default();
        for n in 0..FOLLOWED_MAX as u64 + 10 {
            delivering.begin(n, 1);
        }
        delivering.wrote(1);
        let arrived = std::iter::from_fn(|| delivering.arrived(0)).count();
        assert_eq!(arrived, FOLLOWED_MAX);
    }
}
