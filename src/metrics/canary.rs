//! What the canary (`alerts::canary`) has found, and which alerts fire.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::counter::Counter;

/// Rounds in a row without an answer, from which on `/ready` says no.
const SILENT_MAX: u64 = 3;

/// The canary's rounds.
#[derive(Debug, Default)]
pub struct Canary {
    /// Rounds that came to an end.
    pub rounds: Counter,
    /// Rounds that did not.
    pub failures: Counter,
    /// Microseconds of the last round; 0: there was none.
    latency_us: AtomicU64,
    silent: AtomicU64,
}

impl Canary {
    /// A round took so long.
    pub fn heard(&self, latency: Duration) {
        self.rounds.increment();
        self.silent.store(0, Ordering::Relaxed);
        self.keep(latency);
    }

    /// A round came to nothing within `patience`. Whether it is the first since one that did.
    pub fn silent(&self, patience: Duration) -> bool {
        self.failures.increment();
        self.keep(patience);
        self.silent.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether nothing has come through for some rounds.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed) >= SILENT_MAX
    }

    /// Milliseconds of the last round, if there was one; of one that failed, its patience.
    pub fn latency_ms(&self) -> Option<f64> {
        match self.latency_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(us as f64 / 1e3),
        }
    }

    fn keep(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        self.latency_us.store(us, Ordering::Relaxed);
    }
}

/// The names of all alerts (`alerts::alarm`).
pub const ALERTS: [&str; 6] = [
    "auth_failures",
    "queue_pressure",
    "store_nearly_full",
    "broker_down",
    "certificate_expiring",
    "canary_slow",
];

/// The alerts that fire, by name.
#[derive(Debug, Default)]
pub struct Firing(Mutex<BTreeSet<&'static str>>);

impl Firing {
    /// These and no others.
    pub fn show(&self, firing: BTreeSet<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = firing;
    }

    /// Which.
    pub fn now(&self) -> BTreeSet<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
