//! Leaves a backend alone that does not answer: after some failures in a row nobody is asked for a
//! while, then one question is let through as a probe.

/// Failures in a row after which nobody is asked.
pub(super) const FAILURES_MAX: u32 = 5;
/// For how long nobody is asked.
pub(super) const OPEN_MS: u64 = 5_000;

/// Pure: the time is told.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Since the last success.
    failures: u32,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Everybody may ask.
    #[default]
    Closed,
    /// Nobody may ask before then, in monotonic milliseconds.
    Open { until_ms: u64 },
    /// One has been let through.
    Probing,
}

/// The right to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// As everybody.
    Ordinary,
    /// To find out whether the backend is back. Has to be followed by a success or a failure.
    Probe,
}

impl Breaker {
    /// Whether one may ask now.
    pub(super) fn admit(&mut self, now_ms: u64) -> Option<Admission> {
        match self.state {
            State::Closed => Some(Admission::Ordinary),
            State::Open { until_ms } if now_ms >= until_ms => {
                self.state = State::Probing;
                Some(Admission::Probe)
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// Whether only probes are asked.
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// The backend has answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It has not; `true` if it is left alone from now on.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= FAILURES_MAX,
            State::Probing => true,
            State::Open { .. } => false,
        };
        if opens {
            self.state = State::Open {
                until_ms: now_ms + OPEN_MS,
            };
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for nth in 1..=FAILURES_MAX {
            assert_eq!(breaker.admit(0), Some(Admission::Ordinary));
            assert_eq!(breaker.failed(0), nth == FAILURES_MAX);
        }
        breaker
    }

    #[test]
    fn failures_have_to_be_in_a_row() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX * 3 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.failed(0));
            }
            breaker.succeeded();
        }
        assert_eq!(breaker.admit(0), Some(Admission::Ordinary));
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(OPEN_MS - 1), None);
        assert_eq!(breaker.admit(OPEN_MS), Some(Admission::Probe));
        assert_eq!(breaker.admit(OPEN_MS), None);
        assert!(breaker.failed(OPEN_MS + 10));
        assert_eq!(breaker.admit(2 * OPEN_MS), None);
        assert_eq!(breaker.admit(2 * OPEN_MS + 10), Some(Admission::Probe));
        breaker.succeeded();
        assert_eq!(breaker.admit(2 * OPEN_MS + 10), Some(Admission::Ordinary));
        assert!(!breaker.is_open());
    }

    #[test]
    fn late_failures_do_not_prolong_it() {
        let mut breaker = opened();
        assert!(!breaker.failed(OPEN_MS - 1));
        assert_eq!(breaker.admit(OPEN_MS), Some(Admission::Probe));
    }
}
