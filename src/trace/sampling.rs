//! Which requests are recorded. Pure, but for the count of those that were.

use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Caller;

/// What is asked for: `traces.sample` and `traces.per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Of a million requests that come without a `traceparent`, so many.
    pub per_million: u32,
    /// Traces in one second, whoever asks for them: a stranger's `traceparent` costs no more than this.
    pub per_second: u32,
}

impl Sampling {
    /// All of them.
    pub const ALL: u32 = 1_000_000;

    /// Whether a request is to be recorded: a caller that says something of it decides, else chance,
    /// which `roll` gives.
    pub fn wants(self, caller: Option<Caller>, roll: impl FnOnce() -> u32) -> bool {
        match caller {
            Some(caller) => caller.sampled,
            None if self.per_million == 0 => false,
            None => roll() % Self::ALL < self.per_million,
        }
    }
}

/// Traces that were begun in the second that is.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

impl Budget {
    /// Takes one of `per_second`; `second` may be counted from anywhere.
    pub fn take(&self, per_second: u32, second: u64) -> bool {
        let second = second << 32;
        let update = |was: u64| {
            let taken = if was >> 32 << 32 == second {
                was & u64::from(u32::MAX)
            } else {
                0
            };
            (taken < u64::from(per_second)).then_some(second | (taken + 1))
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_decides_and_chance_where_there_is_none() {
        let caller = |sampled| {
            Some(Caller {
                context: Default::default(),
                sampled,
            })
        };
        let of = |per_million| Sampling {
            per_million,
            per_second: 1,
        };
        assert!(of(0).wants(caller(true), || unreachable!()));
        assert!(!of(Sampling::ALL).wants(caller(false), || unreachable!()));
        assert!(!of(0).wants(None, || 0));
        assert!(of(Sampling::ALL).wants(None, || u32::MAX));
        assert!(of(10_000).wants(None, || 1_009_999));
        assert!(!of(10_000).wants(None, || 10_000));
    }

    #[test]
    fn a_second_has_so_many_and_no_more() {
        let budget = Budget::default();
        let taken = |second| (0..10).filter(|_| budget.take(3, second)).count();
        assert_eq!((taken(7), taken(7), taken(8), taken(9)), (3, 0, 3, 3));
        assert!(!budget.take(0, 10));
    }
}
