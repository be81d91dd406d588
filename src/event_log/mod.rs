//! The event log: one JSON object a line in `ws-YYYY-MM-DD.log`. Contract section 7.
//!
//! For what happened to clients, for people and log shippers; diagnostics go to stderr (`logging`).
//! Recording never blocks and never fails: what cannot be written is counted, and the log itself
//! says so once it works again.

mod archive;
mod daily;
mod line;

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

pub use line::{Data, Kind};

use crate::clock::Clock;
use daily::{Course, Daily, Opened, Tally};

/// Lines that wait for the disk; about 2 MiB. More are dropped and counted.
const WAITING_LINES: usize = 8_192;

/// Takes lines for the event log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    clock: Clock,
    /// Held from reading the clock until the line is queued: lines stand in the order of their
    /// timestamps, so none arrives when its day's file is already closed.
    queue: Mutex<NonBlocking>,
    overflow: ErrorCounter,
    tally: Arc<Tally>,
    /// How the writing thread is told to go on.
    course: Arc<Course>,
}

/// Keeps the writing thread; when dropped, waits up to a second until everything recorded is on
/// its way to the disk. Drop it last.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Guard {
    _worker: WorkerGuard,
}

/// What became of the lines, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lines that reached the file.
    pub written_lines: u64,
    /// Lines lost: the queue was full, or the disk refused them.
    pub dropped_lines: u64,
    /// Failed opens, writes, compressions and deletions.
    pub io_errors: u64,
}

impl EventLog {
    /// Opens today's file (UTC) in `dir`, which is created if need be, and puts away the older ones:
    /// compressed, and deleted when they are not of the last `keep_days` days, today included.
    ///
    /// # Errors
    /// When the directory or today's file cannot be created or written.
    pub fn open(dir: &Path, keep_days: u32, clock: Clock) -> io::Result<(Self, Guard)> {
        let tally = Arc::new(Tally::default());
        let course = Arc::new(Course::default());
        let daily = Daily::open(
            Opened::today(dir, keep_days, clock.unix_ms())?,
            Arc::clone(&tally),
            Arc::clone(&course),
        );
        let (queue, worker) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES)
            .lossy(true)
            .thread_name("event-log")
            .finish(daily);
        let overflow = queue.error_counter();
        tally.watch_queue(overflow.clone());
        let open = Open {
            clock,
            queue: Mutex::new(queue),
            overflow,
            tally,
            course,
        };
        Ok((Self(Some(Arc::new(open))), Guard { _worker: worker }))
    }

    /// Goes on in this folder, which may be the same, and keeps so many days of it. What was recorded
    /// before may still come to the old one.
    ///
    /// # Errors
    /// As [`EventLog::open`]; then it goes on as it was.
    pub fn renew(&self, dir: &Path, keep_days: u32) -> io::Result<()> {
        if let Some(open) = &self.0 {
            let opened = Opened::today(dir, keep_days, open.clock.unix_ms())?;
            open.course.change(opened);
        }
        Ok(())
    }

    /// One that records nothing.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Adds a line with the current time. Texts are cut to 300 bytes.
    pub fn record(&self, kind: Kind, data: &Data<'_>) {
        thread_local! {
            /// The queue makes a copy.
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(open) = &self.0 else { return };
        LINE.with_borrow_mut(|line| {
            line::unstamped(line, kind, data);
            let mut queue = open.queue.lock().unwrap_or_else(PoisonError::into_inner);
            line::stamp(line, open.clock.unix_ms());
            // Always `Ok`: a full queue is counted by the queue itself.
            let _ = queue.write_all(line);
        });
    }

    /// What became of the lines so far.
    pub fn figures(&self) -> Figures {
        self.0
            .as_ref()
            .map_or_else(Figures::default, |open| Figures {
                written_lines: open.tally.written_lines.value(),
                dropped_lines: open.tally.lost_lines.value() + open.overflow.dropped_lines() as u64,
                io_errors: open.tally.io_errors.value(),
            })
    }
}
