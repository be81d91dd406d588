//! `limits.store_bytes`: what the database weighs, and when it takes no more.
//!
//! redb's own statistics walk every page, so this counts keys and values as they come and go (one
//! addition a row) and multiplies by how full redb leaves its pages. The factors were measured
//! against the blocks that the file takes on disk; `tests/broker_contract.rs` holds them to it.

/// How many percent of its bytes the log takes: rows only ever go to the end, so pages are full.
const LOG_PERCENT: u64 = 130;
/// The same for all other tables: keys come in any order, so pages are between half full and full.
const REST_PERCENT: u64 = 200;
/// An empty database with its tables.
const BASE_BYTES: u64 = 256 << 10;

/// How large the database may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// `limits.store_bytes`.
    pub(super) store_bytes: u64,
}

impl Quota {
    /// What the database takes on disk, more or less.
    pub(super) fn weigh(log_bytes: u64, rest_bytes: u64) -> u64 {
        let log = log_bytes.saturating_mul(LOG_PERCENT) / 100;
        let rest = rest_bytes.saturating_mul(REST_PERCENT) / 100;
        log.saturating_add(rest).saturating_add(BASE_BYTES)
    }

    /// Whether the database may weigh so much. What lies between this and `store_bytes` is for the
    /// pages that a commit writes anew, and for deleting and sweeping when nothing else goes.
    pub(super) fn admits(self, weight: u64) -> bool {
        weight <= self.store_bytes - self.head_room()
    }

    /// Whether so little is left that larger writes are refused: a 64th of what is allowed.
    pub(super) fn is_full(self, weight: u64) -> bool {
        let most = self.store_bytes - self.head_room();
        weight > most - most / 64
    }

    /// An eighth, 64 MiB at most.
    fn head_room(self) -> u64 {
        (self.store_bytes / 8).min(64 << 20)
    }

    /// Dead bytes that the log may always have, so that a small log is not copied for ever.
    pub(super) fn log_floor(self) -> u64 {
        (self.store_bytes / 16).min(4 << 20)
    }
}
