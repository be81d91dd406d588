//! The configuration that is in force: replaced as a whole, read where it is used.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Config;

/// Where the current configuration is found. Cheap to clone; all clones show the same.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Config>>);

impl Live {
    /// This one, until it is replaced.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The one in force. Whoever keeps it keeps an old one: for one request, not for a life.
    pub fn current(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts another in force.
    pub fn replace(&self, config: Arc<Config>) {
        self.0.store(config);
    }
}
