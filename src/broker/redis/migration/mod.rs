//! Redis as a side of a migration (`broker::migration`).
//!
//! `PREFIX{!migration}:t` is the checkpoint of an unfinished migration to here: no server starts while it
//! is there. `:s` tells a migration from here that nothing has happened since it was last looked at: a
//! server that starts takes it away. `:g` is what stands for the channels that had no event (`ground`).

mod export;
mod ground;
mod histories;
mod import;
mod look_up;
mod vault;

use std::time::Duration;

use super::{OpenError, Redis};
use crate::broker::Error;
use crate::broker::migration::MigrationError;
use crate::clock::Clock;

pub use export::Origin;
pub use import::Destination;

use super::call::Call;
use super::history::decode;

/// How to reach it.
#[derive(Clone)]
pub struct Options {
    /// `broker.redis.url`
    pub url: String,
    /// `broker.redis.pubsub_url`, if it is another.
    pub pubsub_url: Option<String>,
    /// `broker.redis.prefix`
    pub prefix: String,
    /// The certificates of `broker.redis.ca_file`, in PEM; `None`: the system's.
    pub authorities: Option<Vec<u8>>,
    /// `broker.redis.wait_replicas`
    pub wait_replicas: u32,
    /// `broker.redis.wait_timeout`
    pub wait_timeout: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl Redis {
    /// What a server does before it serves: it refuses what a migration has not finished, and says that
    /// from here on this Redis is no longer what was migrated from it. It is heard of already
    /// ([`vault`] counts who listens), so that a migration that begins now sees it.
    pub(super) async fn meet_migrations(&self) -> Result<bool, Error> {
        let name = |part| self.keys.of_all_nodes("migration", part);
        let read = |part| Call::command("GET", name(part));
        let unfinished: Option<Vec<u8>> = decode(self.link.call(&read("t")).await?)?;
        if unfinished.is_some() {
            return Ok(false);
        }
        self.link.call(&Call::command("DEL", name("s"))).await?;
        let ground: Option<String> = decode(self.link.call(&read("g")).await?)?;
        if let Some(ground) = ground.and_then(|text| ground::Ground::parse(&text)) {
            let _ = self.ground.set(ground.epoch);
        }
        Ok(true)
    }
}

/// What an error of opening means to a migration.
fn unreachable(error: &OpenError) -> MigrationError {
    MigrationError::Unreachable(match error {
        OpenError::Url(cause) => format!("broker.redis.url {cause}"),
        other => other.to_string(),
    })
}
