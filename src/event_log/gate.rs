//! What may be written: how large the log of a day may become (`logs.day_bytes`), and what the disk has to
//! have left (`logs.free_bytes`). Decides; measuring and writing are the writer's (`daily`).
//!
//! Past the bound of a day its lines are dropped, not moved to a second file: the day has one name, which
//! is what people and log shippers look for, and what is already there, the beginning of whatever fills
//! it, is worth more than its end. What the server says about itself still has a place.

use std::borrow::Cow;

use super::line;

/// What the lines of the server have for themselves in a day that is full.
const RESERVE_BYTES: u64 = 64 << 10;
/// Of a small file system, no more than this part is asked to be free.
const SMALL_PART: u64 = 8;
/// Writing begins again with so much more than the floor, in percent: else it would stop and begin with
/// every file that somebody else writes.
const RESUME_PERCENT: u64 = 125;

/// The bounds, and which of them are reached.
#[derive(Debug)]
pub(super) struct Gate {
    /// `logs.day_bytes`
    pub day_bytes: u64,
    /// `logs.free_bytes`
    pub free_bytes: u64,
    /// Stays so until another file is begun: no short line slips in after a long one was dropped.
    is_day_full: bool,
    is_disk_low: bool,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now the disk has too little left.
    Low,
    /// It has enough again.
    Enough,
}

/// What of a batch goes into the file.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub lines: u64,
    /// The first line that has no place, if the day was not full before.
    pub filled_by: Option<&'a [u8]>,
}

impl Gate {
    pub fn new(day_bytes: u64, free_bytes: u64) -> Self {
        Self {
            day_bytes,
            free_bytes,
            is_day_full: false,
            is_disk_low: false,
        }
    }

    /// Another file is begun.
    pub fn begin_file(&mut self) {
        self.is_day_full = false;
    }

    pub fn is_day_full(&self) -> bool {
        self.is_day_full
    }

    pub fn is_disk_low(&self) -> bool {
        self.is_disk_low
    }

    /// Looks at what the file system has left, of how much.
    pub fn look(&mut self, free: u64, total: u64) -> Option<Turn> {
        let floor = floor(self.free_bytes, total);
        let enough = match self.is_disk_low {
            true => floor.saturating_mul(RESUME_PERCENT) / 100,
            false => floor,
        };
        let is_low = free < enough;
        if is_low == self.is_disk_low {
            return None;
        }
        self.is_disk_low = is_low;
        Some(if is_low { Turn::Low } else { Turn::Enough })
    }

    /// What of these whole lines has a place behind `length` bytes.
    pub fn admit<'a>(&mut self, batch: &'a [u8], length: u64) -> Admitted<'a> {
        let of = |bytes: &[u8]| bytes.len() as u64;
        if !self.is_day_full && length.saturating_add(of(batch)) <= self.day_bytes {
            return Admitted {
                bytes: Cow::Borrowed(batch),
                lines: batch.split_inclusive(|byte| *byte == b'\n').count() as u64,
                filled_by: None,
            };
        }
        let mut admitted = Admitted {
            bytes: Cow::Owned(Vec::new()),
            lines: 0,
            filled_by: None,
        };
        let kept = admitted.bytes.to_mut();
        for line in batch.split_inclusive(|byte| *byte == b'\n') {
            let after = length.saturating_add(of(kept)).saturating_add(of(line));
            let has_place = match self.is_day_full {
                false => after <= self.day_bytes,
                true => line::is_of_the_server(line) && self.has_reserve(after),
            };
            if has_place {
                kept.extend_from_slice(line);
                admitted.lines += 1;
            } else if !self.is_day_full {
                self.is_day_full = true;
                admitted.filled_by = Some(line);
                // What it is about may be the server's own.
                if line::is_of_the_server(line) && self.has_reserve(after) {
                    kept.extend_from_slice(line);
                    admitted.lines += 1;
                }
            }
        }
        admitted
    }

    /// Whether a file may become so long with what the server says about itself.
    pub fn has_reserve(&self, length: u64) -> bool {
        length <= self.day_bytes.saturating_add(RESERVE_BYTES)
    }
}

/// What has to be free of a file system of this size, with this `logs.free_bytes`.
pub fn floor(free_bytes: u64, total: u64) -> u64 {
    free_bytes.min(total / SMALL_PART)
}

#[cfg(test)]
mod tests {
    use super::super::line::{Data, Kind, unstamped};
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_low_disk_is_low_until_there_is_clearly_more() {
        let mut gate = Gate::new(u64::MAX, GIB / 2);
        let mut look = |free_mib: u64, total: u64| gate.look(free_mib << 20, total);
        assert_eq!(look(600, 100 * GIB), None);
        assert_eq!(look(512, 100 * GIB), None, "exactly the floor");
        assert_eq!(look(511, 100 * GIB), Some(Turn::Low));
        assert_eq!(look(639, 100 * GIB), None, "not enough to begin again");
        assert_eq!(look(640, 100 * GIB), Some(Turn::Enough));
        // An eighth of a small one is 32 MiB.
        assert_eq!(look(33, GIB / 4), None);
        assert_eq!(look(31, GIB / 4), Some(Turn::Low));
        assert_eq!(look(40, GIB / 4), Some(Turn::Enough));
        let mut off = Gate::new(u64::MAX, 0);
        assert_eq!(off.look(0, GIB), None);
    }

    #[test]
    fn a_full_day_has_a_place_for_the_server_alone() {
        let [client, server] = [Kind::Connection, Kind::Server].map(|kind| {
            let mut line = Vec::new();
            unstamped(&mut line, kind, &Data::default());
            line
        });
        let batch: Vec<u8> = [&client, &server, &client, &client, &server]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let two = (client.len() + server.len()) as u64;
        let mut gate = Gate::new(100 + two, 0);
        let admitted = gate.admit(&batch, 100);
        let expected: Vec<u8> = [&client, &server, &server]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        assert_eq!((&*admitted.bytes, admitted.lines), (&*expected, 3));
        assert_eq!(admitted.filled_by, Some(&*client));
        // Told once, and no room that is left over is used.
        let admitted = gate.admit(&batch, 0);
        assert_eq!((admitted.lines, admitted.filled_by), (2, None));
        // Nor is that of the server without a bound.
        let admitted = gate.admit(&batch, 100 + two + RESERVE_BYTES);
        assert_eq!(admitted.lines, 0);
        gate.begin_file();
        assert_eq!(gate.admit(&batch, 0).filled_by, Some(&*client));
    }
}
