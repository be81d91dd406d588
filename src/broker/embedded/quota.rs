//! `limits.store_bytes`: what the database weighs, and when it takes no more.
//!
//! redb's own statistics walk every page, so this counts rows as they come and go (one addition a
//! row), each with what it takes given how redb fills its pages. The factors were measured
//! against the blocks that the file takes on disk (`benches/store.rs` prints both), and
//! `tests/broker_contract/embedded_space.rs` holds them to it. The file's length is of no use: redb
//! doubles it, and what was never written takes no blocks.

/// What a row of the log takes, for each 100 bytes of it: rows only ever go to the end, so pages are
/// full. Measured: 105 for a million rows of 330 bytes.
pub(super) const LOG_PERCENT: u64 = 120;
/// The same for all other tables: keys come in any order, so pages are between half full and full.
/// Measured: 185 for 100,000 notifications of 1,000 users.
pub(super) const REST_PERCENT: u64 = 200;
/// The same for the pages of a row that has them for itself: what splits and frees leave unusable.
const OWN_PAGES_PERCENT: u64 = 130;
/// redb's page.
const PAGE_BYTES: u64 = 4_096;
/// An empty database with its tables.
const BASE_BYTES: u64 = 256 << 10;

/// What a row of so many bytes takes on disk. A large one has pages for itself, a power of two.
pub(super) fn row_weight(bytes: u64, percent: u64) -> u64 {
    if bytes < PAGE_BYTES / 3 {
        bytes * percent / 100
    } else {
        (bytes + 32).next_power_of_two().max(PAGE_BYTES) * OWN_PAGES_PERCENT / 100
    }
}

/// How large the database may become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// `limits.store_bytes`.
    pub(super) store_bytes: u64,
}

impl Quota {
    /// What the database takes on disk, more or less.
    pub(super) fn weigh(log_bytes: u64, rest_bytes: u64) -> u64 {
        log_bytes
            .saturating_add(rest_bytes)
            .saturating_add(BASE_BYTES)
    }

    /// Whether the database may weigh so much. What lies between this and `store_bytes` is for the
    /// pages that a commit writes anew, and for deleting and sweeping when nothing else goes.
    pub(super) fn admits(self, weight: u64) -> bool {
        weight <= self.store_bytes - self.head_room()
    }

    /// The same for what may use half of what lies between.
    pub(super) fn admits_last(self, weight: u64) -> bool {
        weight <= self.store_bytes - self.head_room() / 2
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
