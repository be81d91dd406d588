//! A warning now and then: what goes wrong a thousand times a second is said once in a while, with how
//! often it was held back.

use std::sync::atomic::{AtomicU64, Ordering};

/// Between two warnings of one kind.
const PAUSE_MS: u64 = 10_000;

/// Lets one warning of a kind through every ten seconds.
#[derive(Debug, Default)]
pub struct Sparing {
    /// Monotonic milliseconds; 0: never yet.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Sparing {
    /// Whether to warn now: then, how many warnings were held back since the last one.
    pub fn warn(&self, now_mono_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let turn = now_mono_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(
                    next_ms,
                    now_mono_ms + PAUSE_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if turn {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_said_with_their_number() {
        let sparing = Sparing::default();
        assert_eq!(sparing.warn(5), Some(0));
        for _ in 0..7 {
            assert_eq!(sparing.warn(PAUSE_MS + 4), None);
        }
        assert_eq!(sparing.warn(PAUSE_MS + 5), Some(7));
        assert_eq!(sparing.warn(PAUSE_MS + 6), None);
    }
}
