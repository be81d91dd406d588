//! What became of the lines: counted by the writing thread and the one that compresses.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock};

use tracing_appender::non_blocking::ErrorCounter;

use crate::counter::Counter;

/// Why a line is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// More came than the disk took.
    QueueFull,
    /// `logs.day_bytes`
    DayFull,
    /// `logs.free_bytes`
    DiskLow,
    /// The disk refused it.
    IoError,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::DayFull, Self::DiskLow, Self::IoError];

    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::DayFull => "day_full",
            Self::DiskLow => "disk_low",
            Self::IoError => "io_error",
        }
    }
}

/// What becomes of lines now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// They are written.
    #[default]
    Writing,
    /// The day has as many as it may.
    DayFull,
    /// The disk has too little left.
    DiskLow,
    /// The disk refuses them.
    Failing,
}

impl State {
    const ALL: [Self; 4] = [Self::Writing, Self::DayFull, Self::DiskLow, Self::Failing];

    /// As it stands in the statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::DayFull => "day_full",
            Self::DiskLow => "disk_low",
            Self::Failing => "failing",
        }
    }
}

/// Counters and what the two threads share.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub written_lines: Counter,
    /// Lines that reached the thread but not the file, as in [`Loss::ALL`].
    lost_lines: [Counter; 4],
    pub io_errors: Counter,
    /// Lines that never reached the thread.
    overflow: OnceLock<ErrorCounter>,
    state: AtomicU8,
    /// An error was said since the last call of `may_say_again`.
    has_said: AtomicBool,
    /// Held while a log is appended to, and while one is taken away: nothing is written to what is deleted.
    pub files: Mutex<()>,
}

impl Tally {
    /// Includes what a queue drops in the losses.
    pub fn watch_queue(&self, overflow: ErrorCounter) {
        let _ = self.overflow.set(overflow);
    }

    pub fn lost(&self, why: Loss, lines: u64) {
        self.lost_lines[why as usize].add(lines);
    }

    /// By cause, as in [`Loss::ALL`].
    pub fn losses(&self) -> [u64; 4] {
        let mut losses = [0, 1, 2, 3].map(|why: usize| self.lost_lines[why].value());
        let overflow = self.overflow.get().map_or(0, ErrorCounter::dropped_lines);
        losses[Loss::QueueFull as usize] += overflow as u64;
        losses
    }

    pub fn missing_lines(&self) -> u64 {
        self.losses().iter().sum()
    }

    pub fn state(&self) -> State {
        let at = usize::from(self.state.load(Ordering::Relaxed));
        State::ALL.get(at).copied().unwrap_or_default()
    }

    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Counts an error, and says it once: the first one explains the following.
    pub fn failed(&self, what: &str, path: &Path, error: &io::Error) {
        if !self.has_said.swap(true, Ordering::Relaxed) {
            tracing::error!(path = %path.display(), %error, "event log: cannot {what}");
        }
        self.io_errors.increment();
    }

    /// What fails next is worth a word.
    pub fn may_say_again(&self) {
        self.has_said.store(false, Ordering::Relaxed);
    }
}
