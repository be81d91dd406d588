//! One alarm: when it begins and when it is over. Pure.

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alert {
    /// Refused tokens, keys and signatures a minute.
    AuthFailures,
    /// A worker's mailbox fills faster than it is emptied.
    QueuePressure,
    /// The database nears `limits.store_bytes`.
    StoreNearlyFull,
    /// Nothing can be published or stored.
    BrokerDown,
    /// The certificate ends soon.
    CertificateExpiring,
    /// The server's own round trip takes long, or fails.
    CanarySlow,
}

impl Alert {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::AuthFailures,
        Self::QueuePressure,
        Self::StoreNearlyFull,
        Self::BrokerDown,
        Self::CertificateExpiring,
        Self::CanarySlow,
    ];

    /// In metrics, logs and webhooks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthFailures => "auth_failures",
            Self::QueuePressure => "queue_pressure",
            Self::StoreNearlyFull => "store_nearly_full",
            Self::BrokerDown => "broker_down",
            Self::CertificateExpiring => "certificate_expiring",
            Self::CanarySlow => "canary_slow",
        }
    }

    /// What is measured, and its unit.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::AuthFailures => "failures in a minute",
            Self::QueuePressure => "percent of a mailbox",
            Self::StoreNearlyFull => "percent of what the store may take",
            Self::BrokerDown => "seconds without broker or store",
            Self::CertificateExpiring => "seconds overdue for renewal",
            Self::CanarySlow => "milliseconds for a round trip",
        }
    }
}

/// What was measured, and from where on it is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Now.
    pub value: f64,
    /// At it, the alarm begins.
    pub threshold: f64,
}

impl Level {
    fn is_high(self) -> bool {
        self.value >= self.threshold
    }

    /// Well below: what wavers around the threshold neither begins nor ends anything.
    fn is_low(self) -> bool {
        self.value < self.threshold * 0.8
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It begins.
    Raised,
    /// It is over.
    Resolved,
}

/// The state of one alarm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alarm {
    /// All is well.
    #[default]
    Quiet,
    /// Too much, and for how long it has been low again.
    Firing {
        /// Since when, in monotonic milliseconds.
        since_ms: u64,
        /// Since when it has been low.
        low_since_ms: Option<u64>,
    },
}

impl Alarm {
    /// Takes a measurement; `None`: there is none to take, as when the alert is switched off.
    pub fn judge(
        &mut self,
        level: Option<Level>,
        clear_after_ms: u64,
        now_ms: u64,
    ) -> Option<Change> {
        let is_high = level.is_some_and(Level::is_high);
        let is_low = level.is_none_or(Level::is_low);
        match self {
            Self::Quiet if is_high => {
                *self = Self::Firing {
                    since_ms: now_ms,
                    low_since_ms: None,
                };
                Some(Change::Raised)
            }
            Self::Quiet => None,
            Self::Firing { low_since_ms, .. } => {
                if !is_low {
                    *low_since_ms = None;
                    return None;
                }
                let since_ms = *low_since_ms.get_or_insert(now_ms);
                if now_ms.saturating_sub(since_ms) < clear_after_ms {
                    return None;
                }
                *self = Self::Quiet;
                Some(Change::Resolved)
            }
        }
    }

    /// Whether it has begun and is not over.
    pub fn is_firing(self) -> bool {
        matches!(self, Self::Firing { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(value: f64) -> Option<Level> {
        Some(Level {
            value,
            threshold: 100.0,
        })
    }

    #[test]
    fn what_wavers_is_told_once() {
        let mut alarm = Alarm::default();
        let mut told = Vec::new();
        // Around the threshold, every second.
        for second in 0..100 {
            let value = if second % 2 == 0 { 101.0 } else { 90.0 };
            told.extend(alarm.judge(level(value), 10_000, second * 1_000));
        }
        assert_eq!(told, [Change::Raised]);
        // Low, but not for long enough; high once more starts over.
        for second in 100..109 {
            assert_eq!(alarm.judge(level(10.0), 10_000, second * 1_000), None);
        }
        assert_eq!(alarm.judge(level(100.0), 10_000, 109_000), None);
        for second in 110..120 {
            assert_eq!(alarm.judge(level(10.0), 10_000, second * 1_000), None);
        }
        assert_eq!(
            alarm.judge(level(10.0), 10_000, 120_000),
            Some(Change::Resolved)
        );
        assert_eq!(alarm, Alarm::Quiet);
    }

    #[test]
    fn every_alert_has_a_metric() {
        assert_eq!(Alert::ALL.map(Alert::name), crate::metrics::ALERTS);
    }

    #[test]
    fn what_is_switched_off_ends() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.judge(None, 0, 0), None);
        assert_eq!(alarm.judge(level(100.0), 0, 1), Some(Change::Raised));
        assert_eq!(alarm.judge(None, 0, 2), Some(Change::Resolved));
    }
}
