//! Puts old logs away: compressed after their day, deleted after `keep_days`. Crash-safe: at every
//! moment each line is in `.log` or in a complete `.log.gz`, and the next run finishes the work.
//!
//! Only files whose names match exactly are touched; a folder can hold other things.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::FlockOperation;
use time::{Date, Duration, Month};

use super::daily::open_for_append;
use super::tally::Tally;

/// A day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(Date);

impl Day {
    /// Reads `2026-11-23`, to the letter.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
            return None;
        };
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0u16, |sum, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| sum * 10 + u16::from(digit - b'0'))
            })
        };
        let month = Month::try_from(u8::try_from(number(&[m1, m2])?).ok()?).ok()?;
        let day = u8::try_from(number(&[d1, d2])?).ok()?;
        Date::from_calendar_date(i32::from(number(&[y1, y2, y3, y4])?), month, day)
            .ok()
            .map(Self)
    }

    /// Its log in `dir`.
    pub fn path(self, dir: &Path) -> PathBuf {
        let (year, month, day) = self.0.to_calendar_date();
        dir.join(format!("ws-{year:04}-{:02}-{day:02}.log", u8::from(month)))
    }

    fn back(self, days: u32) -> Self {
        Self(self.0.saturating_sub(Duration::days(days.into())))
    }
}

/// What a file in the folder is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Log(Day),
    Compressed(Day),
    /// Left behind by a crash.
    Unfinished,
    Foreign,
}

fn recognise(name: &str) -> Found {
    let day_and_ending = name
        .strip_prefix("ws-")
        .and_then(|rest| rest.split_at_checked(10))
        .and_then(|(day, ending)| Some((Day::parse(day.as_bytes())?, ending)));
    match day_and_ending {
        Some((day, ".log")) => Found::Log(day),
        Some((day, ".log.gz")) => Found::Compressed(day),
        Some((_, ".log.gz.tmp")) => Found::Unfinished,
        _ => Found::Foreign,
    }
}

/// Deletes what is older than `keep_days` days, `today` included, and compresses the rest of the
/// logs before `today`. What is of a later day (a clock was wrong) is left alone.
pub(super) fn put_away(dir: &Path, today: Day, keep_days: u32, tally: &Tally) {
    // Two at once (a slow one from yesterday, a restart) would write the same temporary file.
    let lock = File::open(dir)
        .and_then(|dir| Ok(rustix::fs::flock(&dir, FlockOperation::LockExclusive).map(|()| dir)?));
    let lock = match lock {
        Ok(lock) => lock,
        Err(error) => return tally.failed("lock", dir, &error),
    };
    let found = match list(dir) {
        Ok(found) => found,
        Err(error) => return tally.failed("list", dir, &error),
    };
    let oldest_kept = today.back(keep_days.saturating_sub(1));
    let mut to_compress = BTreeSet::new();
    for (path, found) in found {
        match found {
            Found::Log(day) | Found::Compressed(day) if day < oldest_kept => delete(&path, tally),
            Found::Unfinished => delete(&path, tally),
            Found::Log(day) if day < today => {
                to_compress.insert(day);
            }
            Found::Log(_) | Found::Compressed(_) | Found::Foreign => {}
        }
    }
    for day in to_compress {
        let log = day.path(dir);
        if let Err(error) = compress(&log, &lock, tally) {
            tally.failed("compress", &log, &error);
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<(PathBuf, Found)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.file_name().to_str().map_or(Found::Foreign, recognise);
        if found != Found::Foreign && entry.file_type()?.is_file() {
            files.push((entry.path(), found));
        }
    }
    Ok(files)
}

fn delete(path: &Path, tally: &Tally) {
    if let Err(error) = fs::remove_file(path) {
        tally.failed("delete", path, &error);
    }
}

/// Replaces a log by its `.gz`: complete and on disk under another name first, then renamed, then
/// the log is removed.
fn compress(log: &Path, dir: &File, tally: &Tally) -> io::Result<()> {
    let target = with_ending(log, ".gz");
    let unfinished = with_ending(log, ".gz.tmp");
    // A line that a crash tore is ended: the day may get more of them.
    let (length, file) = {
        let _nobody_writes = tally.files.lock();
        let about = open_for_append(log)?.metadata()?;
        (about.len(), about.ino())
    };
    if !(target.exists() && ends_with(&target, log, length)?) {
        let outcome = write_compressed(log, length, &target, &unfinished, dir);
        if outcome.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        outcome?;
    }
    let _nobody_writes = tally.files.lock();
    let about = fs::metadata(log)?;
    if about.ino() != file {
        // Somebody moved it away, and this is the next one.
        return Ok(());
    }
    if about.len() == length {
        return fs::remove_file(log);
    }
    // The clock went back and the day is written to again: what came meanwhile stays, and nothing else. The
    // writer sees that its file is gone.
    let mut rest = File::open(log)?;
    rest.seek(SeekFrom::Start(length))?;
    let kept = create(&unfinished).and_then(|mut out| io::copy(&mut rest, &mut out));
    kept.and_then(|_| fs::rename(&unfinished, log))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(path)
}

/// Writes so many bytes of the log.
fn write_compressed(
    log: &Path,
    length: u64,
    target: &Path,
    unfinished: &Path,
    dir: &File,
) -> io::Result<()> {
    let mut out = create(unfinished)?;
    // A day that was put away and then got more lines: what is there comes first. Members of a gzip
    // file follow each other (RFC 1952 section 2.2).
    if target.exists() {
        io::copy(&mut File::open(target)?, &mut out)?;
    }
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(log)?.take(length), &mut encoder)?;
    let mut out = encoder.finish()?;
    out.flush()?;
    out.sync_all()?;
    fs::rename(unfinished, target)?;
    dir.sync_all()
}

/// Whether the compressed file ends with exactly the log: then only its removal was missed.
fn ends_with(compressed: &Path, log: &Path, length: u64) -> io::Result<bool> {
    let open = || File::open(compressed).map(|file| MultiGzDecoder::new(BufReader::new(file)));
    // One that does not decompress does not hold the log.
    let Ok(total) = io::copy(&mut open()?, &mut io::sink()) else {
        return Ok(false);
    };
    let Some(before) = total.checked_sub(length) else {
        return Ok(false);
    };
    let mut tail = open()?;
    io::copy(&mut (&mut tail).take(before), &mut io::sink())?;
    same(BufReader::new(tail), BufReader::new(File::open(log)?))
}

fn same(mut a: impl BufRead, mut b: impl BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        a.consume(length);
        b.consume(length);
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_ours() {
        let day = Day::parse(b"2024-02-29").unwrap();
        assert_eq!(recognise("ws-2024-02-29.log"), Found::Log(day));
        assert_eq!(recognise("ws-2024-02-29.log.gz"), Found::Compressed(day));
        assert_eq!(recognise("ws-2024-02-29.log.gz.tmp"), Found::Unfinished);
        for name in [
            "ws-2023-02-29.log",
            "ws-2024-02-29.log.1",
            "ws-2024-02-29.log.bak",
            "ws-2024-2-29.log",
            "ws-+024-02-29.log",
            "ws-2024-02-2é.log",
            "ws-notes.log",
            "xws-2024-02-29.log",
            "ws-",
            "",
        ] {
            assert_eq!(recognise(name), Found::Foreign, "{name}");
        }
    }

    #[test]
    fn a_day_that_was_reopened_loses_nothing_and_repeats_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let today = Day::parse(b"2026-11-23").unwrap();
        let log = today.back(1).path(dir.path());
        let tally = Tally::default();
        let read = || {
            let mut text = String::new();
            let file = File::open(with_ending(&log, ".gz")).unwrap();
            MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
            text
        };
        fs::write(&log, "one\n").unwrap();
        put_away(dir.path(), today, 14, &tally);
        assert_eq!((read().as_str(), log.exists()), ("one\n", false));
        fs::write(&log, "two\n").unwrap();
        put_away(dir.path(), today, 14, &tally);
        assert_eq!((read().as_str(), log.exists()), ("one\ntwo\n", false));
        // As after a crash between the renaming and the removal.
        fs::write(&log, "two\n").unwrap();
        put_away(dir.path(), today, 14, &tally);
        assert_eq!((read().as_str(), log.exists()), ("one\ntwo\n", false));
        assert_eq!(tally.io_errors.value(), 0);
    }
}
