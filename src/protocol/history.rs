//! What a channel remembers, and what a client that was away gets of it.

use super::{Event, Position};

/// An event of a channel's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its offset in the channel's current epoch.
    pub offset: u64,
    /// The event as published.
    pub event: Event,
}

/// What a client that was away has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The channel's current position: that of the last event in `missed`, if there is one.
    pub position: Position,
    /// Everything after the client's position, oldest first and without a hole; or why that cannot
    /// be proven.
    pub missed: Result<Vec<Entry>, Unrecoverable>,
}

/// Why a position cannot be recovered from. Contract section 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrecoverable {
    /// The position is of another incarnation of the history, or ahead of it.
    EpochChanged,
    /// The events after it are too old to be kept.
    HistoryExpired,
    /// More events came after it than are kept.
    TooFar,
}

impl Unrecoverable {
    /// The `reason` that the client is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EpochChanged => "epoch_changed",
            Self::HistoryExpired => "history_expired",
            Self::TooFar => "too_far",
        }
    }
}
