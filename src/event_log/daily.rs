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
use std::sync::{Arc, Mutex, PoisonError};

use super::archive::{self, Day};
use super::gate::{Gate, Turn};
use super::line::{self, Data, Kind};
use super::tally::{Loss, State, Tally};
use crate::clock;
use crate::config;

/// Bytes that are gathered before a write, while more lines wait.
const BATCH_BYTES: usize = 64 * 1024;

/// A folder with the file of a day that can be written.
#[derive(Debug)]
pub(super) struct Opened {
    dir: PathBuf,
    keep_days: u32,
    gate: Gate,
    /// The day whose file is open or, after a failure, should be.
    day: Day,
    file: Option<File>,
}

impl Opened {
    /// Creates the directory and opens the file of the day.
    pub fn today(logs: &config::Logs, unix_ms: u64) -> io::Result<Self> {
        let dir = &logs.dir;
        DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        let day = Day::parse(clock::date(unix_ms).as_bytes()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            dir: dir.clone(),
            keep_days: logs.keep_days,
            gate: Gate::new(logs.day_bytes, logs.free_bytes),
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
    /// The minute in which the disk last refused something, and said so.
    refused_at: Option<Vec<u8>>,
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
            refused_at: None,
        };
        daily.put_older_away();
        daily
    }

    fn follow_course(&mut self) {
        if let Some(to) = self.course.changed() {
            // Else what gathered goes into the file that was opened anew: the one before is somebody's already.
            if to.dir != self.at.dir || to.day != self.at.day {
                self.spill();
            }
            self.at = to;
            self.given_up = false;
            self.put_older_away();
        }
    }

    fn turn_to(&mut self, day: Day) {
        self.spill();
        self.at.day = day;
        self.at.file = None;
        self.at.gate.begin_file();
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
        self.tally.may_say_again();
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
        let batch = std::mem::take(&mut self.batch);
        self.write(&batch);
        self.batch = batch;
        self.batch.clear();
        self.batch_lines = 0;
    }

    fn write(&mut self, batch: &[u8]) {
        let tally = Arc::clone(&self.tally);
        let _nothing_is_taken_away = tally.files.lock();
        if !self.has_disk() {
            tally.set_state(State::DiskLow);
            return tally.lost(Loss::DiskLow, self.batch_lines);
        }
        let path = self.at.day.path(&self.at.dir);
        let Some(length) = self.length(&path) else {
            return self.refused(batch, self.batch_lines);
        };
        let Some(file) = &mut self.at.file else {
            return;
        };
        let admitted = self.at.gate.admit(batch, length);
        tally.lost(Loss::DayFull, self.batch_lines - admitted.lines);
        if let Err(error) = append(file, &admitted.bytes) {
            tally.failed("write", &path, &error);
            return self.refused(batch, admitted.lines);
        }
        tally.written_lines.add(admitted.lines);
        if let Some(line) = admitted.filled_by {
            let path = path.display();
            tracing::warn!(%path, "event log: logs.day_bytes is reached; what else comes today is counted");
            self.add(
                line,
                "logs.day_bytes is reached: what else comes today is counted",
            );
        } else if admitted.lines > 0 {
            self.admit_losses(batch);
        }
        tally.set_state(match self.at.gate.is_day_full() {
            true => State::DayFull,
            false => State::Writing,
        });
        self.worked(batch);
    }

    /// Whether the disk has enough left. What changes is said.
    fn has_disk(&mut self) -> bool {
        let dir = &self.at.dir;
        // A system that does not tell has no floor; the write itself will fail if it has to.
        let (free, total) = match rustix::fs::statvfs(dir) {
            Ok(system) => {
                let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
                (bytes(system.f_bavail), bytes(system.f_blocks))
            }
            Err(_) => (u64::MAX, u64::MAX),
        };
        let dir = dir.display();
        match self.at.gate.look(free, total) {
            Some(Turn::Low) => tracing::error!(
                %dir, free,
                "event log: the disk has less than logs.free_bytes left; lines are counted, not written"
            ),
            Some(Turn::Enough) => {
                let lost_lines = self.tally.missing_lines() - self.admitted;
                tracing::info!(%dir, free, lost_lines, "event log: the disk has room again");
            }
            None => {}
        }
        !self.at.gate.is_disk_low()
    }

    /// How long the file of the day is, which is open then.
    fn length(&mut self, path: &Path) -> Option<u64> {
        let about = self
            .at
            .file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            // Someone may have moved or deleted the file: nobody would ever read what is written to it.
            .filter(|about| about.nlink() > 0);
        if let Some(about) = about {
            return Some(about.len());
        }
        self.at.file = None;
        if self.given_up {
            return None;
        }
        let opened = open_for_append(path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok((file, length)) => {
                self.at.file = Some(file);
                self.at.gate.begin_file();
                Some(length)
            }
            Err(error) => {
                self.given_up = true;
                self.tally.failed("open", path, &error);
                None
            }
        }
    }

    /// The disk did not take it.
    fn refused(&mut self, batch: &[u8], lines: u64) {
        self.tally.lost(Loss::IoError, lines);
        self.tally.set_state(State::Failing);
        self.refused_at = batch.get(line::MINUTE).map(<[u8]>::to_vec);
    }

    /// It did. Said once a minute at most: a disk that is almost full takes one line and refuses the next.
    fn worked(&mut self, batch: &[u8]) {
        let is_another_minute = |minute: &Vec<u8>| batch.get(line::MINUTE) != Some(minute);
        if self.refused_at.as_ref().is_some_and(is_another_minute) {
            self.refused_at = None;
            self.tally.may_say_again();
            let dir = self.at.dir.display();
            tracing::info!(%dir, "event log: lines are written again");
        }
    }

    /// Says in the log how many lines it lacks.
    fn admit_losses(&mut self, batch: &[u8]) {
        let missing = self.tally.missing_lines();
        if missing > self.admitted
            && self.add(batch, &format!("dropped {} lines", missing - self.admitted))
        {
            self.admitted = missing;
        }
    }

    /// Adds a line of ours with the time of one that belongs into the open file. Whether it is there now.
    fn add(&mut self, of_today: &[u8], message: &str) -> bool {
        let (Some(file), Some(time)) = (&mut self.at.file, of_today.get(line::TIMESTAMP)) else {
            return false;
        };
        let data = Data {
            message: Some(message),
            ..Data::default()
        };
        let mut line = Vec::new();
        line::unstamped(&mut line, Kind::Server, &data);
        line[line::TIMESTAMP].copy_from_slice(time);
        let has_place = |length: u64| self.at.gate.has_reserve(length + line.len() as u64);
        let length = file.metadata().map(|about| about.len());
        match length.and_then(|length| {
            if !has_place(length) {
                return Ok(false);
            }
            append(file, &line).map(|()| true)
        }) {
            Ok(is_there) => is_there,
            Err(error) => {
                let path = self.at.day.path(&self.at.dir);
                self.tally.failed("write", &path, &error);
                false
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
        self.follow_course();
        self.spill();
        self.given_up = false;
        std::thread::sleep(GATHER);
        Ok(())
    }
}

/// Opens a log so that what is appended begins a line, also after a crash in the middle of one.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    alone(&mut file, |file| {
        if file.metadata()?.len() == 0 {
            return Ok(());
        }
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last == *b"\n" {
            return Ok(());
        }
        file.write_all(b"\n")
    })?;
    Ok(file)
}

/// Appends all of `bytes` or, as far as the disk lets us take it back, nothing.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    alone(file, |file| {
        let before = file.metadata()?.len();
        file.write_all(bytes).inspect_err(|_| {
            let _ = file.set_len(before);
        })
    })
}

/// Keeps others of our kind from the file meanwhile, as far as its file system can: a line that is being
/// written looks like one that was torn (a reload, a process that takes over).
fn alone<T>(file: &mut File, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let is_locked = file.lock().is_ok();
    let outcome = act(file);
    if is_locked {
        // It has succeeded all the same.
        let _ = file.unlock();
    }
    outcome
}
