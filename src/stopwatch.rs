//! Nanoseconds for measurements. Everything else asks [`crate::clock::Clock`], whose milliseconds are
//! enough to decide by and too coarse to measure with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock, in nanoseconds since some moment that all processes of the machine share.
pub fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The wall clock in nanoseconds since 1970, for what others put beside their own times.
pub fn unix_nanos() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// A duration in nanoseconds, saturating.
pub fn of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
