//! One line on stderr that says what goes on, for people: only on a terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use crate::stopwatch;

/// The eye does not need more.
const INTERVAL_NS: u64 = 200_000_000;

/// The line. It is wiped when this is dropped.
pub struct Progress {
    shown: bool,
    task: String,
    last_ns: u64,
}

impl Progress {
    /// Shows itself if stderr is a terminal.
    pub fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
            task: String::new(),
            last_ns: 0,
        }
    }

    /// What is being done from now on.
    pub fn begin(&mut self, task: impl Into<String>) {
        self.task = task.into();
        self.last_ns = 0;
        self.say(format_args!(""));
    }

    /// How far it is; shown five times a second at most.
    pub fn say(&mut self, what: fmt::Arguments<'_>) {
        if !self.shown {
            return;
        }
        let now = stopwatch::nanos();
        if now - self.last_ns >= INTERVAL_NS {
            self.last_ns = now;
            // A terminal that is gone has nobody to tell.
            let _ = write!(io::stderr(), "\r\x1b[K{} {what}", self.task);
        }
    }
}

impl Progress {
    /// Says something that stays, terminal or not, in a line of its own.
    pub fn leave(&mut self, what: fmt::Arguments<'_>) {
        let wiped = if self.shown { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr(), "{wiped}{what}");
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
