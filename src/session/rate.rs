//! How many commands a client may send: a token bucket, and patience with those who ignore it.

/// A bucket of `per_second` commands, and five times that in a burst.
#[derive(Debug)]
pub struct Rate {
    /// Commands that may be sent now; never more than the burst.
    tokens: f32,
    /// When `tokens` was right, in monotonic milliseconds.
    at_ms: u64,
    /// Commands refused since the last one that was not.
    refused: u16,
}

/// What to do with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Pass,
    /// Say that it was too fast.
    Refuse,
    /// Say so, and close: the client does not listen.
    GiveUp,
}

const BURST_SECONDS: f32 = 5.0;
/// Refusals in a row after which a client is sent away. Contract section 6.
const REFUSALS_MAX: u16 = 100;

impl Rate {
    /// A full bucket.
    pub fn new(per_second: u32, now_ms: u64) -> Self {
        Self {
            tokens: burst(per_second),
            at_ms: now_ms,
            refused: 0,
        }
    }

    /// Counts one command.
    pub fn spend(&mut self, per_second: u32, now_ms: u64) -> Verdict {
        if per_second == u32::MAX {
            return Verdict::Pass;
        }
        let passed_s = now_ms.saturating_sub(self.at_ms) as f32 / 1_000.0;
        self.tokens = (self.tokens + passed_s * per_second as f32).min(burst(per_second));
        self.at_ms = now_ms;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.refused = 0;
            return Verdict::Pass;
        }
        self.refused = self.refused.saturating_add(1);
        if self.refused < REFUSALS_MAX {
            Verdict::Refuse
        } else {
            Verdict::GiveUp
        }
    }
}

fn burst(per_second: u32) -> f32 {
    per_second as f32 * BURST_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_then_the_end() {
        let mut rate = Rate::new(10, 0);
        let passed = (0..60)
            .filter(|_| rate.spend(10, 0) == Verdict::Pass)
            .count();
        assert_eq!(passed, 50);
        assert_eq!(
            rate.spend(10, 100),
            Verdict::Pass,
            "a tenth of a second gives one"
        );
        let verdicts: Vec<_> = (0..100).map(|_| rate.spend(10, 100)).collect();
        assert!(
            verdicts[..99]
                .iter()
                .all(|verdict| *verdict == Verdict::Refuse)
        );
        assert_eq!(verdicts[99], Verdict::GiveUp);
    }

    #[test]
    fn unlimited_is_unlimited() {
        let mut rate = Rate::new(u32::MAX, 0);
        assert!((0..10_000).all(|_| rate.spend(u32::MAX, 0) == Verdict::Pass));
    }
}
