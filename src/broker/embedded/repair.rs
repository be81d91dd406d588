//! One flush a commit or two: what opening again after a crash would take decides.
//!
//! redb commits in one flush, and then has to walk the whole file after a crash; or in two with its
//! allocator's state beside (`set_quick_repair`), and opens in milliseconds. So a commit that somebody
//! waits for is one flush as long as the walk is short, and once nobody has written for a while, one
//! in two flushes ends the risk. Measured, p50 over 300 commits and opening after `abort`:
//!
//! | how | 1 row | 64 rows | opening, first and second time: 100,000 notifications | and 544 MB of log | 1,088 MB |
//! |---|---|---|---|---|---|
//! | bare append and `fdatasync` | 2.2 to 4.0 ms | 4.0 ms | | | |
//! | redb, quick repair (two flushes) | 8.0 ms | 8.0 to 12.0 ms | 29, 8 ms | 39, 7 ms | 27, 17 ms |
//! | redb, one phase (one flush) | 4.0 ms | 4.0 ms | 350, 822 ms | 812, 2,679 ms | 3,186, 7,710 ms |
//! | a log of our own before redb | 4.0 ms | 4.0 to 5.8 ms | not built: as quick repair, and 5 to 29 ms a checkpoint | | |
//!
//! Openings vary widely: the page cache was not dropped between them.
//!
//! One phase tells a torn commit by redb's checksums (XXH3: against chance, not against somebody who
//! chooses the content and the moment of a power failure). With 64 publishers in a closed loop, release
//! build, a bare flush taking 4.0 ms: 62.7 a commit, 4.4 ms a commit, 14,164 a second; one publisher:
//! 4.4 ms.
//!
//! The log of our own would save nothing per commit over one phase, only the walk.

/// The longest walk that is risked.
const WALK_MS: u64 = 600;
/// What a mebibyte of the log takes in it: full pages, in order.
const LOG_MS: u64 = 3;
/// The same for all other tables: half full, in any order.
const REST_MS: u64 = 5;
/// How long nobody has to have written.
pub(super) const QUIET_MS: u64 = 1_000;

/// Whether a database of these weights may be left to a walk.
pub(super) fn is_short(log_bytes: u64, rest_bytes: u64) -> bool {
    (log_bytes >> 20) * LOG_MS + (rest_bytes >> 20) * REST_MS <= WALK_MS
}

#[cfg(test)]
mod tests {
    use super::is_short;

    #[test]
    fn what_takes_too_long_is_not_risked() {
        assert!(is_short(0, 70 << 20) && is_short(100 << 20, 30 << 20));
        assert!(!is_short(1 << 30, 0) && !is_short(0, 200 << 20));
        assert!(!is_short(u64::MAX >> 8, u64::MAX >> 8));
    }
}
