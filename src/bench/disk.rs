//! What this disk takes for what every durable server has to do: append a little and wait for it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::histogram::{Histogram, Latency};
use super::scratch::Scratch;
use super::stopwatch;

/// A tmpfs, as statfs(2) names it: nothing there ever reaches a disk.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// How the disk did.
pub struct Flushing {
    /// Appends with fdatasync(2), one after the other.
    pub per_second: f64,
    /// Of each.
    pub latency: Latency,
}

/// Appends `bytes` and flushes, over and over for so long.
///
/// # Errors
/// When the folder cannot be written to.
pub fn flushing(parent: &Path, bytes: usize, how_long: Duration) -> io::Result<Flushing> {
    let scratch = Scratch::new(parent)?;
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(scratch.path().join("append"))?;
    let line = vec![b'x'; bytes];
    let (start, mut latency) = (stopwatch::nanos(), Histogram::default());
    let (mut now, mut count) = (start, 0u32);
    while count == 0 || now - start < stopwatch::of(how_long) {
        file.write_all(&line)?;
        file.sync_data()?;
        let then = std::mem::replace(&mut now, stopwatch::nanos());
        latency.add(now - then);
        count += 1;
    }
    Ok(Flushing {
        per_second: f64::from(count) / stopwatch::seconds(now - start),
        latency: latency.latency(),
    })
}

/// Whether files in this folder are in memory only.
pub fn is_memory(folder: &Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|about| about.f_type == TMPFS_MAGIC)
}
