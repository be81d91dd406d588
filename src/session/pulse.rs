//! What time does to a connection: pings and their answers, the token's end, a planned stop.

use crate::clock::Moment;
use crate::protocol::Close;

/// A WebSocket ping goes out so often, and the last one must be answered by then. Contract section 4.
pub const PING_EVERY_MS: u64 = 25_000;
/// The client is told so long before its token ends.
pub const EXPIRY_WARNING_MS: u64 = 60_000;

/// The deadlines of one connection, in monotonic milliseconds.
#[derive(Debug)]
pub struct Pulse {
    ping_at_ms: u64,
    awaits_pong: bool,
    expires_at_ms: u64,
    warning: Warning,
    drain_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warning {
    Due,
    Given,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a ping.
    Ping,
    /// The last ping was not answered: the peer is gone.
    Lost,
    /// Tell the client that its token ends soon.
    Warn,
    /// Close with this.
    Close(Close),
}

impl Pulse {
    /// Begins now, for a token that ends at `expires_unix_ms`.
    pub fn new(expires_unix_ms: u64, now: Moment) -> Self {
        Self {
            ping_at_ms: now.mono_ms + PING_EVERY_MS,
            awaits_pong: false,
            expires_at_ms: on_mono(expires_unix_ms, now),
            warning: Warning::Due,
            drain_at_ms: u64::MAX,
        }
    }

    /// A newer token.
    pub fn renew(&mut self, expires_unix_ms: u64, now: Moment) {
        self.expires_at_ms = on_mono(expires_unix_ms, now);
        self.warning = Warning::Due;
    }

    /// The peer answered a ping.
    pub const fn pong(&mut self) {
        self.awaits_pong = false;
    }

    /// Plans the end of the connection, because the node stops.
    pub const fn drain(&mut self, at_ms: u64) {
        self.drain_at_ms = at_ms;
    }

    /// When [`Pulse::beat`] has something to say, at the earliest.
    pub fn deadline_ms(&self) -> u64 {
        let expiry = match self.warning {
            Warning::Due => self.expires_at_ms.saturating_sub(EXPIRY_WARNING_MS),
            Warning::Given => self.expires_at_ms,
        };
        self.ping_at_ms.min(expiry).min(self.drain_at_ms)
    }

    /// The next thing that is due, if any; ask again until there is none.
    pub fn beat(&mut self, now: Moment) -> Option<Beat> {
        let now_ms = now.mono_ms;
        if now_ms >= self.drain_at_ms {
            return Some(Beat::Close(Close::ShuttingDown));
        }
        if now_ms >= self.expires_at_ms {
            return Some(Beat::Close(Close::TokenExpired));
        }
        if self.warning == Warning::Due && now_ms + EXPIRY_WARNING_MS >= self.expires_at_ms {
            self.warning = Warning::Given;
            return Some(Beat::Warn);
        }
        if now_ms >= self.ping_at_ms {
            if self.awaits_pong {
                return Some(Beat::Lost);
            }
            self.awaits_pong = true;
            self.ping_at_ms = now_ms + PING_EVERY_MS;
            return Some(Beat::Ping);
        }
        None
    }
}

/// A wall-clock time as a monotonic one, as seen now.
fn on_mono(unix_ms: u64, now: Moment) -> u64 {
    now.mono_ms
        .saturating_add(unix_ms.saturating_sub(now.unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment {
        mono_ms: 5_000,
        unix_ms: 1_000_000,
    };

    fn at(after_ms: u64) -> Moment {
        Moment {
            mono_ms: START.mono_ms + after_ms,
            unix_ms: START.unix_ms + after_ms,
        }
    }

    #[test]
    fn a_silent_peer_is_lost_by_the_second_ping() {
        let mut pulse = Pulse::new(START.unix_ms + 3_600_000, START);
        assert_eq!(pulse.deadline_ms(), START.mono_ms + PING_EVERY_MS);
        assert_eq!(pulse.beat(at(24_999)), None);
        assert_eq!(pulse.beat(at(25_000)), Some(Beat::Ping));
        assert_eq!(pulse.beat(at(25_000)), None);
        pulse.pong();
        assert_eq!(pulse.beat(at(50_000)), Some(Beat::Ping));
        assert_eq!(pulse.beat(at(75_000)), Some(Beat::Lost));
    }

    #[test]
    fn a_token_is_warned_of_once_and_then_ends() {
        let mut pulse = Pulse::new(START.unix_ms + 70_000, START);
        assert_eq!(pulse.deadline_ms(), START.mono_ms + 10_000);
        assert_eq!(pulse.beat(at(10_000)), Some(Beat::Warn));
        assert_eq!(pulse.beat(at(10_000)), None);
        pulse.renew(START.unix_ms + 100_000, at(20_000));
        assert_eq!(pulse.beat(at(39_999)), Some(Beat::Ping));
        pulse.pong();
        assert_eq!(pulse.beat(at(40_000)), Some(Beat::Warn));
        assert_eq!(
            pulse.beat(at(100_000)),
            Some(Beat::Close(Close::TokenExpired))
        );
    }

    #[test]
    fn a_short_token_is_warned_of_at_once() {
        let mut pulse = Pulse::new(START.unix_ms + 5_000, START);
        assert_eq!(pulse.beat(START), Some(Beat::Warn));
        assert_eq!(
            pulse.beat(at(5_000)),
            Some(Beat::Close(Close::TokenExpired))
        );
    }

    #[test]
    fn a_planned_stop_comes_first() {
        let mut pulse = Pulse::new(u64::MAX, START);
        pulse.drain(START.mono_ms + 100);
        assert_eq!(pulse.deadline_ms(), START.mono_ms + 100);
        assert_eq!(pulse.beat(at(100)), Some(Beat::Close(Close::ShuttingDown)));
    }
}
