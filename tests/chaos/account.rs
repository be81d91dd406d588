//! What is known about every channel, from whoever learned it: publishers by their answers,
//! subscribers by what they heard. Two that contradict each other fail the test.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Channels in all.
pub const CHANNELS: usize = 50;
/// Of them, with a history of [`SHORT_EVENTS`].
const SHORT: usize = 5;
/// Of them, with a history of [`BRIEF_TTL`].
const BRIEF: usize = 5;
/// `channels.short.history`
pub const SHORT_EVENTS: u64 = 10;
/// `channels.brief.history_ttl`
const BRIEF_TTL: Duration = Duration::from_secs(2);

/// One event: its publisher, and that publisher's how manieth it was. Published once.
pub type Mark = (usize, usize);

/// The channel of this number.
pub fn key(channel: usize) -> String {
    let kind = if channel < SHORT {
        "short"
    } else if channel < SHORT + BRIEF {
        "brief"
    } else {
        "post"
    };
    format!("{kind}_{channel}")
}

/// The number of this channel.
pub fn number(key: &str) -> usize {
    key.split_once('_').unwrap().1.parse().unwrap()
}

#[derive(Default)]
pub struct Account {
    channels: HashMap<usize, Known>,
    /// Where each event stands.
    places: HashMap<Mark, (usize, u64)>,
    /// When it was sent to be published.
    sent: HashMap<Mark, Instant>,
    /// What came of publications.
    pub acknowledged: u64,
    pub refused: u64,
    pub unanswered: u64,
    /// What came of subscriptions.
    pub recovered: u64,
    pub recovered_events: u64,
    pub lost: HashMap<String, u64>,
    /// What became of connections.
    pub cut: u64,
    pub broken: u64,
    pub sent_away: HashMap<u64, u64>,
    pub heard: u64,
}

#[derive(Default)]
struct Known {
    epoch: Option<String>,
    events: HashMap<u64, Mark>,
    top: u64,
}

impl Account {
    /// An event is about to be published.
    pub fn send(&mut self, mark: Mark) {
        self.sent.insert(mark, Instant::now());
    }

    /// Somebody was told that this event stands there. An offset is never used again, and an event
    /// is never there twice, whether its publisher was answered or not.
    #[track_caller]
    pub fn learn(&mut self, channel: usize, epoch: &str, offset: u64, mark: Mark) {
        self.epoch(channel, epoch);
        let known = self.channels.entry(channel).or_default();
        let there = *known.events.entry(offset).or_insert(mark);
        assert_eq!(there, mark, "{} at {offset}: two events", key(channel));
        known.top = known.top.max(offset);
        let place = *self.places.entry(mark).or_insert((channel, offset));
        assert_eq!(place, (channel, offset), "{mark:?} is there twice");
        assert!(self.sent.contains_key(&mark), "nobody published {mark:?}");
    }

    /// Somebody was told the channel's epoch. It outlives every kill.
    #[track_caller]
    pub fn epoch(&mut self, channel: usize, epoch: &str) {
        let known = self.channels.entry(channel).or_default();
        let known = known.epoch.get_or_insert_with(|| epoch.to_string());
        assert_eq!(known, epoch, "{}", key(channel));
    }

    /// The last offset that anybody knows of.
    pub fn top(&self, channel: usize) -> u64 {
        self.channels.get(&channel).map_or(0, |known| known.top)
    }

    /// A client at `at` was told that it cannot recover for `reason`, the channel being at `top`.
    #[track_caller]
    pub fn not_recovered(&mut self, channel: usize, at: u64, top: u64, reason: &str) {
        *self.lost.entry(reason.to_string()).or_default() += 1;
        let key = key(channel);
        match reason {
            "too_far" => assert!(
                key.starts_with("short_") && top - at > SHORT_EVENTS,
                "{key} from {at} to {top} is not too far"
            ),
            "history_expired" => {
                assert!(key.starts_with("brief_") && top > at, "{key} keeps it");
                // Of an event that nobody was told of, nobody can tell how old it is.
                let next = self.channels[&channel].events.get(&(at + 1));
                if let Some(sent) = next.map(|mark| self.sent[mark]) {
                    let age = sent.elapsed();
                    assert!(age >= BRIEF_TTL, "{key} at {at}: expired after {age:?}");
                }
            }
            other => panic!("{key} from {at} to {top}: {other} is not true"),
        }
    }

    /// Fails if so little happened that it proves nothing.
    #[track_caller]
    pub fn assert_worth_it(&self, kills: u64) {
        assert_eq!(self.channels.len(), CHANNELS);
        assert!(self.acknowledged > 500, "hardly anything was published");
        assert!(self.cut > 500, "hardly anything was cut");
        assert!(self.broken > 100 * kills, "hardly anything broke");
        assert!(self.recovered_events > self.recovered);
        assert!(self.lost["too_far"] > 0 && self.lost["history_expired"] > 0);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "published: {} acknowledged, {} refused, {} unanswered",
            self.acknowledged, self.refused, self.unanswered
        )?;
        writeln!(
            f,
            "connections: {} cut, {} broken, sent away {:?}",
            self.cut, self.broken, self.sent_away
        )?;
        write!(
            f,
            "events: {} heard, {} of them missed first; {} times recovered, not {:?}",
            self.heard, self.recovered_events, self.recovered, self.lost
        )
    }
}
