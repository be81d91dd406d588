//! The embedded database as a side of a migration (`broker::migration`).

mod export;
mod import;
mod rows;

use std::path::{Path, PathBuf};

pub use export::Origin;
pub use import::Destination;

use super::OpenError;
use super::copy::existing;
use crate::broker::migration::MigrationError;
use crate::clock::Clock;
use crate::config::Limits;

/// Which database, and what it may become.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// `limits.store_bytes`
    pub store_bytes: u64,
    /// `limits.history_bytes`
    pub history_bytes: u64,
    /// What time it is.
    pub clock: Clock,
}

impl Options {
    /// By the configuration.
    pub fn new(path: &Path, limits: &Limits, clock: Clock) -> Self {
        Self {
            path: path.to_owned(),
            store_bytes: limits.store_bytes,
            history_bytes: limits.history_bytes,
            clock,
        }
    }
}

/// Whether a database is the target of a migration that has not come to its end.
///
/// # Errors
/// It cannot be opened: a server runs on it.
pub fn is_unfinished(path: &Path) -> Result<bool, MigrationError> {
    match existing(path) {
        Ok(_) => Ok(false),
        Err(OpenError::Unfinished { .. }) => Ok(true),
        Err(error) => Err(refused(&error)),
    }
}

/// What an error of opening means to a migration.
fn refused(error: &OpenError) -> MigrationError {
    MigrationError::Refused(match error {
        OpenError::InUse { path } => format!(
            "{} is in use by a running server: stop it first (systemctl stop fanfare, or end its process), \
             so that nothing changes while it is copied",
            path.display()
        ),
        OpenError::Io { path, source } => format!("{}: {source}", path.display()),
        other => other.to_string(),
    })
}
