//! What is measured for the alarms, once a second and cheaply.

use std::collections::{BTreeMap, VecDeque};

use super::alarm::{Alert, Level};
use super::{Levels, Parts};
use crate::broker::Health;
use crate::broker::figures::ServerFigures;
use crate::clock::millis;
use crate::config::Config;
use crate::metrics::Observed;

/// Seconds of a minute.
const MINUTE: usize = 60;

/// What a measurement needs of those before it.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// All refusals ever, a second each, a minute of them.
    failures: VecDeque<u64>,
    /// Since when broker or store has been down, in monotonic milliseconds.
    down_since_ms: Option<u64>,
}

impl Readings {
    pub(super) fn take(&mut self, parts: &Parts, config: &Config) -> Levels {
        let alerts = &config.alerts;
        let observed = &parts.observed;
        let now = parts.clock.now();
        let mut levels = Levels::new();
        let mut note = |alert, is_on: bool, value: f64, threshold: f64| {
            if is_on {
                levels.insert(alert, Level { value, threshold });
            }
        };

        let most = alerts.auth_failures_per_minute;
        let failures = self.failures_in_a_minute(all_failures(parts));
        let (value, threshold) = (failures as f64, f64::from(most));
        note(Alert::AuthFailures, most > 0, value, threshold);

        let most = f64::from(alerts.queue_percent);
        note(Alert::QueuePressure, most > 0.0, (parts.fullest)(), most);

        let most = f64::from(alerts.store_percent);
        if let Some(percent) = fullness(observed, config.limits.store_bytes) {
            note(Alert::StoreNearlyFull, most > 0.0, percent, most);
        }

        let is_down = [observed.broker.health(), observed.store.health()]
            .iter()
            .any(|health| matches!(health, Health::Down(_)));
        self.down_since_ms = match self.down_since_ms {
            _ if !is_down => None,
            None => Some(now.mono_ms),
            since => since,
        };
        let down_ms = self.down_since_ms.map_or(0, |since| now.mono_ms - since);
        let patience_ms = millis(alerts.broker_down);
        let (value, threshold) = (down_ms as f64 / 1e3, patience_ms as f64 / 1e3);
        note(Alert::BrokerDown, patience_ms > 0, value, threshold);

        let ends = (observed.certificates)();
        if let Some(not_after_ms) = ends.into_iter().map(|(_, not_after_ms)| not_after_ms).min() {
            let ahead_ms = millis(alerts.certificate);
            let left_s = not_after_ms as f64 / 1e3 - now.unix_ms as f64 / 1e3;
            let overdue = ahead_ms as f64 / 1e3 - left_s;
            note(Alert::CertificateExpiring, ahead_ms > 0, overdue, 0.0);
        }

        let most_ms = millis(alerts.canary_latency);
        let canary = &observed.counters.canary;
        if let Some(latency_ms) = canary.latency_ms().filter(|_| config.canary.is_some()) {
            note(Alert::CanarySlow, most_ms > 0, latency_ms, most_ms as f64);
        }
        levels
    }

    fn failures_in_a_minute(&mut self, now: u64) -> u64 {
        self.failures.push_back(now);
        let before = self.failures.front().copied().unwrap_or(now);
        if self.failures.len() > MINUTE {
            self.failures.pop_front();
        }
        now.saturating_sub(before)
    }
}

/// How full the store is, in percent; `None`: it has no bound. A Redis is as full as the fullest of its
/// servers. A file that takes no writes, because the disk is nearly full, is full.
fn fullness(observed: &Observed, store_bytes: u64) -> Option<f64> {
    if let Some(redis) = &observed.redis {
        return fullest(&redis().servers);
    }
    match observed.store.health() {
        Health::Degraded(_) => Some(100.0),
        _ if store_bytes == u64::MAX => None,
        _ => Some(observed.store.figures().bytes as f64 * 100.0 / store_bytes as f64),
    }
}

fn fullest(servers: &[ServerFigures]) -> Option<f64> {
    let bounded = servers.iter().filter(|server| server.max_bytes > 0);
    bounded
        .map(|server| server.used_bytes as f64 * 100.0 / server.max_bytes as f64)
        .reduce(f64::max)
}

fn all_failures(parts: &Parts) -> u64 {
    let mut sums = BTreeMap::new();
    parts.observed.counters.auth_failures.add_to(&mut sums);
    sums.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_server_counts_and_one_without_a_bound_does_not() {
        let server = |used_bytes, max_bytes| ServerFigures {
            used_bytes,
            max_bytes,
            ..ServerFigures::default()
        };
        assert_eq!(fullest(&[]), None);
        assert_eq!(fullest(&[server(900, 0)]), None);
        let servers = [server(10, 100), server(900, 1_000), server(900, 0)];
        assert_eq!(fullest(&servers), Some(90.0));
    }

    #[test]
    fn a_minute_is_a_minute() {
        let mut readings = Readings::default();
        assert_eq!(readings.failures_in_a_minute(5), 0);
        assert_eq!(readings.failures_in_a_minute(9), 4);
        for _ in 0..58 {
            assert_eq!(readings.failures_in_a_minute(9), 4);
        }
        assert_eq!(readings.failures_in_a_minute(9), 4);
        assert_eq!(readings.failures_in_a_minute(9), 0);
    }
}
