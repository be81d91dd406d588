//! What is known about every channel, and whether the reasons that clients are told are true.

use std::collections::{BTreeMap, HashMap};

use fanfare::clock::Clock;
use fanfare::protocol::Position;

/// `channels.short.history`
pub const SHORT_EVENTS: u64 = 4;
/// `channels.brief.history_ttl`
pub const BRIEF_MS: u64 = 1_000;

#[derive(Default)]
pub struct Account {
    /// Channel -> epoch, what stands at which offset.
    channels: HashMap<&'static str, (Option<String>, BTreeMap<u64, u64>)>,
    /// Event -> its channel, when it was sent, where it stands.
    sent: HashMap<u64, (&'static str, u64, Option<u64>)>,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Account {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn send(&mut self, n: u64, channel: &'static str, clock: &Clock) {
        self.sent.insert(n, (channel, clock.unix_ms(), None));
    }

    /// Somebody learned that the event `n` stands there: it alone, and nowhere else.
    #[track_caller]
    pub fn learn(&mut self, channel: &'static str, at: &Position, n: u64) {
        let (epoch, events) = self.channels.entry(channel).or_default();
        let epoch = epoch.get_or_insert_with(|| at.epoch.as_str().to_owned());
        assert_eq!(epoch, at.epoch.as_str(), "{channel}");
        assert_eq!(
            *events.entry(at.offset).or_insert(n),
            n,
            "{channel} {}",
            at.offset
        );
        let (published_to, _, place) = self.sent.get_mut(&n).unwrap();
        assert_eq!(*published_to, channel);
        assert_eq!(*place.get_or_insert(at.offset), at.offset, "{n} twice");
    }

    pub fn top(&self, channel: &str) -> u64 {
        let known = self.channels.get(channel);
        known
            .and_then(|(_, events)| events.last_key_value())
            .map_or(0, |(offset, _)| *offset)
    }

    /// A client at `at` was told that it cannot recover, the channel being at `top`.
    #[track_caller]
    pub fn not_recovered(
        &mut self,
        channel: &'static str,
        at: u64,
        top: u64,
        reason: &str,
        now_ms: u64,
    ) {
        match reason {
            "too_far" => {
                self.count("too far");
                assert!(channel.starts_with("short") && top - at > SHORT_EVENTS);
            }
            "history_expired" => {
                self.count("expired");
                assert!(channel.starts_with("brief") && top > at);
                let events = self.channels.get(channel).map(|(_, events)| events);
                if let Some(n) = events.and_then(|events| events.get(&(at + 1))) {
                    assert!(self.sent[n].1 + BRIEF_MS <= now_ms, "{channel} {at}");
                }
            }
            other => panic!("{channel} from {at} to {top}: {other} is not true"),
        }
    }

    /// Fails if so little happened that it proves nothing.
    #[track_caller]
    pub fn assert_worth_it(&self) {
        for what in [
            "restarts",
            "sent away",
            "too far",
            "expired",
            "missed",
            "held back",
            "paged",
            "held back while the last page was read",
            "live",
            "again on the same connection",
        ] {
            let count = self.counts.get(what).copied().unwrap_or_default();
            assert!(count >= 5, "{what}: {count} times");
        }
    }
}
