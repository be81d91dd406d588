//! Budgets of the only node there is: in memory, and full again after a start.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::broker::Draw;
use crate::budget::Budgets;

/// The buckets of all owners.
pub(super) struct Purses {
    keyed: RandomState,
    /// Held while one owner's buckets are looked at and taken from: one step.
    budgets: Mutex<Budgets>,
}

impl Default for Purses {
    fn default() -> Self {
        Self {
            keyed: RandomState::new(),
            budgets: Mutex::new(Budgets::per_key()),
        }
    }
}

impl Purses {
    /// See [`crate::broker::Store::spend`].
    pub(super) fn spend(&self, owner: &str, draws: &[Draw], now_ns: u64) -> Option<Duration> {
        let key = |draw: &Draw| self.keyed.hash_one((owner, draw.bucket));
        let budgets = lock::lock(&self.budgets);
        let waits = draws
            .iter()
            .filter_map(|draw| budgets.wait(Some(draw.rate), key(draw), now_ns).err());
        if let Some(wait_ns) = waits.max() {
            return Some(Duration::from_nanos(wait_ns));
        }
        for draw in draws.iter().filter(|draw| draw.is_taken) {
            let spent = budgets.spend(Some(draw.rate), key(draw), now_ns);
            debug_assert!(spent.is_ok(), "it has just been looked at");
        }
        None
    }
}
