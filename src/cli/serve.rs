//! `fanfare serve`: the server itself.

use fanfare::clock::Clock;
use fanfare::config::{self, Sources};
use fanfare::{app, logging};

use super::Failure;

/// Serves until a signal stops it. Nothing is opened or bound before the configuration is known to be good.
pub fn run(sources: &Sources) -> Result<(), Failure> {
    let config = config::load(sources)?;
    logging::init(config.dev);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    app::serve(config, Clock::system()).map_err(|failure| Failure::Other(failure.into()))
}
