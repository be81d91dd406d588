//! Copies of the database: made while it is written to, proven, and made a database again.
//!
//! A copy is one read transaction of redb, written down row by row (`format`): it is of one moment,
//! writers do not wait for it, and it needs no second database's worth of disk on the server.

mod backup;
mod format;
mod restore;

pub(super) use backup::existing;
pub use backup::{BackupError, Extra, Progress, dump_file};
pub use format::{FormatError, Manifest};
pub use restore::{Restore, RestoreError, Restored, verify};
