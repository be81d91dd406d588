//! `fanfare serve`: the server itself.

use fanfare::clock::Clock;
use fanfare::config::{self, Sources};
use fanfare::{app, logging};

use super::Failure;

/// Serves until a signal stops it. Nothing is opened or bound before the configuration is known to be good.
pub fn run(sources: Sources) -> Result<(), Failure> {
    let loaded = config::inspect(&sources)?;
    logging::init(&loaded.config.logs.level);
    for warning in loaded.config.warnings() {
        tracing::warn!("{warning}");
    }
    app::serve(loaded, sources, Clock::system()).map_err(|failure| Failure::Other(failure.into()))
}
