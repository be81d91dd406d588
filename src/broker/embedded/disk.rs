//! How much room the file system has left: writes are refused before the disk is full, whoever fills
//! it. Room that the database has inside its file (redb keeps what was freed) is used all the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How often the system is asked, at most, as long as little is written.
const EVERY_MS: u64 = 1_000;

/// Watches the file system of a database.
pub(super) struct Disk {
    database: PathBuf,
    due_ms: u64,
    /// May be written before the system is asked again.
    credit: u64,
    is_low: bool,
}

impl Disk {
    pub(super) fn new(database: &Path) -> Self {
        Self {
            database: database.to_owned(),
            due_ms: 0,
            credit: 0,
            is_low: false,
        }
    }

    /// What may be written before the system is asked again.
    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    /// Whether so little is left that nothing may be added. `bytes` are about to be written to a
    /// database of this weight.
    pub(super) fn is_low(&mut self, mono_ms: u64, bytes: u64, weight: u64) -> bool {
        if mono_ms < self.due_ms && bytes <= self.credit {
            self.credit -= bytes;
            return self.is_low;
        }
        self.due_ms = mono_ms.saturating_add(EVERY_MS);
        // A system that does not tell has no floor; the write itself will fail if it has to.
        let (free, floor) = match rustix::fs::statvfs(&self.database) {
            Ok(system) => {
                let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
                (bytes(system.f_bavail), floor(bytes(system.f_blocks)))
            }
            Err(_) => (u64::MAX, 0),
        };
        let blocks = std::fs::metadata(&self.database).map_or(0, |file| file.blocks() * 512);
        self.is_low = free < floor && weight > blocks / 4 * 3;
        self.credit = (free.saturating_sub(floor) / 2).max(floor / 8);
        self.is_low
    }
}

/// What is left alone: a 64th of the file system, but 64 MiB at least and 512 MiB at most; of a
/// small one, a quarter.
fn floor(total: u64) -> u64 {
    (total / 64).clamp(64 << 20, 512 << 20).min(total / 4)
}
