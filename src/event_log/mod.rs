//! The event log: one JSON object a line in `ws-YYYY-MM-DD.log`. Contract section 7.
//!
//! For what happened to clients, for people and log shippers; diagnostics go to stderr (`logging`).
//! Recording never blocks and never fails: what cannot be written is counted, and the log itself
//! says so once it works again.

mod archive;
mod daily;
mod gate;
mod line;
mod tally;

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

pub use gate::floor;
pub use line::{Data, Kind, without_token};
pub use tally::{Loss, State};

use crate::clock::Clock;
use crate::config;
use daily::{Course, Daily, Opened};
use tally::Tally;

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
    /// Lines lost, by cause, as in [`Loss::ALL`].
    pub losses: [u64; 4],
    /// Failed opens, writes, compressions and deletions.
    pub io_errors: u64,
    /// What becomes of lines now.
    pub state: State,
}

impl Figures {
    /// All lines lost.
    pub fn dropped_lines(&self) -> u64 {
        self.losses.iter().sum()
    }

    /// Those lost for this reason.
    pub fn lost(&self, why: Loss) -> u64 {
        self.losses[why as usize]
    }
}

impl EventLog {
    /// Opens today's file (UTC) in the folder, which is created if need be, and puts away the older ones:
    /// compressed, and deleted when they are not of the last `keep_days` days, today included.
    ///
    /// # Errors
    /// When the directory or today's file cannot be created or written.
    pub fn open(logs: &config::Logs, clock: Clock) -> io::Result<(Self, Guard)> {
        let tally = Arc::new(Tally::default());
        let course = Arc::new(Course::default());
        let daily = Daily::open(
            Opened::today(logs, clock.unix_ms())?,
            Arc::clone(&tally),
            Arc::clone(&course),
        );
        let (queue, worker) = NonBlockingBuilder::default()
            .buffered_lines_limit(WAITING_LINES)
            .lossy(true)
            .thread_name("event-log")
            .finish(daily);
        tally.watch_queue(queue.error_counter());
        let open = Open {
            clock,
            queue: Mutex::new(queue),
            tally,
            course,
        };
        Ok((Self(Some(Arc::new(open))), Guard { _worker: worker }))
    }

    /// Opens today's file anew and goes on there, in another folder perhaps and with other bounds. What was
    /// recorded before may still come to the old folder, but not to an old file of the same one.
    ///
    /// # Errors
    /// As [`EventLog::open`]; then it goes on as it was.
    pub fn renew(&self, logs: &config::Logs) -> io::Result<()> {
        if let Some(open) = &self.0 {
            let opened = Opened::today(logs, open.clock.unix_ms())?;
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
                losses: open.tally.losses(),
                io_errors: open.tally.io_errors.value(),
                state: open.tally.state(),
            })
    }
}
