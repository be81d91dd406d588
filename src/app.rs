//! The life of the server: builds the parts in order, owns them, drains them in reverse.

use crate::clock::Clock;
use crate::config::Config;

/// Why the server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is nothing to serve with yet.
    #[error("the server is not built in yet")]
    Missing,
}

/// Serves until a signal stops it.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn serve(_config: Config, _clock: Clock) -> Result<(), Failure> {
    Err(Failure::Missing)
}
