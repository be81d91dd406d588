//! What is shown: everything counted and measured, read once, as plain values.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Counters, Names, Process, WorkerCounters};
use crate::broker::figures::RedisFigures;
use crate::broker::{Broker, Health, Store, StoreFigures};
use crate::clock::{Clock, Moment};
use crate::event_log::{EventLog, Figures};
use crate::timing::Timing;

/// Where the figures come from. Reading them never waits for anything but short locks.
pub struct Observed {
    /// What everybody counts in.
    pub counters: Arc<Counters>,
    /// The time.
    pub clock: Clock,
    /// When the process started.
    pub started: Moment,
    /// The node's name, as clients see it.
    pub node: Arc<str>,
    /// The version of the program.
    pub version: &'static str,
    /// For its health and figures.
    pub store: Arc<dyn Store>,
    /// For its health.
    pub broker: Arc<dyn Broker>,
    /// The figures of the Redis, if there is one.
    pub redis: Option<Box<dyn Fn() -> RedisFigures + Send + Sync>>,
    /// For its figures.
    pub event_log: EventLog,
    /// The subscribers of every channel that has some.
    pub channels: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    /// The events that wait in each worker's mailbox.
    pub queues: Box<dyn Fn() -> Vec<usize> + Send + Sync>,
    /// When the certificate of each listener that has one ends.
    pub certificates: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>,
    /// Whether the server is stopping.
    pub draining: Box<dyn Fn() -> bool + Send + Sync>,
    /// The bounds that are in force.
    pub bounds: Box<dyn Fn() -> Bounds + Send + Sync>,
}

/// Bounds that alerts compare with; 0 is unlimited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// `limits.connections`, as far as there are descriptors.
    pub connections: usize,
    /// `limits.store_bytes`.
    pub store_bytes: u64,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("node", &self.node)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Observed {
    /// Reads everything.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &self.counters;
        let now = self.clock.now();
        let channels = (self.channels)();
        Snapshot {
            version: self.version,
            node: Arc::clone(&self.node),
            started_unix_ms: self.started.unix_ms,
            uptime_ms: now.mono_ms.saturating_sub(self.started.mono_ms),
            draining: (self.draining)(),
            bounds: (self.bounds)(),
            broker: self.broker.health(),
            store: self.store.health(),
            store_figures: self.store.figures(),
            redis: self.redis.as_ref().map(|read| read()),
            event_log: self.event_log.figures(),
            process: Process::read(),
            queues: (self.queues)(),
            channel_count: channels.len() as u64,
            subscriptions: channels.iter().map(|(_, subscribers)| subscribers).sum(),
            channels: largest(channels),
            connections_opened: counters.sum(|worker| &worker.connections_opened),
            connections_closed: counters.sum(|worker| &worker.connections_closed),
            event_streams: counters
                .sum(|worker| &worker.event_streams_opened)
                .saturating_sub(counters.sum(|worker| &worker.event_streams_closed)),
            messages: counters.sum(|worker| &worker.messages),
            messages_by_type: by_worker(counters, |worker| &worker.messages_by_type),
            received_bytes: counters.sum(|worker| &worker.received_bytes),
            sent_bytes: counters.sum(|worker| &worker.sent_bytes),
            writes: counters.sum(|worker| &worker.writes),
            deliveries: counters.sum(|worker| &worker.deliveries),
            delivery: counters.delivery(),
            dropped: counters.sum(|worker| &worker.dropped),
            turns: counters.sum(|worker| &worker.turns),
            gaps: counters.sum(|worker| &worker.gaps),
            error_replies: counters.sum(|worker| &worker.error_replies),
            closes: by_worker(counters, |worker| &worker.closes),
            auth_failures: named(&counters.auth_failures),
            errors: counters.errors.value(),
            malformed: counters.sum(|worker| &worker.malformed),
            http_responses: named(&counters.http_responses),
            limited: named(&counters.limited),
            would_limit: named(&counters.would_limit),
            tokens_issued: counters.tokens_issued.value(),
            token_variants: named(&counters.token_variants),
            tokens_revoked: counters.tokens_revoked.value(),
            publications: named(&counters.publications),
            notifications: counters.notifications.value(),
            access_backend: named(&counters.access_backend),
            handshakes: named(&counters.handshakes),
            reloads: named(&counters.reloads),
            certificates: (self.certificates)(),
            key_fetches: named(&counters.key_fetches),
            spans: [
                ("exported", counters.spans.exported.value()),
                ("refused", counters.spans.refused.value()),
                ("dropped", counters.spans.dropped.value()),
            ],
            canary_rounds: counters.canary.rounds.value(),
            canary_failures: counters.canary.failures.value(),
            canary_latency_ms: counters.canary.latency_ms(),
            alerts: counters.alerts.now(),
        }
    }
}

/// Numbers under names, the largest first (equal ones by name), [`MOST_COUNTS`] at most.
pub type Counts = Vec<(String, u64)>;

/// Entries of a [`Counts`] that are kept. Contract section 7.
pub const MOST_COUNTS: usize = 1_000;

/// The figures of one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version of the program.
    pub version: &'static str,
    /// The node's name.
    pub node: Arc<str>,
    /// When the process started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// For how long it has been running.
    pub uptime_ms: u64,
    /// Whether it is stopping.
    pub draining: bool,
    /// The bounds that are in force.
    pub bounds: Bounds,
    /// Whether publishing works.
    pub broker: Health,
    /// Whether writing works.
    pub store: Health,
    /// The store's own figures.
    pub store_figures: StoreFigures,
    /// Those of the Redis, if there is one.
    pub redis: Option<RedisFigures>,
    /// What became of the event log's lines.
    pub event_log: Figures,
    /// What the kernel says about the process.
    pub process: Process,
    /// Events waiting in each worker's mailbox.
    pub queues: Vec<usize>,
    /// Channels that have subscribers, `channels` being the largest of them.
    pub channel_count: u64,
    /// Subscriptions to all channels.
    pub subscriptions: u64,
    /// Subscribers by channel.
    pub channels: Counts,
    /// Sockets that were authenticated.
    pub connections_opened: u64,
    /// Of those, the ones that ended.
    pub connections_closed: u64,
    /// Streams of server-sent events among those that are open.
    pub event_streams: u64,
    /// Messages that clients sent.
    pub messages: u64,
    /// The same by their `type`, which clients choose.
    pub messages_by_type: Counts,
    /// Bytes read from sockets after the upgrade.
    pub received_bytes: u64,
    /// Bytes written to sockets after the upgrade.
    pub sent_bytes: u64,
    /// Write calls that carried them.
    pub writes: u64,
    /// Events put into a socket's queue.
    pub deliveries: u64,
    /// How long events took from their publication to the sockets, once for each worker.
    pub delivery: Timing,
    /// Events of those that were dropped again for slow sockets.
    pub dropped: u64,
    /// Turns of all workers.
    pub turns: u64,
    /// Events that did not fit into a mailbox.
    pub gaps: u64,
    /// Error replies to clients.
    pub error_replies: u64,
    /// Closes by code and reason.
    pub closes: Counts,
    /// Refused tokens, keys and origins by the check that failed.
    pub auth_failures: Counts,
    /// Faults of the server itself.
    pub errors: u64,
    /// Messages of clients that could not be read.
    pub malformed: u64,
    /// HTTP responses by `METHOD route status`.
    pub http_responses: Counts,
    /// What was refused by a limit, by its key.
    pub limited: Counts,
    /// [`Counters::would_limit`]
    pub would_limit: Counts,
    /// Tokens issued.
    pub tokens_issued: u64,
    /// [`Counters::token_variants`]
    pub token_variants: Counts,
    /// Revocations of tokens, families and users.
    pub tokens_revoked: u64,
    /// Events published by whom.
    pub publications: Counts,
    /// Notifications created.
    pub notifications: u64,
    /// Questions of the rule `backend` by what became of them.
    pub access_backend: Counts,
    /// TLS handshakes by what became of them.
    pub handshakes: Counts,
    /// Readings of the configuration while the server ran.
    pub reloads: Counts,
    /// When the certificate of a listener ends, in milliseconds since 1970.
    pub certificates: Vec<(&'static str, u64)>,
    /// [`Counters::key_fetches`]
    pub key_fetches: Counts,
    /// What became of spans.
    pub spans: [(&'static str, u64); 3],
    /// Round trips of the canary that came to an end.
    pub canary_rounds: u64,
    /// And those that did not.
    pub canary_failures: u64,
    /// Milliseconds of the last one, if there was one.
    pub canary_latency_ms: Option<f64>,
    /// Alerts that fire, by name.
    pub alerts: BTreeSet<&'static str>,
}

impl Snapshot {
    /// What the predecessor counted as errors: its own faults, and messages that could not be read.
    pub fn errors_and_malformed(&self) -> u64 {
        self.errors + self.malformed
    }

    /// Sockets that are open and authenticated.
    pub fn active_connections(&self) -> u64 {
        // The two are read one after the other: a close between them must not show as 2^64 - 1.
        self.connections_opened
            .saturating_sub(self.connections_closed)
    }

    /// Refused tokens, keys and origins.
    pub fn all_auth_failures(&self) -> u64 {
        self.auth_failures.iter().map(|(_, count)| count).sum()
    }
}

impl Default for Snapshot {
    /// Of a healthy server that has done nothing yet.
    fn default() -> Self {
        Self {
            version: "",
            node: Arc::default(),
            started_unix_ms: 0,
            uptime_ms: 0,
            draining: false,
            bounds: Bounds::default(),
            broker: Health::Up,
            store: Health::Up,
            store_figures: StoreFigures::default(),
            redis: None,
            event_log: Figures::default(),
            process: Process::default(),
            queues: Vec::new(),
            channel_count: 0,
            subscriptions: 0,
            channels: Vec::new(),
            connections_opened: 0,
            connections_closed: 0,
            event_streams: 0,
            messages: 0,
            messages_by_type: Vec::new(),
            received_bytes: 0,
            sent_bytes: 0,
            writes: 0,
            deliveries: 0,
            delivery: Timing::default(),
            dropped: 0,
            turns: 0,
            gaps: 0,
            error_replies: 0,
            closes: Vec::new(),
            auth_failures: Vec::new(),
            errors: 0,
            malformed: 0,
            http_responses: Vec::new(),
            limited: Vec::new(),
            would_limit: Vec::new(),
            tokens_issued: 0,
            token_variants: Vec::new(),
            tokens_revoked: 0,
            publications: Vec::new(),
            notifications: 0,
            access_backend: Vec::new(),
            handshakes: Vec::new(),
            reloads: Vec::new(),
            certificates: Vec::new(),
            key_fetches: Vec::new(),
            spans: [("exported", 0), ("refused", 0), ("dropped", 0)],
            canary_rounds: 0,
            canary_failures: 0,
            canary_latency_ms: None,
            alerts: BTreeSet::new(),
        }
    }
}

fn named(names: &Names) -> Counts {
    let mut sums = BTreeMap::new();
    names.add_to(&mut sums);
    largest(sums.into_iter().collect())
}

fn by_worker(counters: &Counters, names: impl Fn(&WorkerCounters) -> &Names) -> Counts {
    let mut sums = BTreeMap::new();
    for worker in &counters.workers {
        names(worker).add_to(&mut sums);
    }
    largest(sums.into_iter().collect())
}

/// Sorts and cuts without sorting what is cut: there may be a hundred thousand channels.
fn largest(mut counts: Counts) -> Counts {
    fn order((name, count): &(String, u64)) -> (Reverse<u64>, &str) {
        (Reverse(*count), name)
    }
    if counts.len() > MOST_COUNTS {
        counts.select_nth_unstable_by(MOST_COUNTS, |a, b| order(a).cmp(&order(b)));
        counts.truncate(MOST_COUNTS);
    }
    counts.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_thousand_stay_in_order() {
        let all = (0..5_000)
            .map(|n| (format!("post_{n}"), n % 2_500))
            .collect();
        let kept = largest(all);
        assert_eq!(kept.len(), MOST_COUNTS);
        assert_eq!(kept[0], (String::from("post_2499"), 2_499));
        assert_eq!(kept[1], (String::from("post_4999"), 2_499));
        assert_eq!(kept[999], (String::from("post_4500"), 2_000));
    }
}
