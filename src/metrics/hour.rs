//! The last hour, a sample every five seconds, so that a dashboard opened now shows the past.
//!
//! Bounded: 720 samples of a hundred bytes. What a sample costs does not grow with channels or
//! connections. `latency` is measured by asking: how long a worker takes to come to what is put into its
//! mailbox, which is what an event waits, too. `delivery` is from an event's publication to the sockets,
//! `redis` a command's way and back; both are of the five seconds before, 0 if there was none.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use super::{Observed, Process};
use crate::clock::millis;
use crate::timing::Timing;

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: an hour.
const MOST: usize = 720;
/// Questions to the workers for each sample.
const PROBES: u32 = 10;

/// Asks every worker for a sign of life, and says how long each took, in microseconds.
pub type Probe = Box<dyn Fn() -> Vec<u64> + Send>;

/// What a sample holds, as its JSON names it. Those that end in `Total` only grow.
const COLUMNS: [&str; 20] = [
    "at",
    "connections",
    "messagesTotal",
    "deliveriesTotal",
    "publicationsTotal",
    "authFailuresTotal",
    "errorsTotal",
    "queuedEvents",
    "queuedWrites",
    "storeBytes",
    "residentBytes",
    "cpuMillisecondsTotal",
    "latencyP50",
    "latencyP90",
    "latencyP99",
    "deliveryP50",
    "deliveryP90",
    "deliveryP99",
    "redisP50",
    "redisP99",
];

type Sample = [u64; COLUMNS.len()];

/// The samples.
#[derive(Debug, Default)]
pub struct Hour(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    samples: VecDeque<Sample>,
    /// The number of the next one.
    next: u64,
}

impl Hour {
    fn add(&self, sample: Sample) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.samples.len() == MOST {
            ring.samples.pop_front();
        }
        ring.samples.push_back(sample);
        ring.next += 1;
    }

    /// The samples from number `from` on, as JSON; `next` is the number to ask for next time.
    pub fn since(&self, from: u64) -> String {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.next - ring.samples.len() as u64;
        // A number of another life of the process: everything.
        let from = if from > ring.next { first } else { from };
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(MOST);
        let samples: Vec<&Sample> = ring.samples.iter().skip(skip).collect();
        let answer = json!({
            "intervalMs": millis(INTERVAL),
            "first": first.max(from),
            "next": ring.next,
            "columns": COLUMNS,
            "samples": samples,
        });
        answer.to_string()
    }
}

/// Takes samples until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the samples"]
pub struct Sampler {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Fills `hour` from now on.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(hour: Arc<Hour>, observed: Arc<Observed>, probe: Probe) -> io::Result<Sampler> {
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = thread::Builder::new()
        .name(String::from("metrics-hour"))
        .spawn(move || {
            let mut before = Timings::of(&observed);
            loop {
                let mut waits = Vec::new();
                for _ in 0..PROBES {
                    waits.extend(probe());
                    if stopped.recv_timeout(INTERVAL / PROBES) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
                let timings = Timings::of(&observed);
                hour.add(sample(&observed, waits, &timings, &before));
                before = timings;
            }
        })?;
    Ok(Sampler {
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What has been measured since the start.
struct Timings {
    delivery: Timing,
    redis: Timing,
}

impl Timings {
    fn of(observed: &Observed) -> Self {
        Self {
            delivery: observed.counters.delivery(),
            redis: observed
                .redis
                .as_ref()
                .map_or_else(Timing::default, |read| {
                    let operations = read().operations;
                    let timings = operations.iter().map(|one| &one.timing);
                    timings.fold(Timing::default(), |sum, one| sum.and(one))
                }),
        }
    }
}

fn sample(observed: &Observed, mut waits: Vec<u64>, now: &Timings, before: &Timings) -> Sample {
    let delivery = now.delivery.since(&before.delivery);
    let redis = now.redis.since(&before.redis);
    let counters = &observed.counters;
    let total = |names: &super::Names| {
        let mut sums = std::collections::BTreeMap::new();
        names.add_to(&mut sums);
        sums.values().sum::<u64>()
    };
    let store = observed.store.figures();
    let process = Process::read();
    waits.sort_unstable();
    let opened = counters.sum(|worker| &worker.connections_opened);
    let closed = counters.sum(|worker| &worker.connections_closed);
    [
        observed.clock.now().unix_ms,
        opened.saturating_sub(closed),
        counters.sum(|worker| &worker.messages),
        counters.sum(|worker| &worker.deliveries),
        total(&counters.publications),
        total(&counters.auth_failures),
        counters.errors.value(),
        (observed.queues)().iter().map(|depth| *depth as u64).sum(),
        store.queued_writes,
        store.bytes,
        process.resident_bytes,
        (process.cpu_seconds * 1e3) as u64,
        percentile(&waits, 50),
        percentile(&waits, 90),
        percentile(&waits, 99),
        delivery.percentile(50),
        delivery.percentile(90),
        delivery.percentile(99),
        redis.percentile(50),
        redis.percentile(99),
    ]
}

/// Of sorted values, by the nearest rank; 0 if there are none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn filled(samples: u64) -> Hour {
        let hour = Hour::default();
        for n in 0..samples {
            hour.add([n; COLUMNS.len()]);
        }
        hour
    }

    fn numbers(hour: &Hour, from: u64) -> (Vec<u64>, u64) {
        let value: Value = serde_json::from_str(&hour.since(from)).unwrap();
        let samples = value["samples"].as_array().unwrap();
        let numbers = samples.iter().map(|sample| sample[0].as_u64().unwrap());
        (numbers.collect(), value["next"].as_u64().unwrap())
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let (all, next) = numbers(&filled(1_000), 0);
        assert_eq!((all.len(), all[0], all[719], next), (720, 280, 999, 1_000));
        assert_eq!(numbers(&filled(3), 0).0, [0, 1, 2]);
        assert_eq!(numbers(&filled(0), 0), (vec![], 0));
    }

    #[test]
    fn only_what_is_new_is_told_again() {
        let hour = filled(1_000);
        assert_eq!(numbers(&hour, 998).0, [998, 999]);
        assert_eq!(numbers(&hour, 1_000), (vec![], 1_000));
        // The server was started anew.
        assert_eq!(numbers(&filled(3), 500).0, [0, 1, 2]);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), 100);
        assert_eq!(percentile(&values, 99), 198);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
