//! The only place that asks what time it is.
//!
//! Everything else is told: decisions take a [`Moment`] as an argument, so that a test can replay a
//! day in a millisecond. Wall-clock time (`unix_ms`) is for what leaves the process or survives it
//! (tokens, stored rows, log lines); monotonic time (`mono_ms`) is for waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since this clock was made. Never goes back.
    pub mono_ms: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z. May jump when the machine's clock is set.
    pub unix_ms: u64,
}

/// A source of [`Moment`]s, cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System {
        origin: Instant,
    },
    Manual {
        mono_ms: Arc<AtomicU64>,
        /// What the wall clock shows when the other one shows 0.
        origin_ms: Arc<AtomicU64>,
    },
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn system() -> Self {
        Self(Source::System {
            origin: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn manual(unix_ms: u64) -> Self {
        Self(Source::Manual {
            mono_ms: Arc::default(),
            origin_ms: Arc::new(AtomicU64::new(unix_ms)),
        })
    }

    /// Moves a manual clock forward; the system's clock ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { mono_ms, .. } = &self.0 {
            mono_ms.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// Sets the wall clock of a manual clock back, as who corrects a wrong one; the system's clock ignores it.
    pub fn set_back(&self, by: Duration) {
        if let Source::Manual { origin_ms, .. } = &self.0 {
            origin_ms.fetch_sub(millis(by), Ordering::Relaxed);
        }
    }

    /// Both clocks at once.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System { origin } => Moment {
                mono_ms: millis(origin.elapsed()),
                unix_ms: SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, millis),
            },
            Source::Manual { mono_ms, origin_ms } => {
                let mono_ms = mono_ms.load(Ordering::Relaxed);
                Moment {
                    mono_ms,
                    unix_ms: origin_ms.load(Ordering::Relaxed).wrapping_add(mono_ms),
                }
            }
        }
    }

    /// Wall-clock time alone, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.now().unix_ms
    }
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-23T04:05:06.789Z`, as JavaScript's `toISOString()` writes it (RFC 3339, UTC, milliseconds).
pub fn rfc3339(unix_ms: u64) -> String {
    rfc3339_bytes(unix_ms).map(char::from).iter().collect()
}

/// The same as ASCII. By hand: it stands in every log line, and `format!` takes several times as long.
pub fn rfc3339_bytes(unix_ms: u64) -> [u8; 24] {
    let time = calendar(unix_ms);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut number = |at: usize, digits: usize, mut value: u32| {
        for digit in text[at..at + digits].iter_mut().rev() {
            *digit += (value % 10) as u8;
            value /= 10;
        }
    };
    number(0, 4, time.year().unsigned_abs());
    number(5, 2, u8::from(time.month()).into());
    number(8, 2, time.day().into());
    number(11, 2, time.hour().into());
    number(14, 2, time.minute().into());
    number(17, 2, time.second().into());
    number(20, 3, time.millisecond().into());
    text
}

/// `2026-11-23`, in UTC.
pub fn date(unix_ms: u64) -> String {
    let time = calendar(unix_ms);
    format!(
        "{:04}-{:02}-{:02}",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

/// The UTC calendar; what lies past the year 9999 is shown as its last second.
fn calendar(unix_ms: u64) -> time::OffsetDateTime {
    const LAST_MS: u64 = 253_402_300_799_999;
    let unix_ms = unix_ms.min(LAST_MS);
    time::OffsetDateTime::from_unix_timestamp((unix_ms / 1_000) as i64)
        .and_then(|second| second.replace_millisecond((unix_ms % 1_000) as u16))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// A duration of whole seconds in one unit, as `jsonwebtoken` and its users write it: `30m`, `90s`, `365d`.
pub fn in_one_unit(ttl: Duration) -> String {
    let seconds = ttl.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        assert_eq!(
            clock.now(),
            Moment {
                mono_ms: 0,
                unix_ms: 1_000
            }
        );
        clock.clone().advance(Duration::from_secs(2));
        assert_eq!(
            clock.now(),
            Moment {
                mono_ms: 2_000,
                unix_ms: 3_000
            }
        );
    }

    #[test]
    fn times_are_written_as_javascript_writes_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_406_706_789), "2026-11-23T04:05:06.789Z");
        assert_eq!(date(1_795_406_706_789), "2026-11-23");
        assert_eq!(date(u64::MAX), "9999-12-31");
    }

    #[test]
    fn a_time_to_live_has_one_unit() {
        for (seconds, text) in [
            (1_800, "30m"),
            (3_600, "1h"),
            (5_400, "90m"),
            (90, "90s"),
            (172_800, "2d"),
            (86_401, "86401s"),
            (1, "1s"),
            (0, "0s"),
        ] {
            assert_eq!(in_one_unit(Duration::from_secs(seconds)), text);
        }
    }
}
