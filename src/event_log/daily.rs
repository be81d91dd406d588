//! Writes lines to the file of their day. Runs on the queue's thread and nowhere else.
//!
//! The day is read from the line, not from a clock: a line always stands in the file that its
//! timestamp names. Nothing here returns an error, because the queue's thread would lose it: errors
//! are counted, and the lines concerned with them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing_appender::non_blocking::ErrorCounter;

use super::archive::{self, Day};
use super::line::{self, Data, Kind};
use crate::clock;
use crate::counter::Counter;

/// Bytes that are gathered before a write, while more lines wait.
const BATCH_BYTES: usize = 64 * 1024;

/// What the writing thread counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub written_lines: Counter,
    /// Lines that reached the thread but not the file.
    pub lost_lines: Counter,
    pub io_errors: Counter,
    /// Lines that never reached the thread.
    overflow: OnceLock<ErrorCounter>,
}

impl Tally {
    /// Includes what a queue drops in the losses that the log admits.
    pub fn watch_queue(&self, overflow: ErrorCounter) {
        let _ = self.overflow.set(overflow);
    }

    fn missing_lines(&self) -> u64 {
        let overflow = self.overflow.get().map_or(0, ErrorCounter::dropped_lines);
        self.lost_lines.value() + overflow as u64
    }

    /// Counts an error, and says it once: the first one explains the following.
    pub fn failed(&self, what: &str, path: &Path, error: &io::Error) {
        if self.io_errors.value() == 0 {
            tracing::error!(path = %path.display(), %error, "event log: cannot {what}");
        }
        self.io_errors.increment();
    }
}

/// A folder with the file of a day that can be written.
#[derive(Debug)]
pub(super) struct Opened {
    dir: PathBuf,
    keep_days: u32,
    /// The day whose file is open or, after a failure, should be.
    day: Day,
    file: Option<File>,
}

impl Opened {
    /// Creates the directory and opens the file of the day.
    pub fn today(dir: &Path, keep_days: u32, unix_ms: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        let day = Day::parse(clock::date(unix_ms).as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            keep_days,
            day,
            file: Some(open_for_append(&day.path(dir))?),
        })
    }
}

/// What the writing thread is told by others.
#[derive(Debug, Default)]
pub(super) struct Course {
    is_changed: AtomicBool,
    next: Mutex<Option<Opened>>,
}

impl Course {
    /// Has the thread go on there, with the next line or when the queue is empty.
    pub fn change(&self, to: Opened) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        self.is_changed.store(true, Ordering::Release);
    }

    fn changed(&self) -> Option<Opened> {
        if !self.is_changed.swap(false, Ordering::Acquire) {
            return None;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.take()
    }
}

/// The writer behind the queue.
pub(super) struct Daily {
    at: Opened,
    tally: Arc<Tally>,
    course: Arc<Course>,
    /// Opening failed since the queue was last empty: not tried again for every line.
    given_up: bool,
    /// Whole lines on their way to `file`.
    batch: Vec<u8>,
    batch_lines: u64,
    /// Lost lines that the log has admitted.
    admitted: u64,
}

impl Daily {
    /// Goes on in this file and puts older ones away.
    pub fn open(at: Opened, tally: Arc<Tally>, course: Arc<Course>) -> Self {
        let daily = Self {
            at,
            tally,
            course,
            given_up: false,
            batch: Vec::with_capacity(BATCH_BYTES),
            batch_lines: 0,
            admitted: 0,
        };
        daily.put_older_away();
        daily
    }

    fn follow_course(&mut self) {
        if let Some(to) = self.course.changed() {
            self.spill();
            self.at = to;
            self.given_up = false;
            self.put_older_away();
        }
    }

    fn turn_to(&mut self, day: Day) {
        self.spill();
        self.at.day = day;
        self.at.file = None;
        self.given_up = false;
        self.put_older_away();
    }

    /// Compressing a day can take seconds: on a thread of its own.
    fn put_older_away(&self) {
        let Opened {
            dir,
            day: today,
            keep_days,
            ..
        } = &self.at;
        let (dir, today, keep_days) = (dir.clone(), *today, *keep_days);
        let tally = Arc::clone(&self.tally);
        let spawned = std::thread::Builder::new()
            .name(String::from("event-log-gzip"))
            .spawn(move || archive::put_away(&dir, today, keep_days, &tally));
        if let Err(error) = spawned {
            self.tally.failed("start a thread", &self.at.dir, &error);
        }
    }

    /// Writes the batch. Afterwards it is empty, whatever happened.
    fn spill(&mut self) {
        if self.batch_lines == 0 {
            return;
        }
        let written = self.write_batch();
        if written {
            self.tally.written_lines.add(self.batch_lines);
        } else {
            self.tally.lost_lines.add(self.batch_lines);
        }
        let timestamp = self.batch.get(line::TIMESTAMP).map(<[u8]>::to_vec);
        self.batch.clear();
        self.batch_lines = 0;
        if let (true, Some(timestamp)) = (written, timestamp) {
            self.admit_losses(&timestamp);
        }
    }

    /// Whether it is in the file as a whole; if not, none of it is.
    fn write_batch(&mut self) -> bool {
        let path = self.at.day.path(&self.at.dir);
        // Someone may have moved or deleted the file: nobody would ever read what is written to it.
        let unlinked = |file: &File| file.metadata().is_ok_and(|file| file.nlink() == 0);
        if self.at.file.as_ref().is_some_and(unlinked) {
            self.at.file = None;
        }
        if self.at.file.is_none() && !self.given_up {
            match open_for_append(&path) {
                Ok(file) => self.at.file = Some(file),
                Err(error) => {
                    self.given_up = true;
                    self.tally.failed("open", &path, &error);
                }
            }
        }
        let Some(file) = &mut self.at.file else {
            return false;
        };
        match append(file, &self.batch) {
            Ok(()) => true,
            Err(error) => {
                self.tally.failed("write", &path, &error);
                false
            }
        }
    }

    /// Says in the log how many lines it lacks. Carries the time of a line that was just written, so
    /// that it belongs to the open file.
    fn admit_losses(&mut self, timestamp: &[u8]) {
        let missing = self.tally.missing_lines();
        let (Some(file), true) = (&mut self.at.file, missing > self.admitted) else {
            return;
        };
        let message = format!("dropped {} lines", missing - self.admitted);
        let data = Data {
            message: Some(&message),
            ..Data::default()
        };
        let mut line = Vec::new();
        line::unstamped(&mut line, Kind::Server, &data);
        line[line::TIMESTAMP].copy_from_slice(timestamp);
        match append(file, &line) {
            Ok(()) => self.admitted = missing,
            Err(error) => {
                let path = self.at.day.path(&self.at.dir);
                self.tally.failed("write", &path, &error);
            }
        }
    }
}

/// How long lines gather before they are written together. A crash of the machine or a `kill -9`
/// loses them.
const GATHER: std::time::Duration = std::time::Duration::from_millis(5);

impl Write for Daily {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.follow_course();
        match line.get(line::DAY).and_then(Day::parse) {
            Some(day) if day != self.at.day => self.turn_to(day),
            _ => {}
        }
        self.batch.extend_from_slice(line);
        self.batch_lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.spill();
        }
        Ok(line.len())
    }

    /// Called when the queue is empty. What comes next gathers for a moment: woken for each line, this
    /// thread cost a connecting client as much as its token check.
    fn flush(&mut self) -> io::Result<()> {
        self.spill();
        self.follow_course();
        self.given_up = false;
        std::thread::sleep(GATHER);
        Ok(())
    }
}

/// Opens a log so that what is appended begins a line, also after a crash in the middle of one.
fn open_for_append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

/// Appends all of `bytes` or, as far as the disk lets us take it back, nothing.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| {
        let _ = file.set_len(before);
    })
}
