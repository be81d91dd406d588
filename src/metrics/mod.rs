//! Counters: where the rest of the server counts, and nothing else.
//!
//! Reading them all is [`Observed::snapshot`], showing them `render` and `console`, serving them
//! `server`. A worker has its own [`WorkerCounters`], which nobody
//! else writes, so that counting costs an uncontended store.

mod canary;
pub mod console;
pub mod hour;
mod process;
pub mod render;
pub mod roster;
pub mod server;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::counter::Counter;
use crate::timing::{Histogram, Timing};
use crate::trace;
pub use canary::{ALERTS, Canary, Firing};
pub use process::Process;
pub use snapshot::{Bounds, Counts, MOST_COUNTS, Observed, Snapshot};

/// Counts under names that partly come from outside: at most [`Names::MOST`] of them, cut to
/// [`Names::LONGEST`] bytes; what comes later is counted under `other`.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<Box<str>, u64>>);

impl Names {
    /// Distinct names that are kept.
    pub const MOST: usize = 1_000;
    /// Bytes of a name that are kept.
    pub const LONGEST: usize = 64;

    /// Counts one under `name`.
    pub fn increment(&self, name: &str) {
        let mut cut = name.len().min(Self::LONGEST);
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        let name = &name[..cut];
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(name) {
            *count += 1;
        } else {
            let name = if counts.len() < Self::MOST - 1 {
                name
            } else {
                "other"
            };
            *counts.entry(name.into()).or_default() += 1;
        }
    }

    /// Adds everything counted so far to `sums`.
    pub fn add_to(&self, sums: &mut BTreeMap<String, u64>) {
        for (name, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *sums.entry(name.to_string()).or_default() += count;
        }
    }
}

/// What one worker counts. Aligned so that two workers never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Sockets that were authenticated.
    pub connections_opened: Counter,
    /// Of those, the ones that ended.
    pub connections_closed: Counter,
    /// Streams of server-sent events among those that were opened.
    pub event_streams_opened: Counter,
    /// Of those, the ones that ended.
    pub event_streams_closed: Counter,
    /// Messages that clients sent.
    pub messages: Counter,
    /// Bytes read from sockets after the upgrade.
    pub received_bytes: Counter,
    /// Bytes written to sockets after the upgrade, and its answer where that left with the greeting.
    pub sent_bytes: Counter,
    /// Write calls that carried them.
    pub writes: Counter,
    /// Events put into a socket's queue.
    pub deliveries: Counter,
    /// How long events took from their publication to the sockets, once each.
    pub delivery: Histogram,
    /// Events of those that were dropped again, because the socket did not take them in time.
    pub dropped: Counter,
    /// Turns of the worker.
    pub turns: Counter,
    /// Events that did not fit into the mailbox; each is a gap for the worker's members.
    pub gaps: Counter,
    /// Messages among them that could not be read.
    pub malformed: Counter,
    /// Error replies to clients.
    pub error_replies: Counter,
    /// Messages by their `type`.
    pub messages_by_type: Names,
    /// Closes by code and reason, such as `4102 too slow`.
    pub closes: Names,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Counters {
    /// One per worker.
    pub workers: Box<[Arc<WorkerCounters>]>,
    /// Refused tokens, keys and origins, by the check that failed.
    pub auth_failures: Names,
    /// Faults of the server itself: store, broker, internal.
    pub errors: Counter,
    /// HTTP responses, by `METHOD route status` with the route's pattern, never a path from outside.
    pub http_responses: Names,
    /// Requests and sockets refused by a limit, by the key of the limit.
    pub limited: Names,
    /// What a limit would have refused, had it not been a dry run.
    pub would_limit: Names,
    /// Tokens issued.
    pub tokens_issued: Counter,
    /// What became of tokens in a trial of lives, as `VARIANT event`.
    pub token_variants: Names,
    /// Revocations of tokens, families and users.
    pub tokens_revoked: Counter,
    /// Events published, by `client`, `backend` or `server`.
    pub publications: Names,
    /// Notifications created.
    pub notifications: Counter,
    /// Questions of the rule `backend` by what became of them.
    pub access_backend: Names,
    /// What became of TLS handshakes: `completed`, `failed`, `timeout`, ..
    pub handshakes: Names,
    /// Readings of the configuration while the server ran: `applied`, `refused`.
    pub reloads: Names,
    /// Fetches of other issuers' keys, `fetched` or `failed`.
    pub key_fetches: Names,
    /// What became of spans.
    pub spans: Arc<trace::Counts>,
    /// Round trips of the server's own client.
    pub canary: Canary,
    /// Alerts that fire.
    pub alerts: Firing,
}

impl Counters {
    /// Zeros, for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            auth_failures: Names::default(),
            errors: Counter::default(),
            http_responses: Names::default(),
            limited: Names::default(),
            would_limit: Names::default(),
            tokens_issued: Counter::default(),
            token_variants: Names::default(),
            tokens_revoked: Counter::default(),
            publications: Names::default(),
            notifications: Counter::default(),
            access_backend: Names::default(),
            handshakes: Names::default(),
            reloads: Names::default(),
            key_fetches: Names::default(),
            spans: Arc::default(),
            canary: Canary::default(),
            alerts: Firing::default(),
        }
    }

    /// [`WorkerCounters::delivery`] of all workers.
    pub fn delivery(&self) -> Timing {
        let timings = self.workers.iter().map(|one| one.delivery.timing());
        timings.fold(Timing::default(), |sum, one| sum.and(&one))
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers
            .iter()
            .map(|worker| counter(worker).value())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_bounded() {
        let names = Names::default();
        for n in 0..5_000 {
            names.increment(&format!("{n}é{}", "é".repeat(100)));
        }
        let mut sums = BTreeMap::new();
        names.add_to(&mut sums);
        assert_eq!(sums.len(), Names::MOST);
        assert_eq!(sums.values().sum::<u64>(), 5_000);
        assert!(sums.keys().all(|name| name.len() <= Names::LONGEST));
    }
}
